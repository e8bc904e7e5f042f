"""Rounding of integers against whole-number arithmetic."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from planish.errors import OptionError
from planish.formats import Float, Format, Int


@given(
    st.lists(st.floats(-1000, 1000, width=32), min_size=1),
    st.integers(-3, 6),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_half_up_is_the_floor_of_a_half_more(numbers: list[float], frac: int, dtype: torch.dtype) -> None:
    form = Format(Int(24, frac), scale=None, rounding="halfup")
    codes = form.encode(torch.tensor(numbers, dtype=dtype)).codes
    assert codes.tolist() == [floor(Fraction(x) * Fraction(2) ** frac + Fraction(1, 2)) for x in numbers]


def test_half_up_is_for_integers() -> None:
    with pytest.raises(OptionError, match="rounding"):
        Format(Float(4, 3), scale=None, rounding="halfup")
