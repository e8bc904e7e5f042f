"""Bytes of a weight that is an expression, counted by hand."""

from __future__ import annotations

import torch
from torch import nn

from planish.analysis import weights
from planish.compress import Adapt, Quantize
from planish.formats import get
from planish.frontends import capture
from planish.graph import Graph

aten = torch.ops.aten


def graph_of() -> Graph:
    torch.manual_seed(0)
    return capture(nn.Sequential(nn.Linear(64, 32)), (torch.randn(2, 64),))


def last(edit):
    layer = next(node for node in edit.graph.nodes if node.op == "linear")
    return layer, layer.weight


def masked(graph: Graph, keep: float) -> Graph:
    edit = graph.edit()
    layer, weight = last(edit)
    mask = (torch.arange(64 * 32).view(32, 64) % round(1 / keep) == 0).float()
    product = edit.call(aten.mul.Tensor, weight, edit.add("0.weight__mask", mask), before=layer)
    edit.replace_input(layer, weight, product)
    return edit.done()


def corrected(graph: Graph, rank: int) -> Graph:
    edit = graph.edit()
    layer, weight = last(edit)
    b = edit.add("0.weight__b", torch.randn(32, rank), trainable=True)
    a = edit.add("0.weight__a", torch.randn(rank, 64), trainable=True)
    low = edit.call(aten.mm.default, b, a, before=layer)
    edit.replace_input(layer, weight, edit.call(aten.add.Tensor, weight, low, before=layer))
    return edit.done()


def test_plain():
    (weight,) = weights(graph_of())
    assert (weight.name, weight.shape, weight.nbytes, weight.formats) == ("0.weight", (32, 64), 4 * 2048, ())
    assert str(weight) == "float, 32 bits"


def test_quantized_counts_codes_and_scales():
    (weight,) = weights(Quantize(weights="int4@g32*float16")(graph_of()))
    assert weight.nbytes == get("int4@g32*float16").nbytes((32, 64)) == 2048 // 2 + 64 * 2
    assert weight.bits == 4.5


def test_a_mask_leaves_the_kept_numbers_and_one_bit_each():
    (weight,) = weights(masked(graph_of(), 0.25))
    assert weight.density == 0.25
    assert weight.nbytes == 2048 // 4 * 4 + 2048 // 8


def test_order_of_mask_and_cast_does_not_matter():
    before = weights(Quantize(weights="int8")(masked(graph_of(), 0.5)))[0]
    after = weights(masked(Quantize(weights="int8")(graph_of()), 0.5))[0]
    assert before.nbytes == after.nbytes
    assert before.density == after.density == 0.5


def test_factors_are_added():
    (weight,) = weights(corrected(Quantize(weights="int4@g32*float16")(graph_of()), 4))
    assert weight.rank == 4
    assert weight.nbytes == 2048 // 2 + 64 * 2 + 4 * (32 + 64) * 4
    assert "rank 4" in str(weight)


def test_tied_weights_are_counted_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(10, 6)

        def forward(self, ids):
            return self.table(ids) @ self.table.weight.T + nn.functional.linear(self.table(ids), self.table.weight)

    graph = capture(Tied(), (torch.tensor([[1, 2]]),))
    assert [weight.name for weight in weights(graph)] == ["table.weight"]


def test_what_stands_twice_in_an_expression_is_stored_once():
    (weight,) = weights(Adapt(2, "dora")(Quantize(weights="int8")(graph_of())))
    magnitudes, factors = 4 * 32, 4 * 2 * (32 + 64)
    assert weight.nbytes == get("int8").per_channel(0).nbytes((32, 64)) + magnitudes + factors
