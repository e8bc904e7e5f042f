"""Multiply by a thin product beside a weight, rather than add it to the weight first."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from planish.formats import Int
from planish.graph import Data, Editor, Graph, Node, Pass, Progress, Selector, Step, parse_selector
from planish.graph.evaluate import base_name_of

aten = torch.ops.aten


@dataclass(frozen=True)
class Term:
    """`scale * b @ a` beside a weight, as it is stored."""

    b: Node
    a: Node
    scale: float


@dataclass(frozen=True)
class SplitLowRank(Pass):
    """`linear(x, E + b @ a)` becomes `linear(x, E) + linear(linear(x, a), b)`, where that is cheaper.

    It is where `E` is a cast to integers and the factors hold fewer numbers: an engine then multiplies the codes as
    they are. Any other sum is one dense matrix before the first input comes.

    Attributes:
        where: The linear layers.
    """

    where: Selector | str = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each layer that is split; none where nothing is."""
        return [
            Step(node.path, node.name, f"{len(terms)} thin product{'s' * (len(terms) > 1)} beside its codes")
            for node, _, terms in self._layers(graph)
        ]

    def draft(self, graph: Graph) -> Graph:
        """The split graph."""
        return self._split(graph)

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The split graph; `graph` itself where there is nothing to split."""
        return self._split(graph)

    def _layers(self, graph: Graph) -> list[tuple[Node, Node, list[Term]]]:
        nodes = [node for node in self.where.within(graph.nodes) if node.op in ("linear", "addmm")]  # type: ignore[union-attr]
        return [(node, *found) for node in nodes if (found := _terms(node)) is not None]

    def _split(self, graph: Graph) -> Graph:
        layers = self._layers(graph)
        if not layers:
            return graph
        edit = graph.edit()
        for node, weight, terms in layers:
            _split(edit, node, weight, terms)
        return edit.done()


def _terms(layer: Node) -> tuple[Node, list[Term]] | None:
    """The cast to integers below, and the thin products beside it; None where a layer is better left."""
    weight, terms = layer.weight, []
    while weight is not None and weight.op == "add" and len(weight.inputs) == 2 and weight.argument("alpha") == 1:
        inner, other = weight.inputs
        term = _term(other)
        if term is None or not base_name_of(inner.fx):
            return None
        terms.append(term)
        weight = inner
    if not terms or weight is None or weight.format is None or not isinstance(weight.format.element, Int):
        return None
    thin = sum(math.prod(map(int, part.value.shape)) for term in terms for part in (term.b, term.a))
    return (weight, terms) if thin < math.prod(map(int, weight.value.shape)) else None


def _term(node: Node) -> Term | None:
    scale = 1.0
    if node.op == "mul" and len(node.inputs) == 1 and isinstance(node.args[1], int | float):
        node, scale = node.inputs[0], float(node.args[1])
    if node.op not in ("matmul", "mm") or len(node.inputs) != 2:
        return None
    return Term(*node.inputs, scale)


def _split(edit: Editor, layer: Node, weight: Node, terms: list[Term]) -> None:
    node = edit.node(layer.name)
    args = [weight if argument == layer.weight else argument for argument in layer.args]
    total = edit.call(node.target, *args, before=node, **layer.kwargs)
    for term in terms:
        if layer.op == "linear":
            inner = edit.call(aten.linear.default, layer.input, term.a, before=node)
            thin = edit.call(aten.linear.default, inner, term.b, before=node)
        else:
            inner = edit.call(aten.matmul.default, layer.input, term.b, before=node)
            thin = edit.call(aten.matmul.default, inner, term.a, before=node)
        thin = thin if term.scale == 1 else edit.call(aten.mul.Tensor, thin, term.scale, before=node)
        total = edit.call(aten.add.Tensor, total, thin, before=node)
    edit.replace(node, total)
