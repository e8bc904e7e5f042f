"""Channels that go together: what may be taken out of a graph, and what may not and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from planish.analysis.dependency.dims import Dim, Keep, leaves, root, size_of
from planish.analysis.dependency.rules import RULES, default
from planish.analysis.dependency.trace import Product, Trace
from planish.graph import FAMILIES, ROLES, Graph, Node

Kind = Literal["channels", "neurons", "heads", "features"]


@dataclass(frozen=True)
class Place:
    """One axis of a stored tensor."""

    tensor: str
    axis: int


@dataclass(frozen=True, eq=False)
class Group:
    """Channels: index `i` of each of these axes goes, or stays, with index `i` of all others.

    Attributes:
        dim: The dimension itself.
        kind: "heads" of attention, "features" inside of its heads, "channels" of convolutions, or "neurons".
        places: The axes of stored tensors that hold it, perhaps as a factor or a part.
        makers: Names of the layers that have it as their output channels, in execution order.
        readers: Names of the layers that have it as their input channels.
        path: Module path of the first maker, or of the first operation that multiplies it.
    """

    dim: Dim
    kind: Kind
    places: tuple[Place, ...]
    makers: tuple[str, ...]
    readers: tuple[str, ...]
    path: str

    @property
    def size(self) -> int:
        """How many there are."""
        return self.dim.size

    @property
    def refusal(self) -> str:
        """Why none may go; "" if they may."""
        return self.dim.frozen

    def __str__(self) -> str:
        tail = f": kept, {self.refusal}" if self.refusal else ""
        return f"{self.size} {self.kind} of {self.path}{tail}"


@dataclass(frozen=True)
class Dependencies:
    """Which axes of a graph are the same channels.

    Attributes:
        graph: The graph.
        trace: The axes of every tensor in it.
        groups: All channels that some operation multiplies and sums, in execution order.
    """

    graph: Graph
    trace: Trace
    groups: tuple[Group, ...]

    @property
    def free(self) -> tuple[Group, ...]:
        """The groups that may lose channels."""
        return tuple(group for group in self.groups if not group.refusal)

    @property
    def refused(self) -> tuple[Group, ...]:
        """The groups that may not; each says why."""
        return tuple(group for group in self.groups if group.refusal)

    @cached_property
    def tensors(self) -> dict[str, tuple[Dim, ...]]:
        """The axes of every stored tensor that the graph reads, by name."""
        named = ((name, self.trace.tensors.get(id(tensor))) for name, tensor in self.graph.tensors.items())
        return {name: axes for name, axes in named if axes is not None}

    def parameters(self, keep: Keep) -> int:
        """How many numbers the parameters have afterwards; tied ones count once."""
        kept = {id(self.graph.tensors[name]): name for name in self.graph.parameter_names & self.tensors.keys()}
        return sum(_volume(self.tensors[name], keep) for name in kept.values())

    def shares(self, keep: Keep) -> dict[str, float]:
        """The share of its multiply-accumulates that each operation keeps, by name; others keep all."""
        before: dict[str, float] = {}
        after: dict[str, float] = {}
        for each in self.trace.products:
            before[each.node.name] = before.get(each.node.name, 0.0) + float(_volume(each.loops, {}))
            after[each.node.name] = after.get(each.node.name, 0.0) + float(_volume(each.loops, keep))
        return {name: after[name] / total if total else 1.0 for name, total in before.items()}

    def __str__(self) -> str:
        return "\n".join(map(str, self.groups))


def dependencies(graph: Graph) -> Dependencies:
    """Find which axes of which tensors are the same channels, by one walk over a graph.

    An axis may be a product or a concatenation of such channels (heads × features, query | key | value). Where an
    operation has no rule, or channels meet in a way that cannot be said so, they are held, with the reason; so are
    those that reach an input or output of the model.

    Args:
        graph: Any captured graph, its weights plain or expressions.
    """
    trace = Trace(graph).run(RULES, default)
    places, makers, readers = _places(trace), _layers(trace, "out_axis"), _layers(trace, "in_axis")
    first: dict[Dim, Product] = {}
    for each in trace.products:  # a layer's own loops also hold its kernel, which is no channel
        chosen = each.weighted and Node(graph, each.node).op not in ROLES and not trace.is_stored(each.node)
        for leaf in _leaves(each.loops):
            if chosen or leaf in makers or leaf in readers:
                first.setdefault(leaf, each)
    groups, heads = [], _heads(trace)
    for leaf, each in first.items():
        if leaf.size > 1 and any(place.tensor in graph.parameter_names for place in places.get(leaf, ())):
            made, read = makers.get(leaf, ()), readers.get(leaf, ())
            node = graph.node(made[0]) if made else Node(graph, each.node)
            kind = _kind(trace, leaf, heads, {*made, *read})
            groups.append(Group(leaf, kind, places[leaf], made, read, node.path or node.name))
    return Dependencies(graph, trace, tuple(groups))


def _places(trace: Trace) -> dict[Dim, tuple[Place, ...]]:
    found: dict[Dim, tuple[Place, ...]] = {}
    seen: set[int] = set()
    for name, tensor in trace.graph.tensors.items():
        if id(tensor) in trace.tensors and id(tensor) not in seen:
            seen.add(id(tensor))
            for axis, dim in enumerate(trace.tensors[id(tensor)]):
                for leaf in dict.fromkeys(leaves(dim)):
                    found[leaf] = (*found.get(leaf, ()), Place(name, axis))
    return found


def _layers(trace: Trace, role: str) -> dict[Dim, tuple[str, ...]]:
    """The layers that have a leaf on that axis of their weight."""
    found: dict[Dim, tuple[str, ...]] = {}
    for node in trace.graph.nodes:
        roles = ROLES.get(node.op)
        weight = node.weight
        if roles is None or weight is None or len(axes := trace.axes(weight.fx)) < 2:
            continue
        for leaf in dict.fromkeys(leaves(axes[getattr(roles, role)])):
            found[leaf] = (*found.get(leaf, ()), node.name)
    return found


def _kind(trace: Trace, leaf: Dim, heads: Collection[Dim], layers: Collection[str]) -> Kind:
    if leaf in heads:
        return "heads"
    for axes in trace.tensors.values():
        for found in (_leaves([dim]) for dim in axes):
            if leaf in found and any(head in found for head in heads):
                return "features"
    convolved = any(node.name in layers and node.op in FAMILIES["conv"] for node in trace.graph.nodes)
    return "channels" if convolved else "neurons"


def _heads(trace: Trace) -> Collection[Dim]:
    """What several separate products of activations run along."""
    between = [dim for each in trace.products if not each.weighted for dim in each.batch]
    return {leaf for leaf in _leaves(between) if not leaf.frozen or leaf.size > 1}


def _leaves(dims: Iterable[Dim]) -> dict[Dim, None]:
    return dict.fromkeys(leaf for dim in dims for leaf in leaves(dim))


def _volume(axes: tuple[Dim, ...], keep: Keep) -> int:
    volume = 1
    for dim in axes:
        volume *= size_of(root(dim), keep)
    return volume
