"""What points have in common is computed once: steps of recipes, and layers of graphs.

Two graphs that begin alike compute alike until they differ. A value is known by its operation and the values it was
made of, a tensor by its contents, so that a layer whose weight, format and input are as before is not run again.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as pytree

from planish.automl.filling import Filled
from planish.graph import Graph, Node
from planish.recipe import Kept

ROOM = 1 << 30
"""Bytes of values that are remembered."""
GRAPHS = 64
"""Graphs after a step that are remembered."""

CALM = ("dropout", "feature_dropout", "scaled_dot_product_attention", "lstm", "gru", "rrelu")
"""Operations that are random in training only; a graph runs in evaluation mode."""


class Shared:
    """The memory of a search.

    Args:
        room: Bytes of layer outputs to remember; the oldest unused go first.

    Attributes:
        hits: Values that were not computed again.
        misses: Those that were computed.
    """

    def __init__(self, room: int = ROOM) -> None:
        self.room, self.held = room, 0
        self.hits = self.misses = 0
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._graphs: OrderedDict[Hashable, Graph] = OrderedDict()
        self._tensors: dict[int, tuple[weakref.ref[Tensor], int, str]] = {}

    def prefixes(self, filled: Filled) -> Kept:
        """The graphs after each step of the recipe, as far as an earlier point had the same."""
        return _Prefixes(self, filled)

    def runnable(self, graph: Graph) -> Callable[..., Any]:
        """The graph, called like the model; what an earlier call of a graph computed is not computed again."""
        return _Runnable(self, graph)

    def digest(self, value: Any) -> Hashable:
        """What tells a value apart: of a tensor its contents, of anything else its text."""
        if not isinstance(value, Tensor):
            return repr(value)
        known = self._tensors.get(id(value))
        if known is not None and known[0]() is value and known[1] == value._version:
            return known[2]
        flat = value.detach().cpu().contiguous().reshape(-1)
        numbers = flat.view(torch.uint8).numpy().data if flat.numel() else b""
        found = hashlib.blake2b(numbers, digest_size=16, key=f"{value.dtype}{tuple(value.shape)}".encode()[:64])
        self._tensors[id(value)] = (weakref.ref(value), value._version, found.hexdigest())
        if len(self._tensors) > 100_000:
            self._tensors = {key: kept for key, kept in self._tensors.items() if kept[0]() is not None}
        return found.hexdigest()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def __getitem__(self, key: Hashable) -> Any:
        self.hits += 1
        self._values.move_to_end(key)
        return self._values[key]

    def computed(self, key: Hashable, value: Any) -> Any:
        """Remember a value that had to be computed."""
        self.misses += 1
        self._values[key] = value
        self.held += _bytes(value)
        while self.held > self.room and len(self._values) > 1:
            self.held -= _bytes(self._values.popitem(last=False)[1])
        return value

    def graph(self, key: Hashable) -> Graph | None:
        """The graph that was kept under a key."""
        if key in self._graphs:
            self._graphs.move_to_end(key)
        return self._graphs.get(key)

    def keep(self, key: Hashable, graph: Graph) -> None:
        """Keep a graph; the oldest unused goes."""
        self._graphs[key] = graph
        while len(self._graphs) > GRAPHS:
            self._graphs.popitem(last=False)


class _Prefixes:
    """`Kept` by the text of the steps so far. A graph that still learns at random is as its seed makes it."""

    def __init__(self, shared: Shared, filled: Filled) -> None:
        tables = filled.recipe.to_data()["step"]
        start = (filled.made_by, id(filled.graph))
        self._shared = shared
        self._keys = [(start, json.dumps(tables[: place + 1])) for place in range(len(tables))]

    def has(self, place: int) -> bool:
        return self._shared.graph(self._keys[place]) is not None

    def load(self, place: int) -> Graph:
        graph = self._shared.graph(self._keys[place])
        assert graph is not None
        return graph

    def save(self, place: int, graph: Graph) -> None:
        self._shared.keep(self._keys[place], graph)


class _Runnable:
    def __init__(self, shared: Shared, graph: Graph) -> None:
        self._shared, self._graph = shared, graph

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._graph.branches:
            return self._graph(*args, **kwargs)
        walk = _Walk(self._shared, self._graph, fx_pytree.tree_flatten_spec((args, kwargs), self._graph.in_spec))
        with torch.no_grad():
            return walk.outputs()


class _Walk:
    """One call of a graph: first the key of each value, then the values that are not known."""

    def __init__(self, shared: Shared, graph: Graph, inputs: list[Any]) -> None:
        self.shared, self.graph = shared, graph
        self.keys: dict[fx.Node, Hashable] = {}
        self.known: dict[fx.Node, Any] = {}
        self.reads: dict[fx.Node, tuple[Any, Any]] = {}  # arguments, with what operations in place made of them
        self._made_of: dict[fx.Node, fx.Node] = {}
        given = iter(inputs)
        for node in graph.fx.nodes:
            if node.op in ("placeholder", "get_attr"):
                value = next(given) if node.op == "placeholder" else graph.tensors[str(node.target)]
                self.known[node], self.keys[node] = value, shared.digest(value)
            elif node.op == "call_function":
                self.reads[node] = fx.map_arg((node.args, dict(node.kwargs)), self._latest)
                self.keys[node] = self._key(node)
                if _is_mutable(node):
                    self._made_of[node.all_input_nodes[0]] = node

    def outputs(self) -> Any:
        """The outputs in the model's own structure."""
        found = fx.map_arg(self.graph.fx.output_node().args[0], lambda node: self._value(self._latest(node)))
        return pytree.tree_unflatten(pytree.tree_leaves(found, is_leaf=lambda leaf: leaf is None), self.graph.out_spec)

    def _latest(self, node: fx.Node) -> fx.Node:
        while node in self._made_of:
            node = self._made_of[node]
        return node

    def _key(self, node: fx.Node) -> Hashable:
        seeded = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if seeded and Node(self.graph, node).op not in CALM:
            return object()
        told = fx.map_arg(self.reads[node], lambda source: repr(self.keys[source]))
        return hashlib.blake2b(f"{node.target} {told}".encode(), digest_size=16).digest()

    def _value(self, last: fx.Node) -> Any:
        """A value; what it needs is computed first, without recursion."""
        waiting = [last]
        while waiting:
            node = waiting[-1]
            if node in self.known or self.keys[node] in self.shared:
                waiting.pop()
                if node not in self.known:
                    self.known[node] = self.shared[self.keys[node]]
                continue
            missing = [each for each in _nodes(self.reads[node]) if each not in self.known]
            if missing:
                waiting += missing
                continue
            args, kwargs = fx.map_arg(self.reads[node], self.known.__getitem__)
            if _is_mutable(node):
                args = (args[0].clone(), *args[1:])
            self.known[node] = self.shared.computed(self.keys[node], node.target(*args, **kwargs))  # type: ignore[operator]
        return self.known[last]


def _is_mutable(node: fx.Node) -> bool:
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def _nodes(arguments: Any) -> list[fx.Node]:
    return [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, fx.Node)]


def _bytes(value: Any) -> int:
    tensors = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
