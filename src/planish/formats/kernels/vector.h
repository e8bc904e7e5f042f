// A vector of floats and one of integers, as wide as the host's registers: 16 lanes with AVX-512, 8 with AVX2, otherwise
// 4, in terms that every GCC and Clang target understands. Operators are the compiler's; functions here are the rest.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float F __attribute__((vector_size(4 * LANES)));
typedef int32_t I __attribute__((vector_size(4 * LANES)));

static inline F all(float x) { return x - F{}; }  // x - 0 keeps the sign of zero
static inline I all(int32_t x) { return x - I{}; }
static inline I bits(F x) { return (I)x; }
static inline F real(I x) { return (F)x; }

template <class V, class T> static inline V load(const T* p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}
template <class V, class T> static inline void store(T* p, V v) { memcpy(p, &v, sizeof v); }

static inline F select(I mask, F a, F b) { return mask ? a : b; }
static inline F keep(I mask, F x) { return real(bits(x) & mask); }  // x where mask, else 0
static inline F absolute(F x) { return real(bits(x) & 0x7FFFFFFF); }
static inline F copysign(F x, F sign) { return real(bits(absolute(x)) | (bits(sign) & INT32_MIN)); }
static inline I ordered(F x) { return x == x; }

// Both give the second argument where either is NaN: clamp(x) = lowest(high, highest(low, x)) keeps NaN.
#if defined(__AVX512F__)
static inline F highest(F a, F b) { return _mm512_max_ps(a, b); }
static inline F lowest(F a, F b) { return _mm512_min_ps(a, b); }
static inline I highest(I a, I b) { return (I)_mm512_max_epi32((__m512i)a, (__m512i)b); }
static inline I lowest(I a, I b) { return (I)_mm512_min_epi32((__m512i)a, (__m512i)b); }
#elif defined(__AVX2__)
static inline F highest(F a, F b) { return _mm256_max_ps(a, b); }
static inline F lowest(F a, F b) { return _mm256_min_ps(a, b); }
static inline I highest(I a, I b) { return (I)_mm256_max_epi32((__m256i)a, (__m256i)b); }
static inline I lowest(I a, I b) { return (I)_mm256_min_epi32((__m256i)a, (__m256i)b); }
#else
static inline F highest(F a, F b) { return a > b ? a : b; }
static inline F lowest(F a, F b) { return a < b ? a : b; }
static inline I highest(I a, I b) { return a > b ? a : b; }
static inline I lowest(I a, I b) { return a < b ? a : b; }
#endif
static inline F clamp(F x, F low, F high) { return lowest(high, highest(low, x)); }

// To whole numbers; NaN, infinities and the sign of zero stay.
#if defined(__AVX512F__)
static inline F nearest(F x) { return _mm512_roundscale_ps(x, 8); }
static inline F floor(F x) { return _mm512_roundscale_ps(x, 9); }
static inline F ceil(F x) { return _mm512_roundscale_ps(x, 10); }
static inline F trunc(F x) { return _mm512_roundscale_ps(x, 11); }
#elif defined(__AVX2__)
static inline F nearest(F x) { return _mm256_round_ps(x, 8); }
static inline F floor(F x) { return _mm256_round_ps(x, 9); }
static inline F ceil(F x) { return _mm256_round_ps(x, 10); }
static inline F trunc(F x) { return _mm256_round_ps(x, 11); }
#else
static inline F nearest(F x) {  // from 2^23 on every float is whole; below, adding 2^23 rounds
    const F limit = all(0x1p23f), size = absolute(x);
    return select(size < limit, copysign((size + limit) - limit, x), x);
}
static inline F floor(F x) {
    const F r = nearest(x);
    return copysign(r - keep(r > x, all(1.0f)), x);
}
static inline F ceil(F x) {
    const F r = nearest(x);
    return copysign(r + keep(r < x, all(1.0f)), x);
}
static inline F trunc(F x) { return copysign(floor(absolute(x)), x); }
#endif

static inline I whole(F x) { return __builtin_convertvector(x, I); }  // of whole numbers within int32

// table[index], of 8 and of 16 entries; the table is read from memory.
#if defined(__AVX512F__)
static inline F lookup16(const float* table, I index) {
    return _mm512_permutexvar_ps((__m512i)index, _mm512_loadu_ps(table));
}
static inline F lookup8(const float* table, I index) { return lookup16(table, index); }
#elif defined(__AVX2__)
static inline F lookup8(const float* table, I index) {
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)index);
}
static inline F lookup16(const float* table, I index) {
    return select(index > 7, lookup8(table + 8, index), lookup8(table, index));
}
#else
static inline F lookup16(const float* table, I index) {
    F v;
    for (int i = 0; i < LANES; ++i) v[i] = table[index[i]];
    return v;
}
static inline F lookup8(const float* table, I index) { return lookup16(table, index); }
#endif

// The highest of all lanes.
static inline int32_t across(I v) {
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
