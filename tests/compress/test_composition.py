"""Every ordered pair of techniques holds the contract, or is refused by the plan with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import pytest
import torch
from torch import nn

from planish.compress import (
    Adapt,
    Allocate,
    Attention,
    Balance,
    Cluster,
    Correct,
    Depth,
    Factorize,
    Heads,
    Permute,
    Prune,
    PruneStructured,
    Quantize,
    Replace,
    Rotate,
    Smooth,
    Width,
)
from planish.errors import OptionError
from planish.frontends import capture
from planish.graph import Data, Graph, Pass, Progress, Step
from planish.recipe import Recipe
from planish.rewrite import Merge
from planish.training import Distill, Gradual
from tests.compress import contract
from tests.compress.models import attention, items

LINEAR = "linear"
TECHNIQUES: dict[str, Pass] = {
    "w8": Quantize("int8", where=LINEAR),
    "w8a8": Quantize("int8", "uint8", where=LINEAR, by="gptq", correct_bias=True),
    "mxfp4": Quantize("mxfp4", where=LINEAR, by="gptq"),
    "smooth": Smooth(alpha=0.5),
    "permute": Permute(where=LINEAR, sweeps=2),
    "prune": Prune("50%", where=LINEAR),
    "sparsegpt": Prune("2:4", by="sparsegpt", where=LINEAR),
    "structured": PruneStructured(0.5, round_to=1),
    "layers": PruneStructured(0.25, units=("layers",), by="activation"),
    "correct": Correct(rank=2),
    "factorize": Factorize(share=0.5, where=LINEAR),
    "lora": Adapt(2),
    "dora": Adapt(2, "dora"),
    "rotate": Rotate(),
    "balance": Balance(block=8),
    "cluster": Cluster(16, where=LINEAR),
    "allocate": Allocate("6 bits", where=LINEAR),
    "gradual": Gradual(training=Distill(minutes=None, epochs=1)),
    "replace": Replace("silu", "gelu"),
    "mixer": Replace("linear", "linear & path('0.down')"),
    "width": Width(0.5),
    "heads": Heads(2),
    "depth": Depth(3),
    "attention": Attention("linear"),
    "merge": Merge(),
    "distill": Distill(minutes=None, epochs=1, where=LINEAR),
}


def refused(firsts: str, seconds: str, reason: str) -> dict[tuple[str, str], str]:
    return dict.fromkeys(product(firsts.split(), seconds.split()), reason)


COMPRESSED = "w8 w8a8 mxfp4 prune sparsegpt lora dora cluster allocate"
CODED = "w8 mxfp4 cluster allocate"
PLAIN = " ".join(TECHNIQUES.keys() - {"prune", "sparsegpt"})
UNCODED = " ".join(TECHNIQUES.keys() - {"w8", "w8a8", "mxfp4", "prune", "sparsegpt", "cluster", "allocate"})
UNADAPTED = " ".join(TECHNIQUES.keys() - {"lora", "dora"})
EVERY = " ".join(TECHNIQUES)
REFUSED = {
    **refused(f"{CODED} w8a8", "w8 mxfp4 cluster", "quantized already"),
    **refused(f"{CODED} w8a8", "allocate", "quantized already"),
    ("w8a8", "w8a8"): "quantized already",
    **refused(f"{CODED} w8a8 lora dora", "smooth", "not yet quantized"),
    **refused(COMPRESSED, "rotate", "whose input can be rotated"),
    **refused(COMPRESSED, "balance", "whose input can be balanced"),
    **refused(COMPRESSED, "permute", "whose input channels could change places"),
    ("permute", "heads"): "looks it up by number",
    **refused(COMPRESSED, "factorize", "with a plain weight"),
    **refused("prune sparsegpt factorize", "prune", "as sparse as 50% already"),
    ("sparsegpt", "sparsegpt"): "as sparse as 2:4 already",
    ("factorize", "sparsegpt"): "no whole runs of 4",
    ("layers", "layers"): "0.25 of 3 residual branches is none",
    ("depth", "layers"): "0.25 of 3 residual branches is none",
    **refused("dora", "structured width heads", "looks at all of it"),
    **refused("cluster", "structured width heads", "has parameters of another rank"),
    ("replace", "replace"): "matches nothing",
    ("attention", "attention"): "matches nothing",
    **refused(UNCODED, "correct", "no linear layer whose weight is compressed"),
    **refused(UNADAPTED, "merge", "no weight with an adapter"),
    **refused(PLAIN, "gradual", "no weight of the graph has a mask"),
    **refused("correct", EVERY, "no linear layer whose weight is compressed"),
    **refused("merge", EVERY, "no weight with an adapter"),
    **refused("gradual", EVERY, "no weight of the graph has a mask"),
}
"""Ordered pairs that make no sense, and what the plan says of them; of two reasons, the first step's."""


def name(pair: tuple[str, ...]) -> str:
    return "-".join(pair)


class Block(nn.Module):
    """Attention and a feed-forward layer, each added to what it reads."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.before(x)
        split = [p(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.query, self.key, self.value)]
        x = x + self.out(nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.between(x))))


@pytest.fixture(scope="module")
def graph() -> Graph:
    return blocks()


def blocks() -> Graph:
    torch.manual_seed(0)
    return capture(nn.Sequential(Block(), Block()).eval(), (torch.randn(2, 6, 32),), {"input": {0: "batch"}})


def refusal(graph: Graph, steps: list[Pass]) -> str | None:
    """What the plan says against these passes in this order."""
    try:
        Recipe(*steps).plan(graph)
    except OptionError as error:
        return f"{error.where}: {error.what}"
    return None


@pytest.mark.long
@pytest.mark.parametrize("pair", list(product(TECHNIQUES, TECHNIQUES)), ids=name)
def test_pairs_hold_the_contract(pair, graph, tmp_path):
    steps = [TECHNIQUES[each] for each in pair]
    if pair in REFUSED:
        told = refusal(graph, steps)
        assert told is not None, "the plan takes what is listed as refused"
        assert REFUSED[pair] in told
        return
    small = contract.applied(graph, steps, items(graph, 3), tmp_path)
    contract.builds(small)


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
