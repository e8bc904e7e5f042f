"""Fixed-point graphs as users train them: lowered bit for bit, or refused by module path."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import planish
from planish.errors import GraphError
from planish.graph import Graph
from planish.graph.cast import cast
from planish.targets.fpga.lower import lower, unsupported
from planish.targets.fpga.lowering.dyadic import dyadic
from planish.targets.fpga.lowering.held import groups
from planish.targets.fpga.program import Lookup, Permute, Requantize
from tests.targets.fpga.programs import assert_equal, fixed, mlp_graph


class Function(nn.Module):
    """A function of one tensor, as a module."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[operator]  # a function of a tensor


def graph_of(function: object, *shape: int) -> Graph:
    return planish.capture(Function(function), (torch.randn(2, *shape),), dynamic={"x": {0: "batch"}})


@settings(max_examples=4)
@given(st.integers(2, 12), st.sampled_from(["even", "halfup", "down"]), st.integers(0, 5))
def test_perceptrons_of_any_bits(bits: int, rounding: str, seed: int) -> None:
    graph = mlp_graph((5, 4, 3), bits, rounding, seed)
    assert_equal(graph, lower(graph), (torch.randn(500, 5) * 2,))


@settings(max_examples=4)
@given(st.integers(-6, 8), st.integers(-6, 8), st.integers(-6, 8), st.sampled_from(["even", "halfup", "down"]))
def test_sums_of_unequal_fractions(first: int, second: int, last: int, rounding: str) -> None:
    def residual(x: Tensor) -> Tensor:
        x = cast(x, fixed(10, 3), ())
        a, b = cast(x * 0.75, fixed(6, first), ()), cast(x.relu(), fixed(7, second, False), ())
        return cast(a - b, fixed(8, last, True, rounding), ())

    graph = graph_of(residual, 5)
    assert_equal(graph, lower(graph), (torch.randn(500, 5) * 2.0 ** -min(first, 3),))


@pytest.mark.parametrize(
    "function",
    [functional.gelu, functional.silu, torch.sigmoid, torch.tanh, functional.softplus, lambda x: x * torch.sigmoid(x)],
    ids=["gelu", "silu", "sigmoid", "tanh", "softplus", "swish"],
)
def test_functions_are_tables(function: object) -> None:
    graph = graph_of(lambda x: cast(function(cast(x, fixed(9, 5), ())), fixed(8, 5), ()), 5)  # type: ignore[operator]
    program = lower(graph)
    assert [type(each) for each in program.operations] == [Lookup]
    assert_equal(graph, program, (torch.randn(2000, 5) * 4,))


def test_clamps_need_no_table() -> None:
    graph = graph_of(lambda x: cast(functional.relu6(cast(x, fixed(9, 4), ()) * 0.5), fixed(5, 3, False), ()), 5)
    program = lower(graph)
    assert [type(each) for each in program.operations] == [Requantize]
    assert_equal(graph, program, (torch.randn(2000, 5) * 8,))


def test_axes_are_renamed_rather_than_moved() -> None:
    def moved(x: Tensor) -> Tensor:
        y = cast(x, fixed(8, 4), ()).reshape(-1, 4, 2, 3).transpose(1, 2).permute(0, 2, 1, 3).flatten(2)
        return cast(y[:, 1:], fixed(6, 3), ())

    graph = graph_of(moved, 4, 6)
    program = lower(graph)
    assert not any(isinstance(each, Permute) for each in program.operations)
    assert_equal(graph, program, (torch.randn(50, 4, 6),))


def test_what_is_no_function_of_one_number_is_told_by_path() -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sort(x, -1)[0]

    model = nn.Sequential(
        Function(lambda x: cast(x, fixed(8, 4), ())), Inner(), Function(lambda x: cast(x, fixed(8, 4), ()))
    )
    graph = planish.capture(model, (torch.randn(2, 5),), dynamic={"input": {0: "batch"}})
    (found,) = unsupported(graph)
    assert (found.path, found.op) == ("1", "sort")
    with pytest.raises(GraphError, match=r"(?s)sort.*where: 1"):
        lower(graph)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: x * 2, "cast"),
        (lambda x: cast(x, "e4m3", ()), "no integer meaning"),
        (lambda x: cast(x, fixed(8, 4, True, "away"), ()), "rounds"),
        (lambda x: cast(cast(x, fixed(8, 4), ()) * 0.1, fixed(8, 4), ()), "multiplier"),
        (lambda x: cast(torch.exp(cast(x, fixed(20, 10), ())), fixed(8, 4), ()), "no integer form of exp"),
        (lambda x: cast(cast(x, fixed(8, 4), ()) + cast(x, fixed(7, 4), ()), fixed(8, 4), ()), "two formats"),
    ],
)
def test_floats_that_are_left_are_refused(function: object, says: str) -> None:
    with pytest.raises(GraphError, match=says):
        lower(graph_of(function, 5))


def test_dyadic_numbers_are_found_in_their_lowest_terms() -> None:
    found = dyadic(torch.tensor([0.0, 0.75, -3.0]).double().numpy())
    assert found is not None
    assert (found[0].tolist(), found[1]) == ([0, 3, -12], 2)
    assert dyadic(torch.tensor([96.0]).double().numpy()) == (torch.tensor([3]).numpy(), -5)
    assert dyadic(torch.tensor([0.1, 1e9]).double().numpy()) is None


def test_axes_are_grouped_by_the_numbers_they_hold() -> None:
    assert groups((2, 3, 4), (6, 1, 4)) == [([0, 1], [0]), ([2], [2])]
    assert groups((1, 12, 5), (1, 3, 4, 5)) == [([1], [1, 2]), ([2], [3])]
