"""How a number is written: three significant digits, a unit, and nothing a reader must convert."""

from __future__ import annotations

from planish.record import Measurement

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_PHYSICAL = {"s", "J", "W"}
_COUNTED = {"B", "FLOP", "MAC", "FLOP/s", "B/s"}
THIN = "\u202f"  # narrow no-break space: between a number and its unit
TIMES = "\u00d7"
MINUS = "\u2212"
NONE = "\u2013"  # where there is no number


def quantity(value: float, unit: str) -> str:
    """`value` with its unit as a reader wants it: `quantity(0.0142, "s") == "14.2 ms"`.

    Bytes are decimal (1 MB = 10⁶ B). A dimensionless number of at most 1 keeps four decimals, as a metric
    needs, and one below a thousandth three digits, as a loss may.
    """
    if unit in _COUNTED | _PHYSICAL:
        factor, prefix = _prefix(value, smallest=1e-9 if unit in _PHYSICAL else 1.0)
        return f"{significant(value / factor)}{THIN}{prefix}{unit}"
    if unit == "1":
        return _plain(value)
    if unit == "x":
        return f"{significant(value)}{TIMES}"
    if unit == "bit":
        return f"{value:g}{THIN}bit"
    if unit == "dB":
        return f"{value:.1f}{THIN}dB"
    number = f"{value:,.0f}" if value == int(value) else significant(value)
    return f"{number}{THIN}{unit}"


def interval(measurement: Measurement) -> str:
    """The spread as `13.9 to 14.6 ms`, or nothing where the measurement has none to speak of."""
    if measurement.spread is None or measurement.spread[0] == measurement.spread[1]:
        return ""
    low, high = (quantity(bound, measurement.unit) for bound in measurement.spread)
    number, _, unit = low.partition(THIN)
    return f"{number if unit and high.endswith(THIN + unit) else low} to {high}"


def significant(value: float, digits: int = 3) -> str:
    """`value` with at least `digits` significant digits, never in exponent form between 10⁻⁴ and 10⁶."""
    if value == 0:
        return "0"
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def percent(share: float) -> str:
    """A share of one as a percentage, without false digits."""
    return f"{100 * share:.1f}{THIN}%" if 0 < share < 0.0995 else f"{100 * share:.0f}{THIN}%"


def words(name: str) -> str:
    """A measurement's name as a reader says it: `"lee_pearson"` becomes `"Lee pearson"`."""
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def _prefix(value: float, smallest: float) -> tuple[float, str]:
    # 999.5 rounds up to "1,000", which belongs to the next prefix.
    fitting = (p for p in _PREFIXES if p[0] >= smallest and abs(value) >= 0.9995 * p[0])
    return next(fitting, (smallest, dict(_PREFIXES)[smallest]))


def _plain(value: float) -> str:
    if abs(value) <= 1 and value != int(value):
        return f"{value:.4f}" if abs(value) >= 0.001 else significant(value)
    if value == int(value) and abs(value) < 1e5:
        return f"{value:,.0f}"
    factor, prefix = _prefix(value, smallest=1.0)
    return f"{significant(value / factor)}{THIN}{prefix}".rstrip(THIN)
