"""Every ordered pair of techniques holds the contract, or is refused by the plan with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import pytest
import torch

from planish.compress import Quantize, Smooth
from planish.graph import Data, Graph, Pass, Progress, Step
from tests.compress import contract
from tests.compress.models import attention, items

LAYERS = {
    "quantize": Quantize("int8", where="linear"),
    "gptq": Quantize("int8", "uint8", where="linear", by="gptq", correct_bias=True),
    "mxfp4": Quantize("mxfp4", where="linear"),
    "smooth": Smooth(alpha=0.5),
}
"""By what they do to linear layers."""
REFUSED = {
    ("quantize", "quantize"): "quantized already",
}
"""Ordered pairs that make no sense, and what the plan says of them."""


def pairs() -> list[tuple[str, str]]:
    return [pair for pair in product(LAYERS, LAYERS) if pair not in REFUSED]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return attention()


@pytest.mark.parametrize("pair", pairs(), ids="-".join)
def test_pairs_hold_the_contract(pair, graph, tmp_path):
    contract.applied(graph, [LAYERS[name] for name in pair], items(graph, 3), tmp_path)


@dataclass(frozen=True)
class _Wrong(Pass):
    """Changes the first weight in a way that no pass may."""

    def plan(self, graph: Graph) -> list[Step]:
        return [Step("", "linear", "wrong")]

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        edit = graph.edit()
        layer = next(node for node in edit.graph.nodes if node.op == "linear")
        self.spoil(graph, edit, layer)
        return edit.done()


class _Infinite(_Wrong):
    def spoil(self, graph, edit, layer):
        edit.set_tensor(layer.weight.target, torch.full((32, 32), torch.inf))


class _InPlace(_Wrong):
    def spoil(self, graph, edit, layer):
        with torch.no_grad():
            graph.tensors[layer.weight.target].mul_(2)


class _Random(_Wrong):
    """Another answer each time."""

    def spoil(self, graph, edit, layer):
        noise = edit.call(torch.ops.aten.rand_like.default, layer.weight, before=layer)
        edit.replace_input(layer, layer.weight, edit.call(torch.ops.aten.add.Tensor, layer.weight, noise, before=layer))


@pytest.mark.parametrize("wrong", [_Infinite, _InPlace, _Random])
def test_the_contract_rejects_wrong_passes(wrong, tmp_path):
    graph = attention()
    with pytest.raises((AssertionError, RuntimeError)):
        contract.applied(graph, [wrong()], items(graph, 2), tmp_path)


def test_the_contract_rejects_a_graph_that_cannot_learn():
    graph = attention()
    frozen = {name: tensor.detach() for name, tensor in graph.tensors.items()}
    with pytest.raises((AssertionError, ValueError)):
        contract.trains(graph.replace(tensors=frozen))


def test_the_contract_rejects_other_codes_in_the_artifact(monkeypatch):
    small = Quantize("int8", where="linear")(attention())
    contract.builds(small)
    codes = contract._codes(small)
    monkeypatch.setattr(contract, "_codes", lambda _: [codes[0] + 1])
    with pytest.raises(AssertionError, match="codes differ"):
        contract.builds(small)
