"""The options of each decision put into a graph, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from planish.automl.supernet.slots import Site
from planish.errors import GraphError
from planish.graph.ops import base_name


class Mixed(nn.Module):
    """The options at one place.

    Args:
        slot: Number of the decision.
        options: A module for each option.
        reads: For each of them which of the values that come in it is called with.
    """

    def __init__(self, slot: int, options: Sequence[nn.Module], reads: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.slot, self.reads = slot, tuple(reads)
        self.options = nn.ModuleList(options)


@dataclass
class Weaver:
    """Puts `Mixed` modules into a graph.

    Attributes:
        net: Whose graph is changed; the modules become its own.
    """

    net: fx.GraphModule

    def __post_init__(self) -> None:
        self._nodes = {node.name: node for node in self.net.graph.nodes}
        self._now: dict[tuple[str, str], fx.Node] = {}
        self._stand_ins: dict[str, list[fx.Node]] = {}
        self._count = 0

    def weave(self, site: Site) -> Mixed:
        """Let what reads a value read one of several."""
        names = dict.fromkeys(name for each in site.options if each is not None for name in each.inputs)
        others = [name for name in names if name != site.node]
        places = {name: place for place, name in enumerate([site.node, *others])}
        module = Mixed(
            site.slot,
            [nn.Identity() if each is None else each.module for each in site.options],
            [(0,) if each is None else tuple(places[name] for name in each.inputs) for each in site.options],
        )
        target, self._count = f"mixed_{self._count}", self._count + 1
        self.net.add_submodule(target, module)
        given = [self._read(name, site.node) for name in others]
        if not site.readers:
            now = self._read(site.node, "")
            mixed = self._call(target, now, given, site.node)
            now.replace_all_uses_with(mixed, delete_user_cb=lambda user: user is not mixed)
            self._now[site.node, ""] = mixed
            return module
        mixes: dict[fx.Node, fx.Node] = {}  # readers of one value may read it through different decisions by now
        for reader in site.readers:
            now = self._read(site.node, reader)
            if now not in mixes:
                mixes[now] = self._call(target, now, given, site.node)
            for each in (self._nodes[reader], *self._stand_ins.get(reader, ())):
                each.replace_input_with(now, mixes[now])
            self._now[site.node, reader] = mixes[now]
        return module

    def _read(self, name: str, reader: str) -> fx.Node:
        """What an operation reads where it read the value of that name at first."""
        return self._now.get((name, reader)) or self._now.get((name, "")) or self._nodes[name]

    def _call(self, target: str, now: fx.Node, given: Sequence[fx.Node], node: str) -> fx.Node:
        graph = self.net.graph
        order = {each: place for place, each in enumerate(graph.nodes)}
        with graph.inserting_after(max((now, *given), key=order.__getitem__)):
            mixed = graph.call_module(target, (now, *given))
        self._stand_ins.setdefault(node, []).append(mixed)
        return mixed


def functional(graph: fx.Graph) -> None:
    """Let every operation that writes into its first operand give a new value instead: values may be kept.

    Raises:
        GraphError: It writes into a part of another value.
    """
    for node in [node for node in graph.nodes if node.op == "call_function"]:
        schema = getattr(node.target, "_schema", None)
        if schema is None or not schema.is_mutable or not node.users:
            continue
        name, first = base_name(node.target), node.args[0]
        packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
        overload = getattr(packet, str(node.target).rpartition(".")[2], None)
        if overload is None or not isinstance(first, fx.Node) or _is_view(first):
            raise GraphError(f"{name} writes into a value, and has no form that does not", node.name)
        node.target = overload
        order = {each: place for place, each in enumerate(graph.nodes)}
        for user in [user for user in first.users if order[user] > order[node]]:
            user.replace_input_with(first, node)


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(each.alias_info and not each.alias_info.is_write for each in schema.arguments)
