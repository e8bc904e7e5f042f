"""Adapters: thin factors that learn while the weight beside them stays, whatever expression it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from planish.compress.beside import add_product, by_weight, sizes
from planish.compress.sites import free_name, roles, weight_name, weight_of, weighted
from planish.errors import OptionError
from planish.graph import Data, Editor, Graph, Node, Pass, Progress, Selector, Step, parse_selector

Kind = Literal["lora", "dora"]
aten = torch.ops.aten


@dataclass(frozen=True)
class Adapt(Pass):
    """Add to a weight `E`, quantized or not, the product of two factors: `E + (b @ a) * alpha / rank`.

    `b` starts at zero, so the graph computes what it did. Only adapters learn: every other parameter of the graph is
    frozen until `planish.rewrite.Merge` takes the adapters in. Behind Quantize this is QLoRA (arXiv 2305.14314).

    Attributes:
        rank: Rank of each adapter.
        kind: "lora" (arXiv 2106.09685); "dora" (arXiv 2402.09353): the size of each output channel's weights is learned
            apart from their direction, whose norm counts as constant in the backward pass (section 4.3).
        alpha: The product is multiplied by `alpha / rank`.
        seed: Of the numbers that `a` starts from, uniform as in `torch.nn.Linear`.
        where: The layers: linear, convolution or embedding.
    """

    rank: int = 8
    kind: Kind = "lora"
    alpha: float = 16.0
    seed: int = 0
    where: Selector | str = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))
        if self.rank < 1:
            raise OptionError(f"an adapter has rank 1 or more, not {self.rank}", "rank", "rank=8")
        if self.alpha == 0:
            raise OptionError("an adapter that is multiplied by 0 cannot learn", "alpha", "alpha=16")
        if self.kind not in get_args(Kind):
            raise OptionError(f"unknown kind {self.kind!r}", "kind", f"one of {', '.join(get_args(Kind))}")

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each weight, with the numbers that learn."""
        steps = []
        for node, *_ in self._layers(graph):
            count = sum(map(math.prod, sizes(node, self.rank)))
            count += int(node.weight.value.shape[roles(node).out_axis]) if self.kind == "dora" else 0  # type: ignore[union-attr]
            name = weight_name(node).rpartition(".")[2]
            steps.append(
                Step(node.path, node.name, f"{name} plus {self.kind} of rank {self.rank}, {count:,} numbers learn")
            )
        return steps

    def draft(self, graph: Graph) -> Graph:
        """The adapted graph."""
        return self._adapted(graph)

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The adapted graph; its outputs are equal."""
        return self._adapted(graph)

    def _layers(self, graph: Graph) -> list[tuple[Node, ...]]:
        return by_weight(weighted(graph, self.where))

    def _adapted(self, graph: Graph) -> Graph:
        generator = torch.Generator().manual_seed(self.seed)
        groups, edit = self._layers(graph), _frozen(graph).edit()
        for layers in groups:
            self._wrap(edit, layers, generator)
        return edit.done()

    def _wrap(self, edit: Editor, layers: tuple[Node, ...], generator: torch.Generator) -> None:
        layer = edit.node(layers[0].name)
        weight, value = layer.weight, weight_of(layers[0])
        assert weight is not None
        tall, wide = sizes(layer, self.rank)
        stem = free_name(edit.graph.tensors, weight_name(layer), ["__a", "__b", "__m"])
        kind, bound = weight.value.dtype, 1 / math.sqrt(wide[1])
        start = (2 * torch.rand(wide, generator=generator) - 1) * bound
        b = edit.add(f"{stem}__b", torch.zeros(tall, dtype=kind), trainable=True)
        a = edit.add(f"{stem}__a", start.to(kind), trainable=True)
        total = add_product(edit, layers, b, a, self.alpha / self.rank)
        if self.kind == "lora":
            return
        assert value is not None
        out = roles(layer).out_axis
        axes = [axis for axis in range(value.dim()) if axis != out]
        size = torch.linalg.vector_norm(value.detach(), dim=axes, keepdim=True)
        learned = edit.add(f"{stem}__m", size, trainable=True)
        still = edit.call(aten.detach.default, total, before=layer)
        norm = edit.call(aten.linalg_vector_norm.default, still, 2, axes, True, before=layer)
        scale = edit.call(aten.div.Tensor, learned, norm, before=layer)
        turned = edit.call(aten.mul.Tensor, total, scale, before=layer)
        for reader in layers:
            edit.replace_input(edit.node(reader.name), total, turned)


def _frozen(graph: Graph) -> Graph:
    """The graph with parameters that do not learn, adapters of an earlier pass included."""
    still: dict[int, nn.Parameter] = {}
    tensors = dict(graph.tensors)
    for name, tensor in graph.tensors.items():
        if isinstance(tensor, nn.Parameter):
            tensors[name] = still.setdefault(id(tensor), nn.Parameter(tensor.detach(), requires_grad=False))
    return graph.replace(tensors=tensors)
