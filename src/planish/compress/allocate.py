"""Allocate: each layer the format that costs the model least, within a budget of bits, bytes, operations or time."""

# ruff: noqa: A001, A002  (`format` is the word for it everywhere else)

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_

from planish.analysis import analyze, peaks, roofline_time, sensitivity
from planish.compress.quantize import Quantize, Rounding
from planish.compress.sites import placed_on_weight, weight_of, weighted
from planish.compress.sweep import check_items
from planish.errors import MissingExtra, OptionError
from planish.formats import Format, Int, get
from planish.graph import Data, Graph, Node, Pass, Progress, Selector, Step, parse_selector, path

UNITS = {
    "bits": ("bits", 1.0), "b": ("bytes", 1.0), "kb": ("bytes", 1e3), "mb": ("bytes", 1e6), "gb": ("bytes", 1e9),
    "%": ("share", 0.01), "mbop": ("bit operations", 1e6), "gbop": ("bit operations", 1e9),
    "tbop": ("bit operations", 1e12), "us": ("seconds", 1e-6), "ms": ("seconds", 1e-3), "s": ("seconds", 1.0),
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """What one layer, with those that share its weight or its path, got.

    Attributes:
        path: Its module path, or its node's name where there is none.
        nodes: Names of the layers' operations.
        format: As it was given among the candidates.
        count: Numbers of the weight.
        nbytes: What they take, with their scales.
        loss: Noise-to-signal ratio of the model's outputs with this alone in the format.
        cost: In the budget's unit.
    """

    path: str
    nodes: tuple[str, ...]
    format: str
    count: int
    nbytes: int
    loss: float
    cost: float


@dataclass(frozen=True)
class Allocation:
    """A format for each layer; prints as a table.

    Attributes:
        choices: In execution order.
        limit: The budget, in `unit`.
        unit: "bytes", "bit operations" or "seconds"; a budget of bits is one of bytes.
    """

    choices: tuple[Choice, ...]
    limit: float
    unit: str

    @property
    def loss(self) -> float:
        """The predicted noise-to-signal ratio: the sum of the layers'."""
        return sum(choice.loss for choice in self.choices)

    @property
    def cost(self) -> float:
        """What is spent."""
        return sum(choice.cost for choice in self.choices)

    @property
    def bits(self) -> float:
        """Stored bits for each weight, scales included."""
        return 8 * sum(choice.nbytes for choice in self.choices) / sum(choice.count for choice in self.choices)

    def __str__(self) -> str:
        rows = [("layer", "format", "bits", "noise / signal")]
        rows += [(c.path, c.format, f"{8 * c.nbytes / c.count:.3g}", f"{c.loss:.2e}") for c in self.choices]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
        lines.append(
            f"{self.bits:.3g} bits a weight, {self.cost:.4g} of {self.limit:.4g} {self.unit}, "
            f"predicted noise / signal {self.loss:.2e}"
        )
        return "\n".join(line.rstrip() for line in lines)


@dataclass(frozen=True)
class Allocate(Pass):
    """Mixed precision: the formats of the layers that lose least together and fit a budget.

    Each layer's loss in each format is measured alone (`planish.analysis.sensitivity`); losses are taken to add up, as
    independent noise does, and an integer program chooses (HiGHS, by `scipy.optimize.milp`; as in HAWQ-V3, arXiv
    2011.10680, section 3.4). The layers are then quantized by `Quantize`, format by format.

    Attributes:
        budget: "4.5 bits" a weight, scales included; "12 MB" or "30 %" of the bytes of the layers' weights; "2 GBOP",
            bit operations: multiply-accumulates times the bits of both factors; or "3 ms" in these layers.
        formats: The candidates for weights.
        where: The layers.
        activations: Format of the layers' inputs, the same for all; None leaves them.
        by: How weights are rounded in the end, as in `Quantize`; losses are those of rounding to the nearest.
        times: For a budget of time, seconds of each layer (by its path) in each format, as measured. Without them time
            is modeled, by the roofline of this machine on one thread.
        items: How many items of calibration data losses are measured on.
    """

    budget: str = "5 bits"
    formats: tuple[str, ...] = ("int4@g32*float16", "int8")
    where: Selector | str = "linear | conv"
    activations: Format | str | None = None
    by: Rounding = "rtn"
    times: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    items: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))
        object.__setattr__(self, "formats", tuple(map(str, self.formats)))
        if self.activations is not None:
            object.__setattr__(self, "activations", get(self.activations))
        if len(set(self.formats)) < 2:
            raise OptionError("a choice needs two formats or more", "formats", "formats=('int4@g32', 'int8')")
        for format in self.formats:
            Quantize(weights=format, activations=self.activations, by=self.by)
        if self.items < 1:
            raise OptionError(f"losses cannot be measured on {self.items} items", "items", "items=32")
        _ = self._limit

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each tensor: what it may become, and its bytes at most. What it will become takes data to say:
        `choose`."""
        steps = []
        for nodes in self._units(graph):
            value = weight_of(nodes[0])
            assert value is not None
            name = nodes[0].path or nodes[0].name
            action = f"weight to one of {', '.join(self.formats)}, within {self.budget}"
            most = max(self._nbytes(nodes[0], format) for format in self.formats)
            steps.append(Step(name, nodes[0].name, action, value.numel() * value.element_size(), most))
        return steps

    def draft(self, graph: Graph) -> Graph:
        """The graph as if every layer got the first format."""
        return Quantize(self.formats[0], self.activations, self.where).draft(graph)

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The graph with each layer in its format."""
        for step in self.passes(self.choose(graph, data, progress)):
            graph = step(graph, data, progress)
        return graph

    def choose(self, graph: Graph, data: Data | None, progress: Progress | None = None) -> Allocation:
        """Measure, solve, and say which layer gets which format.

        Raises:
            DataError: There is no calibration data.
            OptionError: No choice of formats meets the budget; says the least that they cost.
        """
        units = self._units(graph)
        items = check_items(data, "Allocate")[:: max(1, -(-_length(data) // self.items))]
        nodes = {node.name for unit in units for node in unit}
        found = sensitivity(
            graph, items, self.formats, where=self.where, activations=self.activations, progress=progress
        )
        single = {(loss.node, loss.format): 10 ** (-loss.sqnr / 10) for loss in found.losses if loss.node in nodes}
        losses = [[sum(single[node.name, format] for node in unit) for format in self.formats] for unit in units]
        unit, limit = self._limit
        costs = self._costs(graph, units, unit)
        if unit == "bits":
            limit *= sum(_count(nodes[0]) for nodes in units) / 8
        elif unit == "share":
            limit *= sum(step.bytes_before for step in self.plan(graph))
        named = "bytes" if unit in ("bits", "share") else unit
        least = sum(map(min, costs))
        if least > limit:
            raise OptionError(
                f"a budget of {self.budget} cannot be met: these formats take {least:.4g} {named} at least, "
                f"the budget is {limit:.4g}",
                "budget",
                "a looser budget, or smaller formats",
            )
        picked = solve(losses, costs, limit)
        choices = [
            Choice(
                nodes[0].path or nodes[0].name,
                tuple(node.name for node in nodes),
                self.formats[pick],
                _count(nodes[0]),
                self._nbytes(nodes[0], self.formats[pick]),
                losses[place][pick],
                costs[place][pick],
            )
            for place, (nodes, pick) in enumerate(zip(units, picked, strict=True))
        ]
        return Allocation(tuple(choices), limit, named)

    def passes(self, allocation: Allocation) -> list[Quantize]:
        """The allocation as a person would have written it: one `Quantize` for each format that is used."""
        found = []
        for format in self.formats:
            names = [name for choice in allocation.choices if choice.format == format for name in choice.nodes]
            if names:
                where = parse_selector(reduce(or_, map(path, names)))
                found.append(Quantize(format, self.activations, where, by=self.by))
        return found

    @property
    def _limit(self) -> tuple[str, float]:
        matched = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z%]+)\s*", self.budget.lower())
        if matched is None or matched[2] not in UNITS or float(matched[1]) <= 0:
            raise OptionError(
                f"unknown budget {self.budget!r}", "budget", "'4.5 bits', '12 MB', '30 %', '2 GBOP' or '3 ms'"
            )
        unit, factor = UNITS[matched[2]]
        return unit, float(matched[1]) * factor

    def _units(self, graph: Graph) -> list[list[Node]]:
        """The layers that must get one format: those that read one weight."""
        units: dict[Node, list[Node]] = {}
        for node in weighted(graph, self.where):
            assert node.weight is not None
            if node.weight.op == "cast":
                raise OptionError("the weight is quantized already", node.path or node.name, "leave it out with where=")
            units.setdefault(node.weight, []).append(node)
        return list(units.values())

    def _costs(self, graph: Graph, units: Sequence[Sequence[Node]], unit: str) -> list[list[float]]:
        if unit in ("bits", "share", "bytes"):
            return [[float(self._nbytes(nodes[0], format)) for format in self.formats] for nodes in units]
        if unit == "seconds" and self.times:
            return [[sum(self._time(node, format) for node in nodes) for format in self.formats] for nodes in units]
        nodes = {cost.node: cost for cost in analyze(graph).nodes}
        inputs = 32 if self.activations is None else get(self.activations).bits
        if unit == "bit operations":
            macs = [sum(nodes[node.name].work.macs for node in unit_) for unit_ in units]
            return [[each * inputs * get(format).bits for format in self.formats] for each in macs]
        machine, result = peaks(), []
        for layers in units:
            row = []
            for format in self.formats:
                both = (get(format), get(self.activations or "float32"))
                integers = all(isinstance(each.element, Int) and each.bits <= 8 for each in both)
                work = [
                    replace(
                        nodes[node.name],
                        compute="int8" if integers else nodes[node.name].compute,
                        work=replace(nodes[node.name].work, weight_traffic=self._nbytes(node, format)),
                    )
                    for node in layers
                ]
                row.append(sum(roofline_time(each, machine) for each in work))
            result.append(row)
        return result

    def _time(self, node: Node, format: str) -> float:
        name = node.path or node.name
        try:
            return float(self.times[name][format])
        except KeyError:
            raise OptionError(f"no time of {name} in {format}", "times", "seconds for each layer and format") from None

    def _nbytes(self, node: Node, format: str) -> int:
        value = weight_of(node)
        assert value is not None
        return placed_on_weight(get(format), node).nbytes(value.shape)


def solve(losses: Sequence[Sequence[float]], costs: Sequence[Sequence[float]], limit: float) -> list[int]:
    """For each row one column such that the losses add up to the least and the costs to no more than `limit`.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    try:
        import numpy as np
        from scipy.optimize import Bounds, LinearConstraint, milp
    except ModuleNotFoundError as error:
        raise MissingExtra("scipy", "search", "Allocate") from error
    rows, columns = len(losses), len(losses[0])
    loss = np.asarray(losses, dtype=np.float64).ravel()
    cost = np.asarray(costs, dtype=np.float64).ravel() / limit
    one = np.kron(np.eye(rows), np.ones(columns))
    room = 1.0
    for _ in range(rows):
        result = milp(
            loss * (1e6 / max(loss.max(), 1e-300)),  # HiGHS ends at an absolute gap of 1e-6
            integrality=np.ones(loss.size),
            bounds=Bounds(0, 1),
            constraints=[LinearConstraint(one, 1, 1), LinearConstraint(cost[None], -np.inf, room)],
            options={"mip_rel_gap": 0.0},
        )
        if result.x is None:
            break
        picked = [int(place) for place in result.x.reshape(rows, columns).argmax(1)]
        if sum(costs[row][pick] for row, pick in enumerate(picked)) <= limit:
            return picked
        room -= 1e-6  # the solver takes a budget to be met that is passed by a millionth
    return [min(range(columns), key=list(row).__getitem__) for row in costs]


def _count(node: Node) -> int:
    value = weight_of(node)
    assert value is not None
    return value.numel()


def _length(data: Data | None) -> int:
    return len(data) if isinstance(data, Sequence) else sum(1 for _ in data or ())
