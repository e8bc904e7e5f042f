// The element families: `grid` gives the element's number for each lane, `code` its integer code.
// Each line does what the torch definition (integer.py, floating.py, pow2.py, table.py) does, in the same order.
#pragma once
#include "vector.h"

#include <algorithm>

enum Kind : int32_t { INT, FLOAT, WIDE, FLOAT32, POW2, SMALL_TABLE, TABLE };
enum Rounding : int32_t { EVEN, AWAY, DOWN, UP, LOG };
enum Specials : int32_t { IEEE, FN, FNUZ, FINITE };

struct Element {  // an element with its format's rounding, overflow and NaN policy; mirrored in describe.py
    int32_t kind, rounding, infinite, keeps_nan, specials, exponent, mantissa, bias, is_signed, zero;
    int32_t count, finite, code_shift, code_mask, code_of_nan;
    float minimum, maximum, smallest, up, down, low_power, high_power, of_nan;
    const float *values, *above;  // a table: its numbers, and the highest float32 that still goes to each
};

struct NanPolicy {
    bool stays;
    F becomes;
    explicit NanPolicy(const Element& e) : stays(e.keeps_nan), becomes(all(e.of_nan)) {}
    INLINE F operator()(F x) const { return stays ? x : select(ordered(x), x, becomes); }
};

template <bool NEAREST> static INLINE F round_to(F x, int32_t rounding) {
    if (NEAREST) return nearest(x);
    switch (rounding) {
        case EVEN: return nearest(x);
        case DOWN: return floor(x);
        case UP: return ceil(x);
        default: {
            const F base = trunc(x), rest = trunc((x - base) * 2.0f);
            return base + keep(ordered(rest), rest);
        }
    }
}

// Powers of two, as patterns of floats, by which all numbers of an element can be multiplied without rounding any.
struct Powers {
    int32_t least = 1, most = 0;
    Powers() {}
    Powers(int32_t lowest_exponent, int32_t highest_exponent)
        : least((std::max(lowest_exponent, -126) + 127) << 23), most((std::min(highest_exponent, 127) + 127) << 23) {}
    INLINE I hold(F x) const { return ((bits(x) & 0x007FFFFF) == 0) & (bits(x) >= least) & (bits(x) <= most); }
};

// NEAREST: to even. What is known to the compiler leaves no branch in the loop.
template <bool NEAREST> struct Int {
    static constexpr bool GROWS = NEAREST, LEANS = false;
    NanPolicy nan;
    Powers powers;
    int32_t rounding;
    F low, high, up, down;
    explicit Int(const Element& e)
        : nan(e), powers(std::ilogb(e.up) - 126, std::ilogb(e.up) + 126), rounding(e.rounding), low(all(e.minimum)),
          high(all(e.maximum)), up(all(e.up)), down(all(e.down)) {}
    template <class Use> INLINE void grown(F s, Use&& use) const {
        Int q = *this;
        q.up = real(bits(up) - bits(s) + 0x3F800000), q.down = down * s, q.nan.becomes = nan.becomes * s;
        use(q);
    }
    INLINE F number(F x, F zero) const {
        return clamp(round_to<NEAREST>(nan(x) * up, rounding) + zero, low, high);  // + 0.0 ends -0.0
    }
    INLINE F grid(F x, F zero) const { return (number(x, zero) - zero) * down; }
    INLINE I code(F x, F zero) const { return whole(number(x, zero)); }
};

struct FloatCodes {
    int32_t specials, m, e, bias;
    F normal, up;
    explicit FloatCodes(const Element& el)
        : specials(el.specials), m(el.mantissa), e(el.exponent), bias(el.bias), normal(all(el.low_power)),
          up(all(el.up)) {}
    INLINE I code_of(F x) const {
        // a subnormal number plus the lowest normal one has the mantissa of its code
        const F size = absolute(x);
        const I below = size < normal;
        I code = (bits(size + keep(below, normal)) >> (23 - m)) - ((127 - bias) << m) - (below & (1 << m));
        I negative = bits(x) < 0;
        if (specials != FINITE) {
            const I top = all(((1 << e) - 1) << m), nan = bits(size) > 0x7F800000;
            if (specials == IEEE) code = bits(size) >= 0x7F800000 ? top | (nan & (1 << (m - 1))) : code;
            if (specials == FN) code = nan ? all((1 << (e + m)) - 1) : code;
            if (specials == FNUZ) code = code & ~nan, negative |= nan;
        }
        return code | (negative & (1 << (e + m)));
    }
};

// What remains of a float in the common case: to nearest even, saturating, with negative zero; NaN stays or becomes zero.
template <bool KEEPS_NAN> struct Minifloat {
    F low, high, low_power, down;
    I inverse_of_one, code_of_nan, sign;
    int32_t m;
    INLINE F inside(F x) const { return clamp(KEEPS_NAN ? x : keep(ordered(x), x), low, high); }
    INLINE F power(F x) const { return highest(low_power, real(bits(x) & 0x7F800000)); }
    INLINE F steps(F x, F p) const { return nearest(x * real(inverse_of_one - bits(p))); }
    INLINE F grid(F x, F) const {
        x = inside(x);
        const F p = power(x);
        return steps(x, p) * (p * down);
    }
    INLINE I code(F x, F) const {  // exponents count from the lowest, and steps carry into them
        x = inside(x);
        const F p = power(x);
        I code = ((bits(p) - bits(low_power)) >> (23 - m)) + whole(absolute(steps(x, p)));
        if (KEEPS_NAN) code = ordered(x) ? code : code_of_nan;
        return code | ((bits(x) < 0) & sign);
    }
};

// WIDE: 1 / step would leave float32, so that the power of two and the mantissa's width are applied one by one.
template <bool WIDE, bool NEAREST> struct Float : FloatCodes {
    static constexpr bool GROWS = NEAREST && !WIDE, LEANS = GROWS;
    const NanPolicy nan;
    Powers powers;
    const int32_t rounding, infinite;
    const F low, high, down, low_power, high_power, beyond;
    const I inverse_of_one;
    explicit Float(const Element& e)
        : FloatCodes(e), nan(e), rounding(e.rounding), infinite(e.infinite), low(all(e.minimum)), high(all(e.maximum)),
          down(all(e.down)), low_power(all(e.low_power)), high_power(all(e.high_power)),
          beyond(all(e.specials == IEEE ? INFINITY : NAN)), inverse_of_one((0x7F000000 - 0x3F800000) + bits(up)) {
        const int32_t lowest = std::ilogb(e.low_power);
        if (!infinite && specials != FNUZ && (e.keeps_nan || e.of_nan == 0)) powers = {m - 127 - lowest, 127 - std::ilogb(e.high_power)};
    }
    template <class Use> INLINE void grown(F s, Use&& use) const {
        const F l = low * s, h = high * s, p = low_power * s;
        const I sign = all(1 << (e + m)), none = all(specials == IEEE ? ((2 << e) - 1) << (m - 1) : (1 << (e + m)) - 1);
        nan.stays ? use(Minifloat<true>{l, h, p, down, inverse_of_one, none, sign, m})
                  : use(Minifloat<false>{l, h, p, down, inverse_of_one, none, sign, m});
    }
    INLINE F grid(F x, F) const {
        x = nan(x);
        if (!infinite) x = clamp(x, low, high);
        const F power = clamp(real(bits(x) & 0x7F800000), low_power, high_power);
        F r;
        if (WIDE) {
            const F inverse = real(highest(0x7F000000 - bits(power), all(0x00400000)));
            r = round_to<NEAREST>(x * inverse * up, rounding) * down * power;
        } else {
            r = round_to<NEAREST>(x * real(inverse_of_one - bits(power)), rounding) * (power * down);
        }
        if (infinite) {
            const F outside = real(bits(beyond) | (specials == IEEE ? bits(r) & INT32_MIN : I{}));
            r = select(absolute(r) > high, outside, r);
        }
        return specials == FNUZ ? r + 0.0f : r;
    }
    INLINE I code(F x, F zero) const { return code_of(grid(x, zero)); }
};

struct Float32 {  // everything that float32 holds
    static constexpr bool GROWS = false, LEANS = false;
    const NanPolicy nan;
    explicit Float32(const Element& e) : nan(e) {}
    INLINE F grid(F x, F) const { return nan(x); }
    INLINE I code(F x, F zero) const {
        x = grid(x, zero);
        return ordered(x) ? bits(x) : (bits(x) & INT32_MIN) | 0x7FC00000;
    }
};

struct Pow2 {
    static constexpr bool GROWS = false, LEANS = false;
    const NanPolicy nan;
    const int32_t rounding, is_signed, zero, exponent, bias;
    const F low, high;
    explicit Pow2(const Element& e)
        : nan(e), rounding(e.rounding), is_signed(e.is_signed), zero(e.zero), exponent(e.exponent), bias(e.bias),
          low(all(e.smallest)), high(all(e.maximum)) {}
    INLINE F grid(F x, F) const {
        x = nan(x);
        const I sign = is_signed ? bits(x) & INT32_MIN : I{};
        const F size = is_signed ? absolute(x) : highest(all(0.0f), x);
        F power = clamp(real(bits(size) & 0x7F800000), low, high);
        const F rest = size / power;
        I up, stays;
        switch (rounding) {
            case EVEN: {
                const I odd = (((bits(power) >> 23) - 127 + bias) & 1) == 1;
                up = (rest > 1.5f) | ((rest == 1.5f) & odd), stays = rest > 0.5f;
                break;
            }
            case AWAY: up = rest >= 1.5f, stays = rest >= 0.5f; break;
            case LOG: up = rest > 1.414213562373095f, stays = rest > 0.7071067811865475f; break;
            case DOWN: up = (rest > 1.0f) & (sign < 0), stays = (rest > 0.0f) & (sign < 0); break;
            default: up = (rest > 1.0f) & (sign >= 0), stays = (rest > 0.0f) & (sign >= 0);
        }
        power = lowest(high, select(up, power * 2.0f, power));
        if (zero) power = keep(~((rest < 1.0f) & ~stays), power);
        power = real(bits(power) | (sign & (power > 0.0f)));
        return select(ordered(x), power, x);
    }
    INLINE I code(F x, F zero_point) const {
        x = grid(x, zero_point);
        I code = ((bits(absolute(x)) >> 23) - 127 + bias) | ((x < 0.0f) & (1 << exponent));
        if (zero) code = x == 0.0f ? I{} : code;
        return ordered(x) ? code : all((1 << exponent) - 1);
    }
};

// A list of numbers: `place` counts those whose upper bound lies below x.
template <class Search> struct Listed {
    static constexpr bool GROWS = false, LEANS = false;
    const NanPolicy nan;
    const Search search;
    const int32_t finite, code_shift, code_mask, code_of_nan;
    explicit Listed(const Element& e)
        : nan(e), search(e), finite(e.finite), code_shift(e.code_shift), code_mask(e.code_mask),
          code_of_nan(e.code_of_nan) {}
    INLINE F grid(F x, F) const {
        x = nan(x);
        const F number = search.number(x);
        return finite ? select(absolute(x) < INFINITY, number, all(NAN)) : number;
    }
    INLINE I code(F x, F) const {
        x = nan(x);
        const I code = (search.place(x) - code_shift) & code_mask;
        return finite ? (absolute(x) < INFINITY ? code : all(code_of_nan)) : code;
    }
};

// Up to 16 numbers, as eight pairs: four comparisons with bounds from tables that stay in registers.
struct SmallSearch {
    const F bound8, bound4, bound12;
    alignas(64) float bound2[16] = {}, bound1[16] = {}, first[16] = {}, second[16] = {};
    explicit SmallSearch(const Element& e)
        : bound8(all(e.above[7])), bound4(all(e.above[3])), bound12(all(e.above[11])) {
        for (int i = 0; i < 16; ++i) bound2[i] = e.above[4 * (i % 4) + 1];
        for (int i = 0; i < 8; ++i) bound1[i] = e.above[2 * i], first[i] = e.values[2 * i], second[i] = e.values[2 * i + 1];
    }
    INLINE I pair(F x) const {
        const I upper = x > bound8;
        const I at = (upper & 2) - (x > select(upper, bound12, bound4));
        return at + at - (x > lookup4(bound2, at));
    }
    INLINE I place(F x) const {
        const I at = pair(x);
        return at + at - (x > lookup8(bound1, at));
    }
    INLINE F number(F x) const {
        const I at = pair(x);
        return select(x > lookup8(bound1, at), lookup8(second, at), lookup8(first, at));
    }
};

struct Search {
    const float *values, *above;
    const int32_t count;
    explicit Search(const Element& e) : values(e.values), above(e.above), count(e.count) {}  // a power of two
    INLINE I place(F x) const {
        I at{};
        for (int32_t half = count / 2; half > 0; half /= 2)
            for (int i = 0; i < LANES; ++i) at[i] += x[i] > above[at[i] + half - 1] ? half : 0;
        return at;
    }
    INLINE F number(F x) const {
        const I at = place(x);
        F v;
        for (int i = 0; i < LANES; ++i) v[i] = values[at[i]];
        return v;
    }
};

// Calls `use` with the quantizer of an element.
template <class Use> static INLINE void with(const Element& e, Use&& use) {
    const bool nearest = e.rounding == EVEN;
    switch (e.kind) {
        case INT: return nearest ? use(Int<true>(e)) : use(Int<false>(e));
        case FLOAT: return nearest ? use(Float<false, true>(e)) : use(Float<false, false>(e));
        case WIDE: return nearest ? use(Float<true, true>(e)) : use(Float<true, false>(e));
        case FLOAT32: return use(Float32(e));
        case POW2: return use(Pow2(e));
        case SMALL_TABLE: return use(Listed<SmallSearch>(e));
        default: return use(Listed<Search>(e));
    }
}
