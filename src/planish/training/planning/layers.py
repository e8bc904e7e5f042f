"""A graph as layers: its blocks, and what comes before, between and after them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import fx

from planish.graph import Graph
from planish.training.planning.fold import Folded, block_of
from planish.training.planning.operations import Operations
from planish.training.planning.program import Solution, divided
from planish.training.planning.strategies import REPLICATED, Strategy
from planish.training.planning.work import Layer, Product

WHOLE = Strategy((), REPLICATED)


@dataclass
class Unit:
    """The operations of one layer.

    Attributes:
        path: Module path of a block, or of the first module of what stands between blocks.
        is_block: It is one that repeats, or a child of a model without such: a stage may begin there.
        nodes: Its operations.
        parameters: Names of the parameters that it reads first.
    """

    path: str
    is_block: bool
    nodes: list[fx.Node] = field(default_factory=list)
    parameters: list[fx.Node] = field(default_factory=list)


def units(graph: Graph) -> list[Unit]:
    """The layers of a graph in the order in which they run."""
    has_blocks = any(block_of(node) for node in graph.fx.nodes)
    found: list[Unit] = []
    seen: dict[str, Unit] = {}
    first: dict[fx.Node, Unit] = {}
    names = graph.parameter_names
    for node in graph.fx.nodes:
        if node.op != "call_function":
            continue
        path = _path(node)
        block = block_of(node) if has_blocks else path.partition(".")[0] or None
        if block in seen:
            unit = seen[block]
        elif block:
            unit = seen[block] = Unit(block, True)
            found.append(unit)
        else:
            unit = found[-1] if found and (not found[-1].is_block or not path) else Unit(path or "(model)", False)
            if not found or unit is not found[-1]:
                found.append(unit)
        unit.path = path if unit.path == "(model)" and path else unit.path
        unit.nodes.append(node)
        for source in node.all_input_nodes:
            if source.op == "get_attr" and str(source.target) in names and source not in first:
                first[source] = unit
                unit.parameters.append(source)
    return found


def _path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack")
    return next(reversed(stack.values()))[0] if stack else ""


def layers(operations: Operations, parts: list[Unit], folded: Folded, solution: Solution | None) -> list[Layer]:
    """The work of each layer, as a solution divides it; None divides nothing."""
    alike = {path: group[0] for group in folded.blocks for path in group}
    known: dict[str, Layer] = {}
    found: list[Layer] = []
    for unit in parts:
        like = alike.get(unit.path, unit.path)
        if like not in known:
            known[like] = _layer(operations, unit, solution)
        copy = known[like]
        found.append(Layer(unit.path, *(getattr(copy, name) for name in _REST), like=like))
    return found


_REST = tuple(name for name in Layer.__dataclass_fields__ if name not in ("path", "like", "recompute"))


def _layer(operations: Operations, unit: Unit, solution: Solution | None) -> Layer:
    chosen: Mapping[fx.Node, Strategy] = solution.chosen if solution else {}

    def is_divided(node: fx.Node) -> bool:
        return chosen.get(node, WHOLE).output != REPLICATED

    products: list[Product] = []
    traffic = shared_traffic = 0.0
    for node in unit.nodes:
        operation = operations[node]
        strategy = chosen.get(node, WHOLE)
        if operation.product:
            products.append(divided(operation.product, strategy))
        elif strategy.is_divided:
            shared_traffic += operation.traffic
        else:
            traffic += operation.traffic
    saved = operations.saved(unit.nodes)
    sizes = {node: operations.elements(node) * operations.samples for node in unit.parameters}
    scale = solution.scale if solution else 1.0
    moved = [solution.moved[node] for node in unit.nodes if node in solution.moved] if solution else []
    back = [solution.moved_backward[node] for node in unit.nodes if node in solution.moved_backward] if solution else []
    return Layer(
        unit.path,
        tuple(products),
        traffic=traffic,
        shared_traffic=shared_traffic,
        saved=sum(size for node, size in saved.items() if not is_divided(node)),
        shared_saved=sum(size for node, size in saved.items() if is_divided(node)),
        output=operations[unit.nodes[-1]].output,
        reduced=sum(moved) / scale,
        reduced_backward=sum(back) / scale,
        meetings=len(moved),
        meetings_backward=len(back),
        operations=sum(1 for node in unit.nodes if operations[node].product or operations[node].traffic),
        parameters=sum(size for node, size in sizes.items() if not is_divided(node)),
        shared_parameters=sum(size for node, size in sizes.items() if is_divided(node)),
    )
