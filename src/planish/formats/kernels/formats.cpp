// Number formats at the speed of memory: cast, encode and decode a float32 tensor in one pass over it.
// Called through ctypes (compiled.py). Results equal the torch definition bit for bit, with any number of threads.
#include "blocks.h"
#include "elements.h"
#include "packing.h"

#include <cfloat>
#include <type_traits>

struct Rule {  // how a scale follows from its run: scaling.py; mirrored in compiled.py
    float divisor, smallest, largest, outer;
    int32_t both_ends, affine, zero_is_one;
    float lowest, zero_low, zero_high;
};

enum Type : int32_t { REAL, BYTE, WORD, PACKED, STREAM };  // of output or codes: float, 1 or 4 bytes, or packed bits

struct Streamed {  // an output's float that is not to stay in the caches
    float value;
};

constexpr int64_t PIECE = 1 << 14;  // numbers: a run that long is still in the cache when it is read again

static INLINE F load_some(const float* p, int64_t n) {
    float part[LANES] = {};
    memcpy(part, p, n * sizeof(float));
    return load<F>(part);
}

// Numbers in units of the scale, as results: the element's numbers times a factor, or codes.
template <class Q> static INLINE void put(const Q& q, float* out, F x, F zero, F factor) {
    store(out, q.grid(x, zero) * factor);
}
template <class Q> static INLINE void put(const Q& q, Streamed* out, F x, F zero, F factor) {
    stream(&out->value, q.grid(x, zero) * factor);
}
template <class Q> static INLINE void put(const Q& q, int32_t* out, F x, F zero, F) { store(out, q.code(x, zero)); }
template <class Q> static INLINE void put(const Q& q, uint8_t* out, F x, F zero, F) { store_bytes(out, q.code(x, zero)); }

// Calls use(x, out) for each vector of n numbers, the last one through copies where it is not full.
template <class T, class Use> static INLINE void vectors(const float* x, T* out, int64_t n, const Use& use) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) use(load<F>(x + i), out + i);
    if (i == n) return;
    alignas(64) T part[LANES];
    use(load_some(x + i, n - i), part);
    memcpy(out + i, part, (n - i) * sizeof(T));
}

// One run of numbers with one scale. Where the scale is a power of two the element grows by it, and numbers stay; for
// any other scale a float still is a leaner one in the common case.
template <class Q, class T>
static INLINE void quantize(const Q& q, const float* x, T* out, int64_t n, float scale, float zero, bool rescale) {
    const F s = all(scale), z = all(zero), one = all(1.0f), factor = rescale ? s : one;
    if constexpr (Q::GROWS) {
        if ((rescale || std::is_integral_v<T>) && q.powers.hold(scale))
            return q.grown(s, [&](const auto& g) INLINE_LAMBDA {
                vectors(x, out, n, [&](F v, T* to) INLINE_LAMBDA { put(g, to, v, z, one); });
            });
    }
    if constexpr (Q::LEANS) {
        if (q.powers.hold(1.0f))
            return q.grown(one, [&](const auto& g) INLINE_LAMBDA {
                vectors(x, out, n, [&](F v, T* to) INLINE_LAMBDA { put(g, to, v / s, z, factor); });
            });
    }
    vectors(x, out, n, [&](F v, T* to) INLINE_LAMBDA { put(q, to, v / s, z, factor); });
}

// `count` runs of n numbers each. Not inlined, so that all that a loop needs finds a register. Numbers `ahead` are on
// their way to the cache meanwhile.
template <class Q, class T>
static __attribute__((noinline)) void quantize_runs(const Q& given, const float* x, T* out, int64_t n, int64_t count,
                                                    const float* scale, const float* zero, const Scales& s,
                                                    int64_t ahead) {
    constexpr int64_t LINE = 16;
    const Q q = given;
    const float outer = s.outer;
    const bool rescale = s.rescale;
    for (int64_t k = 0; k < count; ++k, x += n, out += n) {
        if (ahead)
            for (int64_t j = 0; j < n; j += LINE) __builtin_prefetch(x + ahead + j);
        quantize(q, x, out, n, scale[k] * outer, zero ? zero[k] : 0.0f, rescale);
    }
}

// Numbers that each have a scale of their own.
template <class Q, class T>
static INLINE void quantize_each(const Q& given, const float* x, T* out, int64_t n, const float* scale, const float* zero,
                                 float outer, bool rescale) {
    const Q q = given;
    const auto use = [&](F v, T* to, F s, F z) INLINE_LAMBDA {
        put(q, to, v / s, z, rescale ? s : all(1.0f));
    };
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        use(load<F>(x + i), out + i, load<F>(scale + i) * outer, zero ? load<F>(zero + i) : F{});
    if (i == n) return;
    alignas(64) T part[LANES];
    use(load_some(x + i, n - i), part, load_some(scale + i, n - i) * outer, zero ? load_some(zero + i, n - i) : F{});
    memcpy(out + i, part, (n - i) * sizeof(T));
}

// The largest magnitude of a run, by the patterns of its floats: those of NaN are the largest of all, so NaN stays.
static INLINE float magnitude(const float* x, int64_t n) {
    I most[4] = {};
    const I sign = all(INT32_MAX);
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int k = 0; k < 4; ++k) most[k] = highest(most[k], load<I>(x + i + k * LANES) & sign);
    for (; i + LANES <= n; i += LANES) most[0] = highest(most[0], load<I>(x + i) & sign);
    if (i < n) most[1] = highest(most[1], bits(load_some(x + i, n - i)) & sign);
    return real(all(across(highest(highest(most[0], most[1]), highest(most[2], most[3])))))[0];
}

// The largest magnitudes of `count` runs, each of whole vectors.
static INLINE void magnitudes(const float* x, int64_t run, int64_t count, float* high) {
    const I sign = all(INT32_MAX);
    int64_t k = 0;
    for (; k + LANES <= count; k += LANES) {
        I most[LANES];
        for (int j = 0; j < LANES; ++j) {
            const float* from = x + (k + j) * run;
            most[j] = load<I>(from) & sign;
            for (int64_t i = LANES; i < run; i += LANES) most[j] = highest(most[j], load<I>(from + i) & sign);
        }
        store(high + k, real(across_each(most)));
    }
    for (; k < count; ++k) high[k] = magnitude(x + k * run, run);
}

// Both ends of a run; NaN in it makes both NaN.
static INLINE void ends(const float* x, int64_t n, float* low, float* high) {
    F least = all(INFINITY), most = all(-INFINITY);
    I nan{};
    const auto take = [&](F v) {
        least = lowest(v, least);
        most = highest(v, most);
        nan |= ~ordered(v);
    };
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) take(load<F>(x + i));
    for (; i < n; ++i) take(all(x[i]));
    *low = least[0], *high = most[0];
    for (int k = 1; k < LANES; ++k) *low = std::min(*low, least[k]), *high = std::max(*high, most[k]);
    for (int k = 0; k < LANES; ++k)
        if (nan[k]) *low = *high = NAN;
}

// What scaling.py does with the ends of n runs: their scales, as numbers of the scale's own format, and zero points.
// Where the range is symmetric, `high` is the magnitude. All arrays have room for a whole vector more.
template <class Q>
static void levels(const Q& q, const Rule& r, int64_t n, const float* low, const float* high, float* level, float* zero) {
    const F none = F{}, limit = all(FLT_MAX);
    for (int64_t i = 0; i < n; i += LANES) {
        const F top = highest(none, clamp(load<F>(high + i), -limit, limit));
        const F bottom = r.affine ? lowest(none, clamp(load<F>(low + i), -limit, limit)) : none;
        F raw = (top - bottom) / r.divisor;
        if (!r.affine) raw = highest(lowest(all(0x1p-149f), top), raw);  // an underflow is not a block of zeros
        if (r.zero_is_one) raw = select(raw == 0.0f, all(1.0f), raw);
        F scale = clamp(q.grid(raw / r.outer, none), all(r.smallest), all(r.largest));
        scale = select(ordered(scale), scale, all(NAN));  // of one sign, as codes show it
        store(level + i, scale);
        if (!r.affine) continue;
        const F z = nearest(r.lowest - bottom / (scale * r.outer));
        store(zero + i, clamp(keep(ordered(z), z), all(r.zero_low), all(r.zero_high)) + none);  // no -0.0
    }
}

// The numbers [begin, end) of a tensor.
template <class T>
static void cast_piece(const Element& e, const Blocks& b, const Scales& s, const float* x, T* out, int64_t begin,
                       int64_t end, int64_t ahead) {
    with(e, [&](const auto& q) {
        const auto runs = [&](int64_t i, int64_t n, int64_t count, int64_t k) {
            quantize_runs(q, x + i, out + i, n, count, s.scale + k, s.zero ? s.zero + k : nullptr, s, ahead);
        };
        const auto each = [&](int64_t i, int64_t n, int64_t k) {
            quantize_each(q, x + i, out + i, n, s.scale + k, s.zero ? s.zero + k : nullptr, s.outer, s.rescale);
        };
        walk(b, begin, end, runs, each);
    });
}

static void cast_some(const Element& e, const Blocks& b, const Scales& s, const float* x, void* out, int32_t type,
                      int32_t width, int64_t begin, int64_t end, int64_t ahead) {
    switch (type) {
        case REAL: return cast_piece(e, b, s, x, (float*)out, begin, end, ahead);
        case STREAM: cast_piece(e, b, s, x, (Streamed*)out, begin, end, ahead); return streamed();
        case BYTE: return cast_piece(e, b, s, x, (uint8_t*)out, begin, end, ahead);
        case WORD: return cast_piece(e, b, s, x, (int32_t*)out, begin, end, ahead);
    }
    uint8_t codes[PIECE];  // begins at a whole byte, since begin is a multiple of 8
    cast_piece(e, b, s, x, codes - begin, begin, end, ahead);
    pack_some(codes, 1, end - begin, width, (uint8_t*)out + begin / 8 * width);
}

// Whether all vectors of an output begin at multiples of their size, and it is too large for the caches to keep.
static bool streams(const Blocks& b, const void* out, int32_t type) {
    constexpr int64_t KEPT = 8 << 20;  // bytes
    const bool rows = b.rows == 1 || b.length % LANES == 0, runs = b.count == 1 || b.run == 1 || b.run % LANES == 0;
    const bool large = type == REAL && b.numbers() * (int64_t)sizeof(float) >= KEPT;
    return STREAMS && large && rows && runs && (uintptr_t)out % sizeof(F) == 0;
}

template <class C, class Value>
static void decode_with(const Blocks& b, const Scales& s, const C* codes, float* out, int threads, const Value& value) {
    const auto runs = [&](int64_t i, int64_t n, int64_t count, int64_t k) {
        for (const int64_t last = k + count; k < last; ++k, i += n) {
            const float scale = s.scale[k] * s.outer, zero = s.zero ? s.zero[k] : 0.0f;
            for (int64_t j = i; j < i + n; ++j) out[j] = (value(codes[j]) - zero) * scale;
        }
    };
    const auto each = [&](int64_t i, int64_t n, int64_t k) {
        for (int64_t j = 0; j < n; ++j)
            out[i + j] = (value(codes[i + j]) - (s.zero ? s.zero[k + j] : 0.0f)) * (s.scale[k + j] * s.outer);
    };
    parallel(b.numbers(), PIECE, team(b.numbers(), threads), false,
             [&](int64_t begin, int64_t end) { walk(b, begin, end, runs, each); });
}

extern "C" {

// `width` is that of packed codes, at most 8 bits.
void planish_cast(const Element* e, const Blocks* b, const Scales* s, const float* x, void* out, int32_t type,
                  int32_t width, int32_t threads, int32_t back) {
    if (streams(*b, out, type)) type = STREAM;
    parallel(b->numbers(), PIECE, team(b->numbers(), threads), back,
             [=](int64_t begin, int64_t end) { cast_some(*e, *b, *s, x, out, type, width, begin, end, 0); });
}

// Runs in batches that stay in the first-level cache: their ends, then their scales, then their numbers. A batch is not
// longer than `MOST` runs; `level` and `zero` take what was measured, where they are given.
void planish_measure_and_cast(const Element* e, const Element* scale, const Rule* rule, const Blocks* b, const float* x,
                              void* out, int32_t type, int32_t width, float* level_out, float* zero_out,
                              int32_t rescale, int32_t threads, int32_t back) {
    constexpr int64_t MOST = 256;
    if (streams(*b, out, type)) type = STREAM;
    int64_t batch = std::max<int64_t>(1, std::min(MOST, 4096 / b->run));
    if (type == PACKED) batch = (batch + 7) / 8 * 8;  // at most PIECE numbers: runs are of 2048 or fewer, see cpu.py
    const auto start = [b](int64_t run) {
        return run / b->count * b->length + std::min(b->length, run % b->count * b->run);
    };
    const bool even = !rule->both_ends && b->run % LANES == 0 && b->length == b->run * b->count;
    parallel(b->rows * b->count, batch, team(b->numbers(), threads), back, [=](int64_t first, int64_t stop) {
        float low[MOST + LANES], high[MOST + LANES], level[MOST + LANES], zero[MOST + LANES];
        store(low + (stop - first), F{}), store(high + (stop - first), F{});
        int64_t begin = start(first), end = begin, place = first % b->count;
        if (even) {
            magnitudes(x + begin, b->run, stop - first, high);
            end += (stop - first) * b->run;
        }
        for (int64_t k = even ? stop - first : 0; k < stop - first; ++k) {
            const bool is_last = ++place == b->count;
            const int64_t n = is_last ? b->length - (b->count - 1) * b->run : b->run;
            if (rule->both_ends) ends(x + end, n, low + k, high + k);
            else high[k] = magnitude(x + end, n);
            end += n;
            if (is_last) place = 0;
        }
        with(*scale, [&](const auto& q) { levels(q, *rule, stop - first, low, high, level, zero); });
        const Scales here{level - first, rule->affine ? zero - first : nullptr, rule->outer, rescale};
        cast_some(*e, *b, here, x, out, type, width, begin, end, back ? begin - end : end - begin);
        if (level_out) memcpy(level_out + first, level, (stop - first) * sizeof(float));
        if (zero_out) memcpy(zero_out + first, zero, (stop - first) * sizeof(float));
    });
}

// The ends of each run, or their magnitudes in `high`. Runs longer than a piece are shared among threads themselves.
void planish_ranges(const Blocks* b, const float* x, float* low, float* high, int32_t both_ends, int32_t threads) {
    const int64_t pieces = (b->run + PIECE - 1) / PIECE;
    std::vector<float> parts(2 * b->rows * b->count * pieces);
    float *lows = parts.data(), *highs = lows + parts.size() / 2;
    parallel(b->rows * b->count * pieces, std::max<int64_t>(1, PIECE / b->run), team(b->numbers(), threads), false,
             [&](int64_t begin, int64_t end) {
                 for (int64_t at = begin; at < end; ++at) {
                     const int64_t run = at / pieces, first = at % pieces * PIECE, column = run % b->count * b->run;
                     const int64_t size = std::min({b->run - first, PIECE, b->length - column - first});
                     const float* from = x + run / b->count * b->length + column + first;
                     lows[at] = highs[at] = both_ends ? from[0] : 0.0f;  // stays where a last run has fewer pieces
                     if (size <= 0) continue;
                     if (both_ends) ends(from, size, lows + at, highs + at);
                     else highs[at] = magnitude(from, size);
                 }
             });
    for (int64_t run = 0; run < b->rows * b->count; ++run) {
        if (both_ends) {
            // a last run that is shorter counts as if padded with zeros
            const bool padded = run % b->count == b->count - 1 && b->length % b->run;
            if (padded) lows[run * pieces] = std::min(lows[run * pieces], 0.0f);
            if (padded) highs[run * pieces] = std::max(highs[run * pieces], 0.0f);
            ends(lows + run * pieces, pieces, low + run, high + run);
            float ignored;
            ends(highs + run * pieces, pieces, &ignored, high + run);
        } else {
            high[run] = magnitude(highs + run * pieces, pieces);
        }
    }
}

// `table` lists the number of each code; without it codes are integers, signed as `is_signed` says, in units of `unit`.
void planish_decode(const Blocks* b, const Scales* s, const void* codes, int32_t type, int32_t is_signed, float unit,
                    const float* table, float* out, int32_t threads) {
    const auto listed = [&](auto* typed) {
        decode_with(*b, *s, typed, out, threads, [table](auto code) { return table[code]; });
    };
    const auto counted = [&](auto* typed) {
        decode_with(*b, *s, typed, out, threads, [unit](auto code) { return (float)code * unit; });
    };
    if (table) return type == BYTE ? listed((const uint8_t*)codes) : listed((const int32_t*)codes);
    if (type == BYTE) return is_signed ? counted((const int8_t*)codes) : counted((const uint8_t*)codes);
    counted((const int32_t*)codes);
}
}
