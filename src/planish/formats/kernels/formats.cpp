// Number formats at the speed of memory: cast, encode and decode a float32 tensor in one pass over it.
// Called through ctypes (compiled.py). Results equal the torch definition bit for bit, with any number of threads.
#include "blocks.h"
#include "elements.h"
#include "packing.h"

#include <cfloat>
#include <memory>
#include <type_traits>

struct Rule {  // how a scale follows from its run: scaling.py; mirrored in describe.py
    float divisor, smallest, largest;
    int32_t both_ends, affine, zero_is_one, least_error;
    float lowest, zero_low, zero_high;
};

enum Type : int32_t { REAL, BYTE, WORD, PACKED, STREAM };  // of output or codes: float, 1 or 4 bytes, or packed bits

struct Streamed {  // an output's float that is not to stay in the caches
    float value;
};

constexpr int64_t PIECE = 1 << 14;  // numbers: a run that long is still in the cache when it is read again
constexpr int64_t NEAR = 2048;      // numbers: so far ahead memory is asked for them, beyond what the processor does itself

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

// Calls use(n), with an n that the compiler knows where it is usual: what is kept of a run then stays in registers.
template <class Use> static INLINE void with_length(int64_t n, const Use& use) {
    switch (n) {
        case 16: return use(std::integral_constant<int64_t, 16>{});
        case 32: return use(std::integral_constant<int64_t, 32>{});
        case 64: return use(std::integral_constant<int64_t, 64>{});
        default: return use(n);
    }
}

struct Runs {  // `count` runs of n numbers each; the scale of run k is scale[k] * outer
    int64_t n, count;
    const float *scale, *zero;
    float outer;
    bool rescale;
    int64_t ahead;  // so far ahead numbers are on their way to the cache meanwhile, unless a run is longer

    INLINE float zero_of(int64_t k) const { return zero ? zero[k] : 0.0f; }
    Runs part(int64_t first, int64_t most) const {
        return {n, std::min(most, count - first), scale + first, zero ? zero + first : nullptr, outer, rescale, ahead};
    }
    template <class Test> INLINE bool every(const Test& test) const {  // scale
        I good = all(-1);
        int64_t k = 0;
        for (; k + LANES <= count; k += LANES) good &= test(load<F>(scale + k) * outer);
        for (; k < count; ++k) good &= test(all(scale[k] * outer));
        return across(good) == -1;
    }
    // Calls use(k, n, x, out) for each run.
    template <class T, class Use> INLINE void each(const float* x, T* out, const Use& use) const {
        with_length(n, [&](auto length) INLINE_LAMBDA {
            constexpr int64_t LINE = 16;
            for (int64_t k = 0; k < count; ++k, x += length, out += length) {
                if (length <= ahead)
                    for (int64_t j = 0; j < length; j += LINE) __builtin_prefetch(x + ahead + j);
                use(k, length, x, out);
            }
        });
    }
};

// Two ways to the same bits, not inlined, so that all that a loop needs finds a register.

// Where scales are powers of two the element grows by them, and numbers stay.
template <class Q, class T> static __attribute__((noinline)) void grow(const Q& given, Runs r, const float* x, T* out) {
    const Q q = given;
    r.each(x, out, [&](int64_t k, auto n, const float* from, T* to) INLINE_LAMBDA {
        const F z = all(r.zero_of(k));
        q.grown(all(r.scale[k] * r.outer), [&](const auto& g) INLINE_LAMBDA {
            vectors(from, to, n, [&](F v, T* at) INLINE_LAMBDA { put(g, at, v, z, all(1.0f)); });
        });
    });
}

// For any other scale; a float still is a leaner one in the common case.
template <class Q, class T> static __attribute__((noinline)) void divide(const Q& given, Runs r, const float* x, T* out) {
    const auto by = [&](const auto& q) INLINE_LAMBDA {
        r.each(x, out, [&](int64_t k, auto n, const float* from, T* to) INLINE_LAMBDA {
            const F s = all(r.scale[k] * r.outer), z = all(r.zero_of(k)), factor = r.rescale ? s : all(1.0f);
            vectors(from, to, n, [&](F v, T* at) INLINE_LAMBDA { put(q, at, v / s, z, factor); });
        });
    };
    const Q q = given;
    if constexpr (Q::LEANS) {
        if (q.powers.hold(all(1.0f))[0]) return q.grown(all(1.0f), by);
    }
    by(q);
}

template <class Q, class T> static void quantize_runs(const Q& q, const Runs& runs, const float* x, T* out) {
    constexpr int64_t CHUNK = 128;  // runs whose scales are looked at together
    for (int64_t k = 0; k < runs.count; k += CHUNK, x += CHUNK * runs.n, out += CHUNK * runs.n) {
        const Runs r = runs.part(k, CHUNK);
        if constexpr (Q::GROWS) {
            if ((r.rescale || std::is_integral_v<T>) && r.every([&](F s) INLINE_LAMBDA { return q.powers.hold(s); })) {
                grow(q, r, x, out);
                continue;
            }
        }
        divide(q, r, x, out);
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

// The largest magnitudes of `count` runs, each of whole vectors; meanwhile numbers so far `ahead` come to the cache.
template <class Length>
static INLINE void magnitudes(const float* x, Length run, int64_t count, int64_t ahead, float* high) {
    const I sign = all(INT32_MAX);
    int64_t k = 0;
    for (; k + LANES <= count; k += LANES) {
        I most[LANES] = {};
        for (int j = 0; j < LANES; ++j) {
            const float* from = x + (k + j) * run;
            for (int64_t i = 0; i < run; i += LANES) {
                if (ahead) __builtin_prefetch(from + i + ahead);
                most[j] = highest(most[j], load<I>(from + i) & sign);
            }
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

// The ends of the runs [first, stop) of a tensor, or their magnitudes in `high`.
static void measure(const Blocks& b, const float* x, int64_t first, int64_t stop, bool both_ends, int64_t ahead, float* low,
                    float* high) {
    x += b.start(first);
    if (!both_ends && b.run % LANES == 0 && b.length == b.run * b.count) {
        return with_length(b.run, [&](auto run) { magnitudes(x, run, stop - first, ahead, high); });
    }
    for (int64_t run = first; run < stop; ++run, ++low, ++high) {
        const int64_t n = run % b.count == b.count - 1 ? b.length - (b.count - 1) * b.run : b.run;
        if (both_ends) ends(x, n, low, high);
        else *high = magnitude(x, n);
        x += n;
    }
}

// A scale before it is rounded to the scale's own format.
static INLINE F raw_scale(const Rule& r, F top, F bottom) {
    const F raw = (top - bottom) / r.divisor;
    return r.affine ? raw : highest(lowest(all(0x1p-149f), top), raw);  // an underflow is not a block of zeros
}

// What scaling.py does with the ends of n runs: their scales, as numbers of the scale's own format whose scale is `outer`,
// and zero points. Where the range is symmetric, `high` is the magnitude. Ranges count `share` times. All arrays have room
// for a whole vector more.
template <class Q>
static void levels(const Q& q, const Rule& r, float outer, float share, int64_t n, const float* low, const float* high,
                   float* level, float* zero) {
    const F none = F{}, limit = all(FLT_MAX);
    for (int64_t i = 0; i < n; i += LANES) {
        const F top = highest(none, clamp(load<F>(high + i), -limit, limit)) * share;
        const F bottom = r.affine ? lowest(none, clamp(load<F>(low + i), -limit, limit)) * share : none;
        F raw = raw_scale(r, top, bottom);
        if (r.zero_is_one) raw = select(raw == 0.0f, all(1.0f), raw);
        F scale = clamp(q.grid(raw / outer, none), all(r.smallest), all(r.largest));
        scale = select(ordered(scale), scale, all(NAN));  // of one sign, as codes show it
        store(level + i, scale);
        if (!r.affine) continue;
        const F z = nearest(r.lowest - bottom / (scale * outer));
        store(zero + i, clamp(keep(ordered(z), z), all(r.zero_low), all(r.zero_high)) + none);  // no -0.0
    }
}

// The scale of the scales of runs that reach up to `top`.
static float outer_scale(const Rule& rule, const Element& e, const Rule& above, float top) {
    const F limit = all(FLT_MAX), most = highest(F{}, clamp(all(top), -limit, limit));
    float high[LANES], level[LANES];
    store(high, raw_scale(rule, most, F{}));
    with(e, [&](const auto& q) { levels(q, above, 1.0f, 1.0f, 1, high, high, level, nullptr); });
    return level[0];
}

// The numbers [begin, end) of a tensor.
template <class T>
static void cast_piece(const Element& e, const Blocks& b, const Scales& s, const float* x, T* out, int64_t begin,
                       int64_t end, int64_t ahead) {
    with(e, [&](const auto& q) {
        const auto runs = [&](int64_t i, int64_t n, int64_t count, int64_t k) {
            const Runs all_runs{n, count, s.scale + k, s.zero ? s.zero + k : nullptr, s.outer, (bool)s.rescale, ahead};
            quantize_runs(q, all_runs, x + i, out + i);
        };
        const auto each = [&](int64_t i, int64_t n, int64_t k) {
            quantize_each(q, x + i, out + i, n, s.scale + k, s.zero ? s.zero + k : nullptr, s.outer, s.rescale);
        };
        walk(b, begin, end, runs, each);
    });
}

// The squared error of n numbers, each square rounded to a float, their sum exact enough to tell any two apart.
static double squared_error(const float* x, const float* cast, int64_t n) {
    double part[LANES] = {}, total = 0.0;
    for (; n >= LANES; n -= LANES, x += LANES, cast += LANES)
        for (int k = 0; k < LANES; ++k) {
            const float off = cast[k] - x[k], square = off * off;
            part[k] += square;
        }
    for (int64_t i = 0; i < n; ++i) {
        const float off = cast[i] - x[i], square = off * off;
        part[i] += square;
    }
    for (const double some : part) total += some;
    return total;
}

// The levels of the runs [first, stop) that leave the least squared error, of all powers of two near their largest
// numbers; of equally good ones the largest.
template <int64_t MOST>
static void least_error(const Element& e, const Element& scale, const Rule& rule, const Blocks& b, const float* x,
                        int64_t first, int64_t stop, const float* low, const float* high, float* level) {
    float trial[MOST + LANES], cast[PIECE];
    double least[MOST];
    const int64_t begin = b.start(first), end = b.start(stop);
    const Scales here{trial - first, nullptr, 1.0f, true};
    for (const float share : {2.0f, 1.0f, 0.5f, 0.25f}) {  // POWERS of scaling.py
        with(scale, [&](const auto& q) { levels(q, rule, 1.0f, share, stop - first, low, high, trial, nullptr); });
        cast_piece(e, b, here, x, cast - begin, begin, end, 0);
        for (int64_t run = first, at = 0; run < stop; ++run) {
            const int64_t n = run % b.count == b.count - 1 ? b.length - (b.count - 1) * b.run : b.run;
            const double error = squared_error(x + begin + at, cast + at, n);
            if (share == 2.0f || error < least[run - first]) least[run - first] = error, level[run - first] = trial[run - first];
            at += n;
        }
    }
}

static void cast_some(const Element& e, const Blocks& b, const Scales& s, const float* x, void* out, int32_t type,
                      int32_t width, int64_t begin, int64_t end, int64_t ahead) {
    switch (type) {
        case REAL: return cast_piece(e, b, s, x, (float*)out, begin, end, ahead);
        case STREAM: return cast_piece(e, b, s, x, (Streamed*)out, begin, end, ahead);
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
             [=](int64_t begin, int64_t end) { cast_some(*e, *b, *s, x, out, type, width, begin, end, NEAR); });
}

// The ends of each run, or their magnitudes in `high`.
void planish_ranges(const Blocks* b, const float* x, float* low, float* high, int32_t both_ends, int32_t threads) {
    const int64_t runs = b->rows * b->count, pieces = (b->run + PIECE - 1) / PIECE;
    if (pieces == 1) {
        parallel(runs, PIECE / b->run, team(b->numbers(), threads), false, [=](int64_t first, int64_t stop) {
            measure(*b, x, first, stop, both_ends, NEAR, both_ends ? low + first : nullptr, high + first);
        });
    } else {  // a run is shared among threads itself
        std::vector<float> parts(2 * runs * pieces);
        float *lows = parts.data(), *highs = lows + parts.size() / 2;
        parallel(runs * pieces, 1, team(b->numbers(), threads), false, [=](int64_t at, int64_t) {
            const int64_t run = at / pieces, first = at % pieces * PIECE;
            const int64_t size = std::min(PIECE, b->start(run + 1) - b->start(run) - first);
            const float* from = x + b->start(run) + first;
            lows[at] = highs[at] = both_ends ? from[0] : 0.0f;  // stays where a last run has fewer pieces
            if (size <= 0) return;
            if (both_ends) ends(from, size, lows + at, highs + at);
            else highs[at] = magnitude(from, size);
        });
        for (int64_t run = 0; run < runs; ++run) {
            float ignored;
            if (!both_ends) high[run] = magnitude(highs + run * pieces, pieces);
            else ends(lows + run * pieces, pieces, low + run, &ignored), ends(highs + run * pieces, pieces, &ignored, high + run);
        }
    }
    if (!both_ends || b->length % b->run == 0) return;
    for (int64_t run = b->count - 1; run < runs; run += b->count)  // one that is shorter counts as if padded with zeros
        low[run] = std::min(low[run], 0.0f), high[run] = std::max(high[run], 0.0f);
}

// Runs in batches that stay in the first-level cache: their ends, then their scales, then their numbers. A batch is not
// longer than `MOST` runs; `level` and `zero` take what was measured, where they are given. Where scales have a scale of
// their own, `above` says how it follows from the largest run: all are then measured first, and `outer` takes it.
void planish_measure_and_cast(const Element* e, const Element* scale, const Rule* rule, const Element* scale_above,
                              const Rule* above, const Blocks* b, const float* x, void* out, int32_t type, int32_t width,
                              float* level_out, float* zero_out, float* outer_out, int32_t rescale, int32_t threads) {
    constexpr int64_t MOST = 256;
    const int64_t runs = b->rows * b->count;
    std::unique_ptr<float[]> known;
    if (above) {
        const std::unique_ptr<float[]> lows(rule->both_ends ? new float[runs] : nullptr);
        known.reset(new float[runs + LANES]);
        planish_ranges(b, x, lows.get(), known.get(), rule->both_ends, threads);
        store(known.get() + runs, F{});  // read, not used
        float least, most = magnitude(known.get(), runs);
        if (rule->both_ends) ends(known.get(), runs, &least, &most);
        *outer_out = outer_scale(*rule, *scale_above, *above, most);
    }
    const float outer = above ? *outer_out : 1.0f, *highs = known.get();
    if (streams(*b, out, type)) type = STREAM;
    int64_t batch = std::max<int64_t>(1, std::min(MOST, (highs ? 2048 : 4096) / b->run));
    if (type == PACKED) batch = (batch + 7) / 8 * 8;  // at most PIECE numbers: runs are of 2048 or fewer, see cpu.py
    parallel(runs, batch, team(b->numbers(), threads), false, [=](int64_t first, int64_t stop) {
        float low[MOST + LANES], high[MOST + LANES], level[MOST + LANES], zero[MOST + LANES];
        store(low + (stop - first), F{}), store(high + (stop - first), F{});
        if (!highs) measure(*b, x, first, stop, rule->both_ends, 0, low, high);
        const float* top = highs ? highs + first : high;
        if (rule->least_error) least_error<MOST>(*e, *scale, *rule, *b, x, first, stop, low, top, level);
        else with(*scale, [&](const auto& q) { levels(q, *rule, outer, 1.0f, stop - first, low, top, level, zero); });
        const Scales here{level - first, rule->affine ? zero - first : nullptr, outer, rescale};
        const int64_t begin = b->start(first), end = b->start(stop);
        cast_some(*e, *b, here, x, out, type, width, begin, end, highs ? NEAR : end - begin);
        if (level_out) memcpy(level_out + first, level, (stop - first) * sizeof(float));
        if (zero_out) memcpy(zero_out + first, zero, (stop - first) * sizeof(float));
    });
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
