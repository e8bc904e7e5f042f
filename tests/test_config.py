"""Dataclasses as plain data and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.config import decode, encode
from planish.errors import OptionError
from planish.formats import Format, int4, int8


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Options:
    name: str
    count: int = 3
    rate: float = 0.5
    fast: bool = False
    kind: Literal["a", "b"] = "a"
    limit: float | Literal["auto"] = "auto"
    most: float | None = None
    sizes: tuple[int, ...] = ()
    pair: tuple[int, str] = (1, "x")
    number: Format = int8
    inner: Inner = Inner()
    extra: dict[str, int] = field(default_factory=dict)


@given(
    st.builds(
        Options,
        name=st.text(),
        count=st.integers(),
        rate=st.floats(allow_nan=False),
        fast=st.booleans(),
        kind=st.sampled_from(["a", "b"]),
        limit=st.just("auto") | st.floats(0, 1),
        most=st.none() | st.floats(0, 1),
        sizes=st.lists(st.integers()).map(tuple),
        number=st.sampled_from([int8, int4, int4.group(32), int8.per_token().dynamic()]),
        inner=st.builds(Inner, depth=st.integers()),
        extra=st.dictionaries(st.text(), st.integers()),
    )
)
def test_round_trip(options):
    assert decode(Options, encode(options)) == options


def test_only_what_differs_is_written():
    assert encode(Options("n")) == {"name": "n"}
    assert encode(Options("n", number=int4.group(32), inner=Inner(2))) == {
        "name": "n",
        "number": "int4@g32",
        "inner": {"depth": 2},
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "n", "cuont": 1}, "unknown option 'cuont'"),
        ({"name": "n", "cuont": 1}, "did you mean 'count'"),
        ({}, "'name' is missing"),
        ({"name": 3}, "3 is not a text"),
        ({"name": "n", "count": 1.5}, "1.5 is not a whole number"),
        ({"name": "n", "count": True}, "True is not a whole number"),
        ({"name": "n", "fast": 1}, "1 is not true or false"),
        ({"name": "n", "kind": "c"}, "'c' is not 'a' or 'b'"),
        ({"name": "n", "limit": "low"}, "'low' is not a number or 'auto'"),
        ({"name": "n", "most": "x"}, "is not a number or 'none'"),
        ({"name": "n", "sizes": [1, "2"]}, r"sizes\[1\]"),
        ({"name": "n", "pair": [1]}, "pair"),
        ({"name": "n", "number": "int8@"}, "number"),
        ({"name": "n", "inner": {"depht": 1}}, "inner"),
        ({"name": "n", "extra": {"a": "b"}}, r"extra\.a"),
    ],
)
def test_errors_name_the_field(data, message):
    with pytest.raises(OptionError, match=message):
        decode(Options, data, "table")


def test_the_place_is_named():
    with pytest.raises(OptionError, match="where: table, count"):
        decode(Options, {"name": "n", "count": "x"}, "table")


def test_what_has_no_plain_form_is_refused():
    @dataclass(frozen=True)
    class Call:
        function: object = None

    with pytest.raises(OptionError, match=r"Call\.function"):
        encode(Call(print))
