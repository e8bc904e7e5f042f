"""Merge: the same outputs without the adapter, as far as the weight's format can hold them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from planish.compress import Quantize
from planish.compress.adapt import Adapt
from planish.compress.correct import Correct
from planish.errors import OptionError
from planish.frontends import capture
from planish.recipe import Recipe
from planish.rewrite import Merge
from tests.compress.models import attention, error, items
from tests.compress.test_adapt import moved


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_exact_for_a_tensor(kind):
    graph = attention()
    adapted = moved(Recipe(Adapt(rank=2, kind=kind), Adapt(rank=3, kind=kind, where="path('up')"))(graph))
    merged = Merge()(adapted)
    assert error(graph, adapted) > 0.005
    assert error(adapted, merged) < 1e-6
    assert merged.tensors.keys() == graph.tensors.keys()
    assert all(tensor.requires_grad for name, tensor in merged.tensors.items() if name in merged.parameter_names)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_rounded_again_where_the_weight_is_cast(kind):
    graph = attention()
    small = Quantize("int8", where="linear")(graph)
    adapted = moved(Adapt(rank=2, kind=kind)(small))
    merged = Merge()(adapted)
    assert [node.op for node in merged.nodes] == [node.op for node in small.nodes]
    assert error(adapted, merged) < 0.01 < 0.05 < error(small, adapted)
    scale = adapted.tensors["up.weight__scale"]
    assert not torch.equal(merged.tensors["up.weight__scale"], scale)  # the adapter may need more room
    assert torch.equal(small.tensors["up.weight__scale"], scale)
    assert "rounded again" in Merge().plan(adapted)[0].action


def test_beside_a_correction_and_under_a_cast():
    graph = attention()
    data = items(graph, 8)
    corrected = Recipe(Quantize("int8", where="linear"), Correct(rank=2))(graph, data)
    adapted = moved(Adapt(rank=2)(corrected))
    merged = Merge()(adapted)
    assert error(adapted, merged) < 0.01
    assert "up.weight__b__scale" in merged.tensors
    below = moved(Adapt(rank=2)(graph))
    assert error(below, Merge()(Quantize("int8", where="linear")(below))) < 0.01
    with pytest.raises(OptionError, match="no weight with an adapter"):
        Merge().plan(merged)


def test_a_tied_weight_is_copied():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 8)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(self.table(ids), self.table.weight)

    torch.manual_seed(0)
    ids = torch.arange(6).reshape(2, 3)
    for text in (None, "int8"):
        graph = capture(Tied(), (ids,))
        small = Quantize(text)(graph) if text else graph
        adapted = moved(Adapt(rank=2, where="linear")(small))
        merged = Merge()(adapted)
        assert float((merged(ids) - adapted(ids)).norm() / adapted(ids).norm()) < 0.02
        assert torch.equal(merged.tensors["table.weight"], graph.tensors["table.weight"])
