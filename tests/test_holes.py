import copy
import pickle
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.errors import OptionError
from planish.holes import (
    Between,
    Choose,
    Fillable,
    PerNode,
    Template,
    answering,
    between,
    choose,
    each,
    fill,
    inside,
    label,
)


@dataclass(frozen=True)
class Mill(Fillable):
    speed: int = 1
    tool: str = "drill"

    def __post_init__(self) -> None:
        if self.speed < 1:
            raise OptionError(f"{self.speed} is too slow", "speed")


def first(hole, _place):
    return hole.low if isinstance(hole, Between) else hole.options[0]


def test_a_class_without_holes_is_made_at_once():
    assert Mill(2) == Mill(speed=2)
    assert copy.deepcopy(Mill(3)) == pickle.loads(pickle.dumps(Mill(3))) == Mill(3)


def test_a_class_with_a_hole_waits():
    template = Mill(choose(1, 2))
    assert isinstance(template, Template)
    assert str(template) == "Mill(speed=choose(1, 2))"
    assert [hole.labels for hole in inside(template)] == [(1, 2)]
    assert fill(template, first) == Mill(1)
    assert isinstance(replace(Mill(1), tool=choose("drill", "saw")), Template)


def test_what_is_filled_in_is_checked_then():
    with pytest.raises(OptionError, match="0 is too slow"):
        fill(Mill(choose(0, 1)), first)


def test_an_unknown_argument_is_refused_at_once():
    with pytest.raises(TypeError, match="depth"):
        Mill(depth=choose(1, 2))  # pyright: ignore[reportCallIssue]


def test_holes_within_options_are_asked_for_after_them():
    asked = []

    def answer(hole, place):
        asked.append(place)
        return hole.options[-1]

    whole = fill(choose(None, Mill(choose(3, 4))), answer, "step")
    assert (whole, asked) == (Mill(4), ["step", "step.speed"])


def test_holes_are_found_in_containers():
    a, b = choose(1, 2), between(0, 1)
    assert list(inside([{"x": (a,)}, [b]])) == [a, b]
    assert fill([{"x": (a,)}, [b]], first) == [{"x": (1,)}, [0]]


def test_a_condition_names_an_option_that_exists():
    kind = choose("conv", "linear", name="kind")
    assert kind.among("conv").holds("conv")
    assert not kind.among("conv").holds(None)
    with pytest.raises(OptionError, match=r"unknown option 'pool'(.|\n)*kind"):
        kind.among("pool")


def test_true_is_not_one():
    hole = choose(1, True)
    assert hole.option(True) is True
    assert hole.option(1) is not True


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: choose(), "needs options"),
        (lambda: choose("a", "a"), "'a' is there twice"),
        (lambda: between(3, 3), "3 is not below 3"),
        (lambda: between(0, float("inf")), "is not below inf"),
        (lambda: between(0, 4, step=5), "5 is no step"),
        (lambda: between(0, 1, log=True), "begins above 0"),
        (lambda: PerNode({}), "no node is named"),
        (lambda: bool(choose(1, 2)), "no value yet"),
    ],
)
def test_bad_holes_are_refused(make, said):
    with pytest.raises(OptionError, match=said):
        make()


def test_in_a_model_the_answer_comes_back_at_once():
    with answering(lambda hole, name: {"act": "gelu", "width": 32}[name]):
        assert choose("relu", "gelu", name="act") == "gelu"
        assert between(8, 64, name="width") == 32
        with pytest.raises(OptionError, match="needs a name"):
            choose("relu", "gelu")
    assert isinstance(choose("relu", "gelu"), Choose)


@given(st.integers(-50, 50), st.integers(1, 60), st.integers(1, 9))
def test_a_range_counts_its_numbers(low, width, step):
    step = min(step, width)
    assert Between("", None, low, low + width, step).count == len(range(low, low + width + 1, step))


def test_labels_are_plain():
    assert [label(option) for option in (None, 2, 0.5, True, "x")] == ["none", 2, 0.5, True, "x"]
    assert label(Mill(choose(1, 2), tool="saw")) == "Mill(tool=saw)"
    assert each("a", "b").labels == ("a", "b")
