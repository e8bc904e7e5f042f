"""What modules of the captured model give, and what a value depends on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from typing_extensions import override

from planish.errors import OptionError
from planish.graph import Graph, Node


def inside(graph: Graph, path: str) -> list[Node]:
    """The operations that came from a module, or from one within it."""
    return [node for node in graph.nodes if node.path == path or node.path.startswith(f"{path}.")]


def result(graph: Graph, path: str) -> Node:
    """The value that a module gives to the rest of the model.

    Raises:
        OptionError: No operation comes from such a module, or nobody reads what it gives.
    """
    nodes = inside(graph, path)
    own = {node.name for node in nodes}
    given = [node for node in nodes if any(user.name not in own for user in node.users)]
    if not given:
        known = sorted({node.path for node in graph.nodes if node.path})
        raise OptionError(f"the graph has no module {path!r}", "at", f"for example {', '.join(map(repr, known[:6]))}")
    return given[-1]


def siblings(graph: Graph, path: str) -> list[str]:
    """The modules of the list that a module stands in ("blocks.2": "blocks.0", "blocks.1"…), in order."""
    parent, _, number = path.rpartition(".")
    if not number.isdecimal():
        return []
    starts = (node.path.removeprefix(f"{parent}.").partition(".")[0] for node in inside(graph, parent))
    return [f"{parent}.{place}" for place in sorted({int(part) for part in starts if part.isdecimal()})]


def depending(on: Iterable[fx.Node], among: set[fx.Node]) -> set[fx.Node]:
    """Those among the nodes that are computed from any of these."""
    found = set(on)
    for node in next(iter(found)).graph.nodes:
        if node in among and not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found & among


class _Taps(fx.Interpreter):
    """Runs a graph and keeps some of its values."""

    def __init__(self, graph: Graph, wanted: Iterable[str]) -> None:
        super().__init__(graph._runnable)
        self.wanted, self.seen = set(wanted), dict[str, Tensor]()

    @override
    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.wanted:
            self.seen[n.name] = value
        return value


def values_of(
    graph: Graph, calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]], names: Iterable[str]
) -> Iterator[dict[str, Tensor]]:
    """The values of some nodes, by name, for one call after the other."""
    for args, kwargs in calls:
        taps = _Taps(graph, names)
        with torch.no_grad():
            taps.run(*graph.flat_inputs(args, kwargs), enable_io_processing=False)
        yield taps.seen
