// A vector of floats and one of integers, as wide as the host's registers: 16 lanes with AVX-512, 8 with AVX2, otherwise
// 4, in terms that every GCC and Clang target understands. Operators are the compiler's; functions here are the rest.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

// So that what a loop does not change stays in registers: stores through a pointer could change what is not inlined.
#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float F __attribute__((vector_size(4 * LANES)));
typedef int32_t I __attribute__((vector_size(4 * LANES)));

static INLINE F all(float x) { return x - F{}; }  // x - 0 keeps the sign of zero
static INLINE I all(int32_t x) { return x - I{}; }
static INLINE I bits(F x) { return (I)x; }
static INLINE F real(I x) { return (F)x; }

template <class V, class T> static INLINE V load(const T* p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}
template <class V, class T> static INLINE void store(T* p, V v) { memcpy(p, &v, sizeof v); }

// Past the caches, to an address that is a multiple of the vector's size; `streamed` then orders it before what follows.
#if defined(__AVX512F__)
constexpr bool STREAMS = true;
static INLINE void stream(float* p, F v) { _mm512_stream_ps(p, v); }
#elif defined(__AVX2__)
constexpr bool STREAMS = true;
static INLINE void stream(float* p, F v) { _mm256_stream_ps(p, v); }
#else
constexpr bool STREAMS = false;
static INLINE void stream(float* p, F v) { store(p, v); }
#endif
static INLINE void streamed() {
#if defined(__AVX2__)
    _mm_sfence();
#endif
}

static INLINE F select(I mask, F a, F b) { return mask ? a : b; }
static INLINE F keep(I mask, F x) { return real(bits(x) & mask); }  // x where mask, else 0
static INLINE F absolute(F x) { return real(bits(x) & 0x7FFFFFFF); }
static INLINE F copysign(F x, F sign) { return real(bits(absolute(x)) | (bits(sign) & INT32_MIN)); }
static INLINE I ordered(F x) { return x == x; }

// Both give the second argument where either is NaN: clamp(x) = lowest(high, highest(low, x)) keeps NaN.
#if defined(__AVX512F__)
static INLINE F highest(F a, F b) { return _mm512_max_ps(a, b); }
static INLINE F lowest(F a, F b) { return _mm512_min_ps(a, b); }
static INLINE I highest(I a, I b) { return (I)_mm512_max_epi32((__m512i)a, (__m512i)b); }
static INLINE I lowest(I a, I b) { return (I)_mm512_min_epi32((__m512i)a, (__m512i)b); }
#elif defined(__AVX2__)
static INLINE F highest(F a, F b) { return _mm256_max_ps(a, b); }
static INLINE F lowest(F a, F b) { return _mm256_min_ps(a, b); }
static INLINE I highest(I a, I b) { return (I)_mm256_max_epi32((__m256i)a, (__m256i)b); }
static INLINE I lowest(I a, I b) { return (I)_mm256_min_epi32((__m256i)a, (__m256i)b); }
#else
static INLINE F highest(F a, F b) { return a > b ? a : b; }
static INLINE F lowest(F a, F b) { return a < b ? a : b; }
static INLINE I highest(I a, I b) { return a > b ? a : b; }
static INLINE I lowest(I a, I b) { return a < b ? a : b; }
#endif
static INLINE F clamp(F x, F low, F high) { return lowest(high, highest(low, x)); }

// To whole numbers; NaN, infinities and the sign of zero stay.
#if defined(__AVX512F__)
static INLINE F nearest(F x) { return _mm512_roundscale_ps(x, 8); }
static INLINE F floor(F x) { return _mm512_roundscale_ps(x, 9); }
static INLINE F ceil(F x) { return _mm512_roundscale_ps(x, 10); }
static INLINE F trunc(F x) { return _mm512_roundscale_ps(x, 11); }
#elif defined(__AVX2__)
static INLINE F nearest(F x) { return _mm256_round_ps(x, 8); }
static INLINE F floor(F x) { return _mm256_round_ps(x, 9); }
static INLINE F ceil(F x) { return _mm256_round_ps(x, 10); }
static INLINE F trunc(F x) { return _mm256_round_ps(x, 11); }
#else
static INLINE F nearest(F x) {  // from 2^23 on every float is whole; below, adding 2^23 rounds
    const F limit = all(0x1p23f), size = absolute(x);
    return select(size < limit, copysign((size + limit) - limit, x), x);
}
static INLINE F floor(F x) {
    const F r = nearest(x);
    return copysign(r - keep(r > x, all(1.0f)), x);
}
static INLINE F ceil(F x) {
    const F r = nearest(x);
    return copysign(r + keep(r < x, all(1.0f)), x);
}
static INLINE F trunc(F x) { return copysign(floor(absolute(x)), x); }
#endif

static INLINE I whole(F x) { return __builtin_convertvector(x, I); }  // of whole numbers within int32

// The low byte of each lane.
static INLINE void store_bytes(uint8_t* p, I v) {
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8((__m512i)v));
#elif defined(__AVX2__)
    const __m256i first = _mm256_set1_epi32(0x0C080400), low = _mm256_shuffle_epi8((__m256i)v, first);
    const __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    _mm_storel_epi64((__m128i*)p, both);
#else
    for (int i = 0; i < LANES; ++i) p[i] = (uint8_t)v[i];
#endif
}

// table[index], of 8 entries, and of 4 that are there four times; the table is read from memory.
#if defined(__AVX512F__)
static INLINE F lookup8(const float* table, I index) {
    return _mm512_permutexvar_ps((__m512i)index, _mm512_loadu_ps(table));
}
static INLINE F lookup4(const float* table, I index) {
    return _mm512_permutevar_ps(_mm512_loadu_ps(table), (__m512i)index);
}
#elif defined(__AVX2__)
static INLINE F lookup8(const float* table, I index) {
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)index);
}
static INLINE F lookup4(const float* table, I index) {
    return _mm256_permutevar_ps(_mm256_loadu_ps(table), (__m256i)index);
}
#else
static INLINE F lookup8(const float* table, I index) {
    F v;
    for (int i = 0; i < LANES; ++i) v[i] = table[index[i]];
    return v;
}
static INLINE F lookup4(const float* table, I index) { return lookup8(table, index); }
#endif

// The highest of all lanes.
static INLINE int32_t across(I v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_epi32((__m512i)v);
#elif defined(__AVX2__)
    __m128i half = _mm_max_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4E));
    return _mm_cvtsi128_si32(_mm_max_epi32(half, _mm_shuffle_epi32(half, 0xB1)));
#else
    int32_t result = v[0];
    for (int i = 1; i < LANES; ++i) result = v[i] > result ? v[i] : result;
    return result;
#endif
}

// The highest of all lanes of each vector, side by side.
static INLINE I across_each(const I (&v)[LANES]) {
#if defined(__AVX512F__)
    const auto fours = [&v](int k) INLINE_LAMBDA {  // the highest of each quarter of v[k] to v[k + 3], side by side
        const auto pairs = [&v](int j) INLINE_LAMBDA {
            const __m512i x = (__m512i)v[j], y = (__m512i)v[j + 1];
            return _mm512_max_epi32(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y));
        };
        const __m512i x = pairs(k), y = pairs(k + 2);
        return _mm512_max_epi32(_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y));
    };
    const auto halves = [](__m512i x, __m512i y) INLINE_LAMBDA {
        return _mm512_max_epi32(_mm512_shuffle_i32x4(x, y, 0x88), _mm512_shuffle_i32x4(x, y, 0xDD));
    };
    return (I)halves(halves(fours(0), fours(4)), halves(fours(8), fours(12)));
#elif defined(__AVX2__)
    const auto pairs = [](I a, I b) INLINE_LAMBDA {
        const __m256i x = (__m256i)a, y = (__m256i)b;
        return _mm256_max_epi32(_mm256_unpacklo_epi32(x, y), _mm256_unpackhi_epi32(x, y));
    };
    const auto fours = [](__m256i x, __m256i y) INLINE_LAMBDA {
        return _mm256_max_epi32(_mm256_unpacklo_epi64(x, y), _mm256_unpackhi_epi64(x, y));
    };
    const __m256i low = fours(pairs(v[0], v[1]), pairs(v[2], v[3])), high = fours(pairs(v[4], v[5]), pairs(v[6], v[7]));
    return (I)_mm256_max_epi32(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31));
#else
    I result;
    for (int i = 0; i < LANES; ++i) result[i] = across(v[i]);
    return result;
#endif
}
