// Codes of any width as bytes, one after the other, lowest bits first, and back.
#include "packing.h"

#include "blocks.h"

#include <cstring>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the bit stream starts in a word's lowest byte");

constexpr uint64_t BYTES = 0x0101010101010101u, PAIRS = 0x0001000100010001u, FOURS = 0x0000000100000001u;

// The low BITS of eight bytes, moved together: in pairs, then fours, then eights.
template <int BITS> static inline uint64_t together(uint64_t v) {
    constexpr uint64_t one = (1u << BITS) - 1, two = (1u << 2 * BITS) - 1, four = (1ull << 4 * BITS) - 1;
    v = (v & PAIRS * one) | (v >> (8 - BITS) & PAIRS * (one << BITS));
    v = (v & FOURS * two) | (v >> (16 - 2 * BITS) & FOURS * (two << 2 * BITS));
    return (v & four) | (v >> (32 - 4 * BITS) & four << 4 * BITS);
}

// The inverse; with `is_signed` the highest bit of each code fills its byte.
template <int BITS> static inline uint64_t apart(uint64_t v, bool is_signed) {
    constexpr uint64_t one = (1u << BITS) - 1, two = (1u << 2 * BITS) - 1, four = (1ull << 4 * BITS) - 1;
    v = (v & four) | (v << (32 - 4 * BITS) & four << 32);
    v = (v & FOURS * two) | (v << (16 - 2 * BITS) & FOURS * (two << 16));
    v = (v & PAIRS * one) | (v << (8 - BITS) & PAIRS * (one << 8));
    return is_signed ? v | (v & BYTES << (BITS - 1)) * ((1u << (9 - BITS)) - 2) : v;
}

template <int BITS> static void pack_bytes(const uint8_t* codes, int64_t n, uint8_t* out) {
    uint64_t v;
    for (; n >= 8; n -= 8, codes += 8, out += BITS) {
        memcpy(&v, codes, 8);
        v = together<BITS>(v);
        memcpy(out, &v, BITS);
    }
    v = 0;
    memcpy(&v, codes, n);
    v = together<BITS>(v);
    memcpy(out, &v, (n * BITS + 7) / 8);
}

template <int BITS> static void unpack_bytes(const uint8_t* data, int64_t n, bool is_signed, uint8_t* codes) {
    uint64_t v = 0;
    for (; n >= 8; n -= 8, codes += 8, data += BITS) {
        memcpy(&v, data, BITS);
        v = apart<BITS>(v, is_signed);
        memcpy(codes, &v, 8);
    }
    memcpy(&v, data, (n * BITS + 7) / 8);
    v = apart<BITS>(v, is_signed);
    memcpy(codes, &v, n);
}

template <class T> static void pack_any(const T* codes, int64_t n, int32_t bits, uint8_t* out) {
    uint64_t held = 0;
    int32_t filled = 0;
    for (int64_t i = 0; i < n; ++i) {
        held |= ((uint64_t)codes[i] & ((1ull << bits) - 1)) << filled;
        for (filled += bits; filled >= 8; filled -= 8, held >>= 8) *out++ = (uint8_t)held;
    }
    if (filled) *out = (uint8_t)held;
}

template <class T> static void unpack_any(const uint8_t* data, int64_t n, int32_t bits, bool is_signed, T* codes) {
    uint64_t held = 0;
    int32_t filled = 0;
    for (int64_t i = 0; i < n; ++i, held >>= bits, filled -= bits) {
        for (; filled < bits; filled += 8) held |= (uint64_t)*data++ << filled;
        const uint64_t code = held & ((1ull << bits) - 1);
        codes[i] = (T)(is_signed && code >> (bits - 1) ? code - (1ull << bits) : code);
    }
}

void pack_some(const void* codes, int32_t size, int64_t n, int32_t bits, uint8_t* out) {
    const auto* bytes = (const uint8_t*)codes;
    switch (size == 1 ? bits : 0) {
        case 1: return pack_bytes<1>(bytes, n, out);
        case 2: return pack_bytes<2>(bytes, n, out);
        case 3: return pack_bytes<3>(bytes, n, out);
        case 4: return pack_bytes<4>(bytes, n, out);
        case 5: return pack_bytes<5>(bytes, n, out);
        case 6: return pack_bytes<6>(bytes, n, out);
        case 7: return pack_bytes<7>(bytes, n, out);
    }
    if (size == 1) pack_any(bytes, n, bits, out);
    else if (size == 2) pack_any((const uint16_t*)codes, n, bits, out);
    else if (size == 4) pack_any((const uint32_t*)codes, n, bits, out);
    else pack_any((const uint64_t*)codes, n, bits, out);
}

static void unpack_some(const uint8_t* data, int64_t n, int32_t bits, bool is_signed, void* codes, int32_t size) {
    auto* bytes = (uint8_t*)codes;
    switch (size == 1 ? bits : 0) {
        case 1: return unpack_bytes<1>(data, n, is_signed, bytes);
        case 2: return unpack_bytes<2>(data, n, is_signed, bytes);
        case 3: return unpack_bytes<3>(data, n, is_signed, bytes);
        case 4: return unpack_bytes<4>(data, n, is_signed, bytes);
        case 5: return unpack_bytes<5>(data, n, is_signed, bytes);
        case 6: return unpack_bytes<6>(data, n, is_signed, bytes);
        case 7: return unpack_bytes<7>(data, n, is_signed, bytes);
    }
    if (size == 1) unpack_any(data, n, bits, is_signed, bytes);
    else if (size == 2) unpack_any(data, n, bits, is_signed, (uint16_t*)codes);
    else if (size == 4) unpack_any(data, n, bits, is_signed, (uint32_t*)codes);
    else unpack_any(data, n, bits, is_signed, (uint64_t*)codes);
}

extern "C" {

// Codes of `size` bytes each; pieces are multiples of 8 codes, so that threads meet at whole bytes.
void planish_pack(const void* codes, int32_t size, int64_t n, int32_t bits, uint8_t* out, int32_t threads) {
    parallel(n, 1 << 14, team(n, threads), false, [&](int64_t begin, int64_t end) {
        pack_some((const uint8_t*)codes + begin * size, size, end - begin, bits, out + begin / 8 * bits);
    });
}

void planish_unpack(const uint8_t* data, int64_t n, int32_t bits, int32_t is_signed, void* codes, int32_t size,
                    int32_t threads) {
    parallel(n, 1 << 14, team(n, threads), false, [&](int64_t begin, int64_t end) {
        unpack_some(data + begin / 8 * bits, end - begin, bits, is_signed, (uint8_t*)codes + begin * size, size);
    });
}
}
