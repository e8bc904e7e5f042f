"""Low rank: a layer becomes a chain of thinner layers, with fewer numbers and fewer multiplications."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from planish.compress.decompose import Choice, Kind, Ranks, candidates, chain, least_loss, losses, sizes
from planish.compress.factors import root
from planish.compress.moments import moments
from planish.compress.sites import free_name, replace_tensor, roles, weight_name, weighted
from planish.compress.sweep import Read, sweep
from planish.errors import DataError, OptionError
from planish.graph import FAMILIES, Data, Editor, Graph, Node, Pass, Progress, Selector, Step, parse_selector
from planish.graph.shapes import hint

Norm = Literal["svd", "whitened"]
Cost = Literal["parameters", "macs"]
ENDINGS = {2: ("__a", "__b"), 3: ("__a", "__core", "__b")}
aten = torch.ops.aten


@dataclass(frozen=True)
class Factorize(Pass):
    """Replace layers by chains of thinner ones: `linear(x, w)` becomes `linear(linear(x, a), b)`.

    Layers that no rank makes cheaper stay as they are. Put it before Quantize and Prune, which then take the thin
    layers; those of a layer `fc` are named `fc.weight__a` and `fc.weight__b`.

    Attributes:
        rank: Rank of every layer (of a "tucker" layer both ranks).
        energy: Each layer gets the least rank that keeps this share of its squared output (of its squared weight where
            `by` is "svd", and for "tucker" and "cp").
        share: Each layer keeps at most this share of its cost.
        budget: All layers together keep at most this share of their cost; ranks are chosen so that the sum of the
            layers' relative squared errors is the least, spending on whatever mends most for its cost.
        cost: What `share` and `budget` count: "parameters", or "macs" at the sizes of the example inputs.
        by: "svd" keeps most of the weight; "whitened" keeps most of the output on calibration data (SVD-LLM, arXiv
            2403.07378, section 3.1), layers in order, each on the inputs that the thinner layers before it give.
        convolution: How kernels of more than one position are taken apart: "tucker" (arXiv 1511.06530), "cp" (arXiv
            1412.6553), or "svd": a kernel to fewer channels, then a product, by the norm of `by`.
        where: The layers: linear ones, and convolutions in one group.
    """

    rank: int | None = None
    energy: float | None = None
    share: float | None = None
    budget: float | None = None
    cost: Cost = "parameters"
    by: Norm = "whitened"
    convolution: Kind = "tucker"
    where: Selector | str = "linear | conv"

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))
        goals = {name: getattr(self, name) for name in ("rank", "energy", "share", "budget")}
        given = {name: goal for name, goal in goals.items() if goal is not None}
        if len(given) != 1:
            raise OptionError("a factorization has one goal", "rank, energy, share, budget", "budget=0.5")
        if self.rank is not None and self.rank < 1:
            raise OptionError(f"a factor has rank 1 or more, not {self.rank}", "rank", "rank=16")
        (name, goal), *_ = given.items()
        if name != "rank" and not 0 < goal < 1:
            raise OptionError(f"a share lies between 0 and 1, {goal} does not", name, f"{name}=0.5")
        for name, known in (("cost", Cost), ("by", Norm), ("convolution", Kind)):
            if getattr(self, name) not in get_args(known):
                raise OptionError(
                    f"unknown {name} {getattr(self, name)!r}", name, f"one of {', '.join(get_args(known))}"
                )

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each layer, with its rank where that does not depend on its numbers."""
        known = self._even(graph) if self.rank or self.share else {}
        steps = []
        for node in self._layers(graph):
            name, kind = weight_name(node).rpartition(".")[2], self._kind(node)
            if not known:
                steps.append(Step(node.path, node.name, f"{name} factorized ({kind})"))
            elif ranks := known.get(node.name):
                shape = _shape(node)
                after = sum(map(math.prod, sizes(kind, shape, ranks)))
                action = f"{name} to {kind} of rank {' × '.join(map(str, ranks))}"
                steps.append(Step(node.path, node.name, action, 4 * math.prod(shape), 4 * after))
        return steps

    def draft(self, graph: Graph) -> Graph:
        """With factors of zeros; where ranks follow from numbers, each layer at an even share."""
        return self._chained(graph, self._even(graph))[0]

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The factorized graph."""
        ranks = self._even(graph) if self.rank or self.share else self._chosen(graph, data, progress)
        result, places = self._chained(graph, ranks)
        exact = {name: _weight(graph.node(name)) for name in ranks}
        kinds: dict[str, Kind] = {name: self._kind(graph.node(name)) for name in ranks}
        starts = {names[0]: name for name, names in places.items()}
        done = 0

        def settle(name: str, scale: Tensor | None) -> None:
            nonlocal done
            progress(done, len(places), name)
            done += 1
            for target, part in zip(places[name][1:], chain(kinds[name], exact[name], ranks[name], scale), strict=True):
                old = result.tensors[target]
                replace_tensor(result, target, part.reshape(old.shape).to(old.dtype).contiguous())

        def visit(node: Node, read: Read) -> None:
            settle(starts[node.name], _scale(node, read))

        wanted = [first for first, name in starts.items() if self._calibrated(kinds[name])]
        for first, name in starts.items():
            if first not in wanted:
                settle(name, None)
        if wanted:
            sweep(result, data, visit, wanted, "Factorize")
        progress(len(places), len(places), "")
        return result

    def _layers(self, graph: Graph) -> list[Node]:
        nodes = [node for node in weighted(graph, self.where) if _takes(node)]
        found = [node for node in nodes if candidates(self._kind(node), _shape(node))]
        if not found:
            raise OptionError(
                f"the selector {str(self.where)!r} matches no linear layer or convolution with a plain weight",
                "where",
                "put Factorize before Quantize and Prune, behind Merge",
            )
        return found

    def _kind(self, node: Node) -> Kind:
        return self.convolution if math.prod(_shape(node)[2:]) > 1 else "svd"

    def _calibrated(self, kind: Kind) -> bool:
        return self.by == "whitened" and kind == "svd"

    def _even(self, graph: Graph) -> dict[str, Ranks]:
        """The ranks that follow from the rank or share asked for; a budget spread evenly; half, for an energy."""
        share = self.share or self.budget or 0.5
        found: dict[str, Ranks] = {}
        for node in self._layers(graph):
            kind, shape = self._kind(node), _shape(node)
            if self.rank is not None:
                every = (min(self.rank, shape[0]), min(self.rank, shape[1])) if kind == "tucker" else (self.rank,)
                fits = [every] if sum(map(math.prod, sizes(kind, shape, every))) < math.prod(shape) else []
            else:
                most = share * self._cost(node, [shape])
                fits = [r for r in candidates(kind, shape) if self._cost(node, sizes(kind, shape, r)) <= most]
            if fits:
                found[node.name] = fits[0]
        if not found:
            raise OptionError("no layer is thin enough at this rank to be worth it", "rank, share", "a lower rank")
        return found

    def _cost(self, node: Node, chained: list[tuple[int, ...]]) -> float:
        """Of a chain in place of a layer; where it moves the kernel, what is before it works at the input's size."""
        if self.cost == "parameters":
            return sum(map(math.prod, chained))
        before, after = (_positions(value, node) for value in (node.input, node))
        place = max(range(len(chained)), key=lambda place: math.prod(chained[place][2:]))
        return sum(math.prod(size) * (before if step < place else after) for step, size in enumerate(chained))

    def _chosen(self, graph: Graph, data: Data | None, progress: Progress) -> dict[str, Ranks]:
        layers = {node.name: node for node in self._layers(graph)}
        choices: dict[str, list[Choice]] = {}

        def weigh(node: Node, scale: Tensor | None) -> None:
            progress(len(choices), 2 * len(layers), f"spectrum of {node.path}")
            kind, shape = self._kind(node), _shape(node)
            ranks = candidates(kind, shape)
            found = zip(ranks, losses(kind, _weight(node), ranks, scale), strict=True)
            cost = self._cost(node, [shape])
            thin = [Choice(each, self._cost(node, sizes(kind, shape, each)), loss) for each, loss in found]
            choices[node.name] = [Choice((), cost, 0.0), *(choice for choice in thin if choice.cost < cost)]

        wanted = [name for name, node in layers.items() if self._calibrated(self._kind(node))]
        if wanted:
            sweep(graph, data, lambda node, read: weigh(node, _scale(node, read)), wanted, "Factorize")
        for name, node in layers.items():
            if name not in wanted:
                weigh(node, None)
        if self.energy is not None:
            least = 1 - self.energy
            best = {
                name: min((c for c in found if c.loss <= least), key=lambda c: c.cost)
                for name, found in choices.items()
            }
        else:
            assert self.budget is not None
            best = least_loss(choices, self.budget * sum(found[0].cost for found in choices.values()))
        ranks = {name: choice.ranks for name, choice in best.items() if choice.ranks}
        if not ranks:
            raise OptionError("no layer keeps as much at a rank that is worth it", "energy", "a lower energy")
        return ranks

    def _chained(self, graph: Graph, ranks: Mapping[str, Ranks]) -> tuple[Graph, dict[str, list[str]]]:
        """The graph with chains of zeros, and for each layer the name of its first link and those of the tensors."""
        edit, places = graph.edit(), {}
        for name, each in ranks.items():
            node = edit.node(name)
            places[name] = _chain(edit, node, self._kind(node), each)
        return edit.done(), places


def _chain(edit: Editor, node: Node, kind: Kind, ranks: Ranks) -> list[str]:
    shape, linear = _shape(node), node.op in FAMILIES["linear"]
    planned = sizes(kind, shape, ranks)
    endings = ENDINGS[len(planned)]
    stem, dtype = free_name(edit.graph.tensors, weight_name(node), endings), node.value.dtype
    parts = [
        edit.add(stem + end, torch.zeros(size, dtype=dtype), True) for end, size in zip(endings, planned, strict=True)
    ]
    kernel = max(range(len(parts)), key=lambda place: math.prod(planned[place][2:]))
    value, first = node.input, None
    for place, part in enumerate(parts):
        bias = node.bias if place == len(parts) - 1 else None
        if linear:
            value = edit.call(aten.linear.default, value, part, bias, before=node)
        elif place == kernel:
            options = [node.argument(name) for name in ("stride", "padding", "dilation")]
            groups = ranks[0] if kind == "cp" else 1
            value = edit.call(node.target, value, part, bias, *options, groups, before=node)
        else:
            value = edit.call(_plain(node), value, part, bias, before=node)
        first = first or value
    assert value is not None
    assert first is not None
    edit.replace(node, value)
    return [first.name, *(str(part.target) for part in parts)]


def _plain(node: Node) -> Callable[..., Tensor]:
    """The convolution of the same number of axes whose padding is given in numbers."""
    return {"conv1d": aten.conv1d.default, "conv2d": aten.conv2d.default, "conv3d": aten.conv3d.default}[node.op]


def _takes(node: Node) -> bool:
    """Whether a layer has a plain weight that nothing else reads, in one group."""
    weight = node.weight
    if weight is None or weight.kind != "tensor" or weight.users != (node,) or not weight.value.is_floating_point():
        return False
    if sum(tensor is weight.tensor for tensor in node.graph.tensors.values()) > 1:
        return False
    if node.op == "addmm":
        return node.argument("beta") == 1 and node.argument("alpha") == 1
    return node.op == "linear" or (node.op in ("conv1d", "conv2d", "conv3d") and node.argument("groups") == 1)


def _shape(node: Node) -> tuple[int, ...]:
    """`(out, in, *kernel)`."""
    assert node.weight is not None
    shape = tuple(map(int, node.weight.value.shape))
    return shape[::-1] if roles(node).out_axis == 1 else shape


def _weight(node: Node) -> Tensor:
    assert node.weight is not None
    assert node.weight.tensor is not None
    held = node.weight.tensor.detach().double()
    return held.T if roles(node).out_axis == 1 else held


def _positions(node: Node | None, layer: Node) -> int:
    """Vectors of channels that a value holds at the example's sizes."""
    assert node is not None
    axis = 1 if layer.op in FAMILIES["conv"] and node.value.dim() > layer.weight.value.dim() - 1 else 0  # type: ignore[union-attr]
    if layer.op in FAMILIES["linear"]:
        axis = node.value.dim() - 1
    return math.prod(hint(size) for place, size in enumerate(node.value.shape) if place != axis)


def _scale(node: Node, read: Read) -> Tensor:
    assert node.input is not None
    known = moments(node, read(node.input))
    if not bool(torch.isfinite(known.gram).all()):
        raise DataError("an activation is NaN or infinite on the calibration data", node.path)
    return root(known.gram / known.count)
