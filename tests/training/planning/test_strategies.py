from __future__ import annotations

import torch
from torch import fx

from planish.training.planning.strategies import Call, Oracle, Slot, call_of

aten = torch.ops.aten


def found(target, args, tensors, offered) -> dict[tuple[str, ...], str]:
    call = Call(target, args, {}, tuple(torch.empty(shape, device="meta") for shape in tensors))
    return {each.inputs: each.output for each in Oracle(4).strategies(call, offered)}


def test_a_linear_layer_is_divided_as_megatron_does() -> None:
    shapes = ((8, 16, 32), (64, 32), (64,))
    offered = (("R", "S2"), ("R", "S0", "S1"), ("R", "S0"))
    rows = found(aten.linear.default, (Slot(0), Slot(1), Slot(2)), shapes, offered)
    assert rows["R", "R", "R"] == "R"
    assert rows["R", "S0", "S0"] == "S2"  # columns
    assert rows["S2", "S1", "R"] == "P"  # rows, summed afterwards
    assert ("S2", "S0", "S0") not in rows  # would have to be gathered first


def test_attention_is_divided_by_heads() -> None:
    shapes = ((2, 8, 16, 4),) * 3
    rows = found(aten.scaled_dot_product_attention.default, (Slot(0), Slot(1), Slot(2)), shapes, (("R", "S1"),) * 3)
    assert rows["S1", "S1", "S1"] == "S1"


def test_heads_that_devices_do_not_divide_are_not_split() -> None:
    rows = found(aten.view.default, (Slot(0), [2, 16, 3, 4]), ((2, 16, 12),), (("R", "S2"),))
    assert rows == {("R",): "R"}


def test_a_parameter_is_divided_along_axes_that_divide() -> None:
    assert [each.output for each in Oracle(4).tensor((8, 6))] == ["R", "S0"]


def test_an_operation_without_a_table_has_no_strategy() -> None:
    rows = found(aten.searchsorted.Tensor, (Slot(0), Slot(1)), ((8,), (4,)), (("R",), ("R",)))
    assert rows == {}


def test_a_call_knows_what_goes_in() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    node = graph.call_function(aten.add.Tensor, (x, x))
    call, sources = call_of(node, lambda _: torch.empty(2, device="meta"))
    assert sources == (x, x)
    assert len(call.tensors) == 2
