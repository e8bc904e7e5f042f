from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.record import Measurement
from planish.report.numbers import THIN, interval, percent, quantity, significant

_FACTORS = {"n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0142, "s", "14.2 ms"),
        (0.9996, "s", "1.00 s"),
        (3e-7, "s", "300 ns"),
        (90_852_864, "B", "90.9 MB"),
        (999_600, "B", "1.00 MB"),
        (12, "B", "12.0 B"),
        (121e9, "FLOP/s", "121 GFLOP/s"),
        (0, "s", "0 ns"),
        (0.99861, "1", "0.9986"),
        (22_713_216, "1", "22.7 M"),
        (31.26, "dB", "31.3 dB"),
        (8, "bit", "8 bit"),
        (2.756, "x", "2.76×"),
        (37.04, "tokens/s", "37.0 tokens/s"),
    ],
)
def test_a_quantity_reads_as_a_person_would_write_it(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit).replace(THIN, " ") == text


@given(st.floats(1e-9, 1e12))
def test_a_time_is_written_within_half_of_its_last_digit(seconds: float) -> None:
    number, unit = quantity(seconds, "s").split(THIN)
    written = float(number.replace(",", "")) * _FACTORS[unit.removesuffix("s")]
    assert written == pytest.approx(seconds, rel=5.1e-3)


@given(st.floats(1e-4, 999))
def test_three_significant_digits(value: float) -> None:
    digits = significant(value).replace(".", "").lstrip("0")
    assert len(digits) in (3, 4)  # 9.996 becomes 10.00
    assert "e" not in digits


def test_an_interval_says_its_unit_once() -> None:
    assert interval(Measurement("t", 0.014, "s", "measured", (0.0139, 0.0146))).replace(THIN, " ") == "13.9 to 14.6 ms"
    assert (
        interval(Measurement("t", 0.001, "s", "measured", (0.0009, 0.0011))).replace(THIN, " ") == "900 µs to 1.10 ms"
    )
    assert interval(Measurement("r", 2.7, "x", "measured", (2.6, 2.8))) == "2.60× to 2.80×"
    assert interval(Measurement("t", 0.001, "s", "measured")) == ""


def test_percent_keeps_one_digit_where_it_matters() -> None:
    assert [percent(x).replace(THIN, " ") for x in (0, 0.004, 0.07, 0.92, 1)] == [
        "0 %",
        "0.4 %",
        "7.0 %",
        "92 %",
        "100 %",
    ]
