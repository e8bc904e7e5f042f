"""Allocate against all assignments, in every unit of budget."""

# ruff: noqa: A001
from __future__ import annotations

import math
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planish import config
from planish.analysis import analyze, sensitivity
from planish.compress import Adapt, Allocate, Prune, Quantize, Smooth
from planish.compress.allocate import solve
from planish.errors import DataError, OptionError
from planish.formats import get
from planish.graph import Graph, Pass
from planish.recipe import Recipe
from tests.compress import contract
from tests.compress.models import attention, convnet, error, items, mlp
from tests.support import require

FORMATS = ("int2@g32*float16", "int4@g32*float16", "int8")


@pytest.fixture(autouse=True)
def _scipy() -> None:
    require("scipy")


@pytest.fixture(scope="module")
def graph() -> Graph:
    return attention()


def brute(losses, costs, limit: float) -> float:
    """The least loss of all assignments that fit."""
    best = math.inf
    for picks in product(range(len(losses[0])), repeat=len(losses)):
        if sum(row[pick] for row, pick in zip(costs, picks, strict=True)) <= limit:
            best = min(best, sum(row[pick] for row, pick in zip(losses, picks, strict=True)))
    return best


@settings(max_examples=40)
@given(st.data())
def test_solve_equals_brute_force(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(2, 4))
    table = st.lists(st.lists(st.integers(1, 1000), min_size=columns, max_size=columns), min_size=rows, max_size=rows)
    losses = [[x * 10.0 ** data.draw(st.integers(-8, -3)) for x in row] for row in data.draw(table)]
    costs = [[float(x) for x in row] for row in data.draw(table)]
    limit = data.draw(st.integers(int(sum(map(min, costs))), int(sum(map(max, costs)))))
    picked = solve(losses, costs, limit)
    assert sum(costs[row][pick] for row, pick in enumerate(picked)) <= limit
    got = sum(losses[row][pick] for row, pick in enumerate(picked))
    assert got == pytest.approx(brute(losses, costs, limit), rel=1e-9, abs=1e-12 * max(map(max, losses)))


@pytest.mark.parametrize("bits", [2.6, 3.5, 4.5, 6.0, 9.0])
def test_the_choice_is_the_best_of_all(graph: Graph, bits: float) -> None:
    data = items(graph)
    found = Allocate(f"{bits} bits", FORMATS).choose(graph, data)
    measured = sensitivity(graph, data, FORMATS)
    single = {(loss.node, loss.format): 10 ** (-loss.sqnr / 10) for loss in measured.losses}
    names = [choice.nodes[0] for choice in found.choices]
    shapes = [graph.node(name).weight.value.shape for name in names]
    placed = [get(f) if get(f).block else get(f).per_channel(0) for f in FORMATS]
    costs = [[float(f.nbytes(shape)) for f in placed] for shape in shapes]
    losses = [[single[name, f] for f in FORMATS] for name in names]
    limit = bits * sum(map(math.prod, shapes)) / 8
    assert found.loss == pytest.approx(brute(losses, costs, limit), rel=1e-9)
    assert found.bits <= bits
    assert found.cost == sum(choice.nbytes for choice in found.choices) <= limit


def test_it_applies_what_it_chose(graph: Graph) -> None:
    data = items(graph)
    step = Allocate("6 bits", FORMATS)
    chosen = step.choose(graph, data)
    small = step(graph, data)
    for choice in chosen.choices:
        format = small.node(choice.nodes[0]).weight.format
        assert str(format).startswith(str(get(choice.format)))
    assert len({choice.format for choice in chosen.choices}) > 1
    assert "bits a weight" in str(chosen)
    assert all(name in str(chosen) for name in ("query", "down", *{choice.format for choice in chosen.choices}))
    # what a person would have written
    same = graph
    for each in step.passes(chosen):
        same = each(same, data)
    (x,), _ = data[0]
    assert torch.equal(small(x), same(x))


def test_looser_budgets_are_never_worse(graph: Graph) -> None:
    data = items(graph, 8)
    losses, errors = [], []
    for bits in (2.6, 3.2, 4.0, 5.0, 6.5, 8.6):
        step = Allocate(f"{bits} bits", FORMATS)
        losses.append(step.choose(graph, data).loss)
        errors.append(error(graph, step(graph, data), seed=1))  # seed 1: the calibration data
    assert all(a >= b for a, b in pairwise(losses))
    assert all(a >= b for a, b in pairwise(errors))


@pytest.mark.parametrize("budget", ["4.5 bits", "9000 B", "9 kB", "20 %", "60 MBOP", "2 ms"])
def test_budgets_are_met(graph: Graph, budget: str) -> None:
    found = Allocate(budget, FORMATS).choose(graph, items(graph))
    assert 0 < found.cost <= found.limit


def test_bit_operations_are_macs_times_bits(graph: Graph) -> None:
    found = Allocate("1 TBOP", FORMATS, activations="uint8").choose(graph, items(graph))
    macs = sum(cost.work.macs for cost in analyze(graph).nodes if cost.op == "linear")
    assert {choice.format for choice in found.choices} == {"int8"}
    assert found.cost == macs * 8 * 8
    half = Allocate(f"{macs * 8 * 6 / 1e6} MBOP", FORMATS, activations="uint8").choose(graph, items(graph))
    assert half.cost <= macs * 48
    assert len({choice.format for choice in half.choices}) > 1


def test_measured_times_decide() -> None:
    graph = mlp()
    times = {"0": {"int4@g32*float16": 1.0, "int8": 5.0}, "2": {"int4@g32*float16": 4.0, "int8": 2.0}}
    found = Allocate("5000 ms", times=times).choose(graph, items(graph))
    assert [choice.format for choice in found.choices] == ["int4@g32*float16", "int8"]
    assert found.cost == 3.0
    with pytest.raises(OptionError, match="no time of 2"):
        Allocate("5 s", times={"0": times["0"]}).choose(graph, items(graph))


@pytest.mark.parametrize("make", [mlp, convnet])
def test_with_activations_and_gptq(make) -> None:
    graph = make()
    step = Allocate("6 bits", ("int4", "int8"), activations="int8", by="gptq")
    small = step(graph, items(graph))
    assert error(graph, small) < 0.3
    assert config.decode(Allocate, config.encode(step)) == step


def test_plan_names_the_candidates(graph: Graph) -> None:
    steps = Allocate("4.5 bits", FORMATS).plan(graph)
    assert len(steps) == 6
    assert all("one of int2" in step.action and "4.5 bits" in step.action for step in steps)
    assert len([n for n in Allocate("4.5 bits", FORMATS).draft(graph).nodes if n.op == "cast"]) == 6


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize(
    "other", [Prune("50%", where="linear"), Smooth(alpha=0.5), Adapt(2)], ids=lambda p: type(p).__name__
)
def test_composes(graph: Graph, other: Pass, order: str, tmp_path: Path) -> None:
    steps = [Allocate("6 bits", FORMATS), other]
    if order == "after" and isinstance(other, Smooth):
        with pytest.raises(OptionError, match="put Smooth before Quantize"):
            Recipe(*steps).plan(graph)
    else:
        contract.applied(graph, steps if order == "after" else steps[::-1], items(graph), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": "4.5"}, "unknown budget"),
        ({"budget": "0 bits"}, "unknown budget"),
        ({"budget": "3 apples"}, "unknown budget"),
        ({"budget": "4 bits", "formats": ("int8",)}, "two formats"),
        ({"budget": "4 bits", "formats": ("int8", "int99")}, "99"),
        ({"budget": "4 bits", "items": 0}, "items"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Allocate(**options)


def test_refusals(graph: Graph) -> None:
    with pytest.raises(OptionError, match="cannot be met"):
        Allocate("2 bits", FORMATS)(graph, items(graph))
    with pytest.raises(DataError, match="no calibration data"):
        Allocate("4.5 bits")(graph)
    with pytest.raises(OptionError, match="quantized already"):
        Allocate("4.5 bits").plan(Quantize("int8")(graph))
    with pytest.raises(OptionError, match="matches nothing"):
        Allocate("4.5 bits", where="conv").plan(graph)
