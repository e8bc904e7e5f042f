"""Checks of what a strategy is given."""

from __future__ import annotations

import math

from planish.errors import OptionError


def whole(name: str, value: int, least: int) -> int:
    """A whole number of at least some size, or an OptionError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name} is a whole number from {least} up, not {value!r}", name)
    return value


def positive(name: str, value: float) -> float:
    """A finite number of at least zero, or an OptionError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise OptionError(f"{name} is a number from 0 up, not {value!r}", name)
    return float(value)
