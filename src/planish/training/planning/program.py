"""The integer program: of each operation one strategy, so that computing and moving take least time and memory
suffices.

One binary for each operation and strategy, and flows along the edges that say from which placement to which a tensor
goes (Alpa, arXiv 2201.12023, section 4). HiGHS solves it. Plans say which axis of each parameter is divided;
everything else follows from that, so a placement that no parameter brings about is no strategy here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import fx

from planish.analysis.cost import scaled
from planish.errors import EngineError, MissingExtra, OptionError
from planish.graph import Graph
from planish.training.planning.collectives import gather, reduce
from planish.training.planning.fold import Folded, fold
from planish.training.planning.operations import Operations
from planish.training.planning.steptime import Model
from planish.training.planning.strategies import PARTIAL, REPLICATED, Oracle, Strategy, call_of
from planish.training.planning.work import Product

try:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array
except ModuleNotFoundError as error:
    raise MissingExtra("scipy", "train", "planish plan") from error

STATE = 16
"""Bytes of a parameter with its gradient and AdamW's two moments."""
MICRO = 1e6


@dataclass(frozen=True)
class Edge:
    """A tensor on its way.

    Attributes:
        source: What makes it, or who stands for that.
        reader: What reads it.
        slot: As which of its inputs.
        times: How often there is such an edge.
    """

    source: fx.Node
    reader: fx.Node
    slot: int
    times: int


@dataclass(frozen=True)
class Solution:
    """What was chosen.

    Attributes:
        chosen: Strategy by node, for every node of the graph.
        seconds: Of the objective: computing and moving, forward and backward, of one microbatch.
        moved: Node -> bytes of its result that are reduced, forward, for one microbatch; a gather is half of a
            reduction.
        moved_backward: Node -> bytes of the gradient of its result, likewise.
        unknown: Operations that DTensor has no strategy for; each device does them all.
        scale: Bytes of one element of one sample in these figures.
    """

    chosen: Mapping[fx.Node, Strategy]
    seconds: float
    moved: Mapping[fx.Node, float]
    moved_backward: Mapping[fx.Node, float]
    unknown: tuple[fx.Node, ...]
    scale: float


class Program:
    """The program of one graph on one axis of tensor parallel devices.

    Args:
        operations: Of the graph.
        model: Of the step time, with `tp` devices.
        samples: Of a microbatch on each device.
        folded: Which blocks share their variables; None finds them.
    """

    def __init__(self, operations: Operations, model: Model, samples: float, folded: Folded | None = None) -> None:
        self.operations, self.model, self.samples = operations, model, samples
        self.graph: Graph = operations.graph
        self._parameters = self.graph.parameter_names
        self.folded = folded or fold(self.graph)
        self.oracle = Oracle(model.setting.tp)
        self._bytes = model.setting.width * samples
        self.sources: dict[fx.Node, tuple[fx.Node, ...]] = {}
        self.times: dict[fx.Node, int] = {}
        self.strategies: dict[fx.Node, tuple[Strategy, ...]] = {}
        self.unknown: list[fx.Node] = []
        for node in self.graph.fx.nodes:
            stands = self.folded.stands[node]
            self.times[stands] = self.times.get(stands, 0) + 1
        self._offer()

    def _offer(self) -> None:
        """Ask for the strategies of each node, given what can reach it.

        The first block's inputs differ from those of the blocks that follow it: what comes around is offered the
        second time.
        """
        for _ in range(2):
            self.unknown.clear()
            for node in self.graph.fx.nodes:
                if node is self.folded.stands[node]:
                    self.strategies[node] = self._of(node)

    def _of(self, node: fx.Node) -> tuple[Strategy, ...]:
        if node.op == "get_attr" and str(node.target) in self._parameters:
            return self.oracle.tensor(self.operations.shape(node))
        if node.op != "call_function":
            return (Strategy((), REPLICATED),)
        call, sources = call_of(node, self.operations.value)
        self.sources[node] = sources
        found = self.oracle.strategies(call, [self._reaching(node, slot) for slot in range(len(sources))])
        if found:
            return found
        self.unknown.append(node)
        return (Strategy((REPLICATED,) * len(sources), REPLICATED),)

    def _reaching(self, node: fx.Node, slot: int) -> tuple[str, ...]:
        """Placements in which a tensor can come in: as it was made, or gathered."""
        made = [
            strategy.output
            for edge in self.edges_into.get(node, ())
            if edge.slot == slot
            for strategy in self.strategies.get(edge.source, ())
        ]
        return tuple(dict.fromkeys([REPLICATED, *(name for name in made if name != PARTIAL)]))

    def fixed(self, axes: Mapping[str, int]) -> Program:
        """The same program with every parameter divided as it is said, or whole."""
        for node in self.strategies:
            if node.op == "get_attr" and str(node.target) in self._parameters:
                axis = axes.get(str(node.target))
                self.strategies[node] = (Strategy((), REPLICATED if axis is None else f"S{axis}"),)
        return self

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """All edges between nodes that stand for themselves."""
        found: dict[tuple[fx.Node, fx.Node, int], int] = {}
        for node in self.graph.fx.nodes:
            if node.op == "call_function":
                _, sources = call_of(node, self.operations.value)
                for slot, source in enumerate(sources):
                    key = self.folded.stands[source], self.folded.stands[node], slot
                    found[key] = found.get(key, 0) + 1
        return tuple(Edge(*key, times) for key, times in found.items())

    @cached_property
    def edges_into(self) -> Mapping[fx.Node, list[Edge]]:
        """Edges by who reads them."""
        found: dict[fx.Node, list[Edge]] = {}
        for edge in self.edges:
            found.setdefault(edge.reader, []).append(edge)
        return found

    def seconds(self, node: fx.Node, strategy: Strategy) -> float:
        """Computing an operation forward and backward by a strategy."""
        if node.op != "call_function":
            return 0.0
        operation = self.operations[node]
        if operation.product:
            return 3 * self.model.product(divided(operation.product, strategy), self.samples)
        share = self.model.setting.tp if strategy.is_divided else 1
        return 3 * self.model.elementwise(self.samples * operation.traffic / share)

    def gathered(self, source: fx.Node, before: str, after: str) -> float:
        """Moving a tensor from one placement to another, forward, and its gradient backward."""
        if before == after:
            return 0.0
        size = self._size(source)
        group, hardware, fitted = self.model.tensor, self.model.hardware, self.model.fitted
        return reduce(group, size, hardware, fitted) if before == PARTIAL else gather(group, size, hardware, fitted)

    def _size(self, node: fx.Node) -> float:
        if node.op == "get_attr":
            return self.operations.elements(node) * self.operations.samples * self.model.setting.width
        return self.operations.elements(node) * self._bytes

    def _has_gradient(self, node: fx.Node) -> bool:
        value = node.meta.get("val")
        while isinstance(value, list | tuple) and value:
            value = value[0]
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return False
        return node.op == "call_function" or str(node.target) in self._parameters

    def solve(self, memory: float | None = None, share: int = 1) -> Solution:
        """Solve it.

        Args:
            memory: Bytes that parameters with their gradients and moments may take on a device; None does not ask.
            share: Devices over which those are sharded besides (fsdp).

        Raises:
            OptionError: Nothing fits into the memory; says by how much.
        """
        nodes = list(self.strategies)
        start: dict[fx.Node, int] = {}
        cost: list[float] = []
        for node in nodes:
            start[node] = len(cost)
            cost += [self.times[node] * self.seconds(node, strategy) for strategy in self.strategies[node]]
        binaries = len(cost)
        rows: list[tuple[dict[int, float], float, float]] = []
        for node in nodes:
            count = len(self.strategies[node])
            rows.append(({start[node] + index: 1.0 for index in range(count)}, 1.0, 1.0))
        summed: dict[fx.Node, int] = {}
        for edge in self.edges:
            self._flow(edge, start, cost, rows)
            if self._has_gradient(edge.source):
                self._gradient(edge, start, cost, rows, summed)
        for output in self.graph.fx.output_node().all_input_nodes:
            stands = self.folded.stands[output]
            for index, strategy in enumerate(self.strategies[stands]):
                cost[start[stands] + index] += self.gathered(stands, strategy.output, REPLICATED)
        if memory is not None:
            rows.append((self._state(nodes, start, share), -np.inf, memory))
        return self._read(self._run(cost, rows, binaries, memory), nodes, start)

    def _state(self, nodes: Sequence[fx.Node], start: Mapping[fx.Node, int], share: int) -> dict[int, float]:
        """Bytes of state by variable."""
        row: dict[int, float] = {}
        for node in nodes:
            if node.op == "get_attr" and str(node.target) in self._parameters:
                whole = self.times[node] * STATE * self.operations.elements(node) * self.operations.samples / share
                for index, strategy in enumerate(self.strategies[node]):
                    row[start[node] + index] = whole / (1 if strategy.output == REPLICATED else self.model.setting.tp)
        return row

    def _flow(
        self,
        edge: Edge,
        start: Mapping[fx.Node, int],
        cost: list[float],
        rows: list[tuple[dict[int, float], float, float]],
    ) -> None:
        """Variables of an edge: how much goes from each placement to each; both ends agree with what was chosen."""
        made, read = self.strategies[edge.source], self.strategies[edge.reader]
        outputs = tuple(dict.fromkeys(strategy.output for strategy in made))
        inputs = tuple(dict.fromkeys(strategy.inputs[edge.slot] for strategy in read))
        pairs = [(a, b) for a in outputs for b in inputs if (a == b and a != PARTIAL) or (b == REPLICATED and a != b)]
        first = len(cost)
        cost += [edge.times * self.gathered(edge.source, a, b) * (1 if a == PARTIAL else 2) for a, b in pairs]
        for name in outputs:
            row = {first + i: 1.0 for i, (a, _) in enumerate(pairs) if a == name}
            row.update({start[edge.source] + i: -1.0 for i, each in enumerate(made) if each.output == name})
            rows.append((row, 0.0, 0.0))
        for name in inputs:
            row = {first + i: 1.0 for i, (_, b) in enumerate(pairs) if b == name}
            for i, each in enumerate(read):
                if each.inputs[edge.slot] == name:
                    row[start[edge.reader] + i] = row.get(start[edge.reader] + i, 0.0) - 1.0
            rows.append((row, 0.0, 0.0))

    def _gradient(
        self,
        edge: Edge,
        start: Mapping[fx.Node, int],
        cost: list[float],
        rows: list[tuple[dict[int, float], float, float]],
        summed: dict[fx.Node, int],
    ) -> None:
        """A whole tensor that feeds divided work has a gradient in parts: they are summed once, whoever reads it."""
        parts = {
            start[edge.reader] + index: 1.0
            for index, strategy in enumerate(self.strategies[edge.reader])
            if _in_parts(edge.source, strategy, edge.slot)
        }
        if not parts:
            return
        if edge.source not in summed:
            summed[edge.source] = len(cost)
            cost.append(self.times[edge.source] * self.gathered(edge.source, PARTIAL, REPLICATED))
        rows.append(({**parts, summed[edge.source]: -1.0}, -np.inf, 0.0))

    def _run(
        self, cost: list[float], rows: list[tuple[dict[int, float], float, float]], binaries: int, memory: float | None
    ) -> np.ndarray:
        positions = [(r, c, v) for r, (row, _, _) in enumerate(rows) for c, v in row.items()]
        where_row, where_column, values = zip(*positions, strict=True)
        matrix = coo_array((values, (where_row, where_column)), shape=(len(rows), len(cost))).tocsr()
        low, high = (np.array([row[side] for row in rows]) for side in (1, 2))
        limits = LinearConstraint(matrix, low, high)  # type: ignore[arg-type]  # scipy's stubs know numbers only
        kinds = np.zeros(len(cost))
        kinds[:binaries] = 1
        result = milp(MICRO * np.array(cost), constraints=limits, integrality=kinds, bounds=Bounds(0, 1))
        if result.x is None and memory is not None:
            least = self._least(rows[-1][0])
            there = f"and there are {scaled(memory, 'B')}"
            what = f"parameters, gradients and moments need {scaled(least, 'B')} a device, {there}"
            raise OptionError(what, f"tp={self.model.setting.tp}", "more devices, or fsdp=")
        if result.x is None:
            raise EngineError(f"HiGHS found no plan: {result.message}", "planish.training.planning.program")
        return result.x

    def _least(self, state: Mapping[int, float]) -> float:
        """The least memory: every parameter divided that can be."""
        total, position = 0.0, 0
        for strategies in self.strategies.values():
            options = [state[position + i] for i in range(len(strategies)) if position + i in state]
            total += min(options, default=0.0)
            position += len(strategies)
        return total

    def _read(self, values: np.ndarray, nodes: Sequence[fx.Node], start: Mapping[fx.Node, int]) -> Solution:
        picked = {
            node: self.strategies[node][int(np.argmax(values[start[node] :][: len(self.strategies[node])]))]
            for node in nodes
        }
        chosen = {node: picked[stands] for node, stands in self.folded.stands.items() if stands in picked}
        return self.evaluate(chosen)

    def evaluate(self, chosen: Mapping[fx.Node, Strategy]) -> Solution:
        """What strategies for all nodes cost, edge by edge, without folding anything."""
        seconds = sum(self.seconds(node, strategy) for node, strategy in chosen.items())
        moved: dict[fx.Node, float] = {}
        back: dict[fx.Node, float] = {}
        summed: set[fx.Node] = set()
        for node, strategy in chosen.items():
            if node.op != "call_function":
                continue
            _, sources = call_of(node, self.operations.value)
            for slot, (source, wanted) in enumerate(zip(sources, strategy.inputs, strict=True)):
                made = chosen[source].output
                if made != wanted:
                    times = 1 if made == PARTIAL else 2  # what is gathered forward is scattered backward
                    seconds += self.gathered(source, made, wanted) * times
                    moved[source] = moved.get(source, 0.0) + self._size(source) / times
                    back[source] = back.get(source, 0.0) + self._size(source) * (times - 1) / times
                if _in_parts(source, strategy, slot) and self._has_gradient(source):
                    summed.add(source)
        seconds += sum(self.gathered(node, PARTIAL, REPLICATED) for node in summed)
        for node in summed:
            back[node] = back.get(node, 0.0) + self._size(node)
        for output in self.graph.fx.output_node().all_input_nodes:
            if chosen[output].output != REPLICATED:
                seconds += self.gathered(output, chosen[output].output, REPLICATED)
                moved[output] = moved.get(output, 0.0) + self._size(output) / 2
        return Solution(chosen, seconds, moved, back, tuple(self.unknown), self._bytes)


def _in_parts(source: fx.Node, strategy: Strategy, slot: int) -> bool:
    """Each device has a part of the gradient of this input. A bias that is added to parts of a sum has all of it."""
    if strategy.inputs[slot] != REPLICATED or strategy.output == REPLICATED:
        return False
    return strategy.output != PARTIAL or source.op == "call_function"


def divided(product: Product, strategy: Strategy) -> Product:
    """A product as a strategy divides it."""
    if not strategy.is_divided:
        return product
    if product.core:
        return replace(product, divided="count")
    return replace(product, divided="inner" if strategy.output == PARTIAL else "columns")
