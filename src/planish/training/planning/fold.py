"""Blocks that repeat: one block's decisions stand for those of all.

Two blocks are equal where they do the same operations on the same shapes in the same order, wired alike. Everything
between them stays: an edge from one block to the next is an edge from the block that stands for all to itself, counted
as often as it is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from planish.graph import Graph


@dataclass(frozen=True)
class Folded:
    """Which nodes stand for which.

    Attributes:
        stands: Node -> the node that stands for it, often itself.
        blocks: Paths of the repeated modules, in order, each in a group of its equals.
    """

    stands: Mapping[fx.Node, fx.Node]
    blocks: tuple[tuple[str, ...], ...]


def unfolded(graph: Graph) -> Folded:
    """Every node for itself."""
    return Folded({node: node for node in graph.fx.nodes}, ())


def fold(graph: Graph) -> Folded:
    """Find the blocks, the outermost numbered modules ("blocks.0", "blocks.1"), and fold those that are equal."""
    members: dict[str, list[fx.Node]] = {}
    for node in graph.fx.nodes:
        if (block := block_of(node)) is not None:
            members.setdefault(block, []).append(node)
    stands = {node: node for node in graph.fx.nodes}
    first: dict[Any, str] = {}
    groups: dict[str, list[str]] = {}
    for block, nodes in members.items():
        representative = first.setdefault((block.rpartition(".")[0], _signature(block, nodes)), block)
        groups.setdefault(representative, []).append(block)
        stands.update(zip(nodes, members[representative], strict=True))
    return Folded(stands, tuple(map(tuple, groups.values())))


def block_of(node: fx.Node) -> str | None:
    """The path of the outermost numbered module that a node, or a tensor, belongs to."""
    if node.op == "get_attr":
        path = str(node.target)
    else:
        stack = node.meta.get("nn_module_stack")
        path = next(reversed(stack.values()))[0] if stack else ""
    parts = path.split(".")
    number = next((index for index, part in enumerate(parts) if part.isdigit()), None)
    return ".".join(parts[: number + 1]) if number else None


def _signature(block: str, nodes: list[fx.Node]) -> Any:
    """Equal for blocks that are equal: operations, shapes, constants and how they are wired within the block."""
    inside = {node: index for index, node in enumerate(nodes)}
    outside: dict[fx.Node, int] = {}

    def name(node: fx.Node) -> str:
        return f"%{inside[node]}" if node in inside else f"^{outside.setdefault(node, len(outside))}"

    def line(node: fx.Node) -> tuple[Any, ...]:
        target = str(node.target).removeprefix(block)
        value = node.meta.get("val")
        shape = (tuple(map(str, value.shape)), value.dtype) if isinstance(value, torch.Tensor) else None
        return node.op, target, shape, str(fx.map_arg((node.args, dict(node.kwargs)), name))

    return tuple(map(line, nodes))
