"""What each weight of a model is by now: its format, its zeros, its rank, and the bytes that storing it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import fx

from planish.graph import ROLES, Graph, Node
from planish.graph.evaluate import base_name_of, fold
from planish.graph.ops import base_name


@dataclass(frozen=True)
class Weight:
    """One weight, as the expression that it is.

    Attributes:
        name: The user's name of the tensor.
        path: Module path of the first layer that reads it so.
        shape: Of the weight that the layer sees.
        formats: Number formats in the expression, the last one first; empty for plain floating point.
        density: Share of the numbers that no mask sets to zero.
        rank: Rank of a low-rank term; 0 without one.
        nbytes: What storing it takes: codes and scales of the numbers that are left, masks as bits, and factors.
    """

    name: str
    path: str
    shape: tuple[int, ...]
    formats: tuple[str, ...]
    density: float
    rank: int
    nbytes: int

    @property
    def bits(self) -> float:
        """Stored bits for each number that the layer sees."""
        return 8 * self.nbytes / max(1, math.prod(self.shape))

    def __str__(self) -> str:
        said = [" of ".join(self.formats) or "float"]
        said += [f"{1 - self.density:.0%} zeros"] if self.density < 1 else []
        said += [f"rank {self.rank}"] if self.rank else []
        return ", ".join([*said, f"{self.bits:.3g} bits"])


def weights(graph: Graph) -> list[Weight]:
    """The weights of all layers in execution order, one that several layers read in the same way once."""
    found: dict[fx.Node, Weight] = {}
    for node in graph.nodes:
        top = node.weight
        if node.op not in ROLES or top is None or top.fx in found or not base_name_of(top.fx):
            continue
        known = _known(graph, top, node.path)
        if known is not None:
            found[top.fx] = known
    return list(found.values())


@dataclass(frozen=True)
class _Stored:
    """Bytes of an expression: those of its numbers, of which only `density` are kept, and those beside them."""

    numbers: float
    beside: float = 0
    density: float = 1
    rank: int = 0
    formats: tuple[str, ...] = ()

    @property
    def nbytes(self) -> float:
        return self.numbers * self.density + self.beside


def _known(graph: Graph, top: Node, path: str) -> Weight | None:
    value = top.value
    if not isinstance(value, torch.Tensor) or not _constant(top.fx):
        return None
    stored = _stored(graph, top.fx, set())
    name, shape = base_name_of(top.fx), tuple(int(size) for size in value.shape)
    return Weight(name, path, shape, stored.formats, stored.density, stored.rank, math.ceil(stored.nbytes))


def _constant(node: fx.Node) -> bool:
    if node.op == "call_function":
        return all(map(_constant, node.all_input_nodes))
    return node.op == "get_attr"


def _stored(graph: Graph, node: fx.Node, seen: set[fx.Node]) -> _Stored:
    """Of an expression; what stands in it twice, as in DoRA, is stored once."""
    found = _counted(graph, node, seen)
    if node in seen:
        return replace(found, numbers=0, beside=0)
    seen.add(node)
    return found


def _counted(graph: Graph, node: fx.Node, seen: set[fx.Node]) -> _Stored:
    if node.op == "get_attr":
        tensor = graph.tensors[str(node.target)]
        return _Stored(tensor.numel() * tensor.element_size())
    name = base_name(node.target)
    sources = [_stored(graph, source, seen) for source in node.all_input_nodes]
    first, others = sources[0], sources[1:]
    if name == "cast":
        form = Node(graph, node).format
        assert form is not None, "a cast has a format"
        codes = node.meta["val"].numel() * form.bits / 8
        scales = form.nbytes(tuple(node.meta["val"].shape)) - codes  # stay whole where a mask thins the codes
        return _Stored(codes, first.beside + scales, first.density, first.rank, (str(form), *first.formats))
    if name == "mul" and len(sources) == 2:
        for place, source in enumerate(node.all_input_nodes):
            kept = _density(graph, source, node)
            if kept is not None:
                masked = sources[1 - place]
                bits = node.meta["val"].numel() / 8
                density = min(masked.density, kept)
                return _Stored(masked.numbers, masked.beside + bits, density, masked.rank, masked.formats)
    if name in ("mm", "matmul") and len(sources) == 2:
        rank = int(node.all_input_nodes[0].meta["val"].shape[-1])
        low = rank < min(node.meta["val"].shape)
        inner = sum(source.nbytes for source in sources)
        return _Stored(inner, 0, 1, rank if low else max(s.rank for s in sources), _formats(sources))
    if not others:
        return first
    rank = max(source.rank for source in sources)
    if name in ("add", "sub"):
        return _Stored(0, sum(source.nbytes for source in sources), first.density, rank, _formats(sources))
    beside = first.beside + sum(source.nbytes for source in others)
    return _Stored(first.numbers, beside, first.density, rank, _formats(sources))


def _formats(sources: list[_Stored]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for source in sources for name in source.formats))


def _density(graph: Graph, source: fx.Node, user: fx.Node) -> float | None:
    """The share of ones of a mask; None for anything else."""
    if base_name_of(source) or source.meta["val"].shape != user.meta["val"].shape:
        return None
    value = fold(graph, source)
    if value is None:
        return None
    ones = int((value == 1).sum())
    return ones / max(1, value.numel()) if ones + int((value == 0).sum()) == value.numel() else None
