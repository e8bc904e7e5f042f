// Where the scales of a tensor's numbers are, and how work is shared among threads.
#pragma once
#include "vector.h"

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

struct Blocks {  // a contiguous tensor as rows, each cut into runs of numbers that share a scale; mirrored in compiled.py
    int64_t rows, length, run, count;     // count runs a row, the last one possibly shorter
    int64_t outer;                        // axes before the row, or -1: the scales of row r start at r * count
    int64_t size[8], step[8], stride[8];  // of each such axis: its length, a block's length, the stride of the scales

    int64_t numbers() const { return rows * length; }
    int64_t start(int64_t k) const { return k / count * length + k % count * run; }  // of run k
    int64_t scales_of(int64_t row) const {
        if (outer < 0) return row * count;
        int64_t place = 0;
        for (int64_t axis = outer - 1; axis >= 0; row /= size[axis--])
            place += row % size[axis] / step[axis] * stride[axis];
        return place;
    }
};

struct Scales {  // mirrored in compiled.py; the scale of run k is scale[k] * outer
    const float *scale, *zero;
    float outer;
    int32_t rescale;  // whether numbers are multiplied by the scale at the end
};

// A team of threads, one for each `worth` numbers at most: fewer do not pay for starting it.
static inline int team(int64_t numbers, int64_t threads) {
    constexpr int64_t worth = 1 << 17;
    return (int)std::max<int64_t>(1, std::min(threads, numbers / worth));
}

// Cuts [0, n) into pieces of `piece`, the last one possibly shorter, and shares them out: use(begin, end) for each.
// Backward begins with what an earlier forward pass has left in the cache.
template <class Use> static void parallel(int64_t n, int64_t piece, int threads, bool backward, const Use& use) {
    const int64_t pieces = (n + piece - 1) / piece;
    const auto part = [&use, n, piece, backward](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
            const int64_t at = backward ? first + last - 1 - i : i;
            use(at * piece, std::min(n, (at + 1) * piece));
        }
        streamed();
    };
    std::vector<std::thread> others;
    for (int64_t t = 1; t < threads; ++t)
        others.emplace_back(part, pieces * t / threads, pieces * (t + 1) / threads);
    part(0, pieces / threads);
    for (auto& thread : others) thread.join();
}

// The numbers [begin, end) as stretches: runs(i, n, count, k) where the runs of n numbers from i have the scales from k
// on, and many_scales(i, n, k) where each number has its own.
template <class Runs, class Many>
static INLINE void walk(const Blocks& b, int64_t begin, int64_t end, const Runs& runs, const Many& many_scales) {
    int64_t row = begin / b.length, column = begin % b.length;
    for (int64_t i = begin; i < end; ++row, column = 0) {
        const int64_t stop = std::min(end, i + b.length - column), first = b.scales_of(row);
        if (b.run == 1 && b.count > 1) {
            many_scales(i, stop - i, first + column);
            i = stop;
            continue;
        }
        while (i < stop) {
            const int64_t k = column / b.run, n = std::min((k + 1) * b.run - column, stop - i);
            const int64_t count = n == b.run ? (stop - i) / n : 1;
            runs(i, n, count, first + k);
            i += n * count, column += n * count;
        }
    }
}
