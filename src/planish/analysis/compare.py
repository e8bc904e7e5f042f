"""Where two versions of a model begin to differ: signal to noise at every node that both have, and at the output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table
from torch import fx

from planish.analysis.execute import Executor, ItemCall, calls
from planish.analysis.noise import Noise
from planish.errors import OptionError
from planish.graph import Data, Graph, Progress
from planish.metrics import FIDELITY, Metric, with_reference
from planish.metrics import get as get_metric
from planish.record import Measurement


@dataclass(frozen=True)
class Difference:
    """How near a node's value stays to the original's: SQNR in dB, 200 where they are equal."""

    node: str
    op: str
    path: str
    type: str
    sqnr: float


@dataclass(frozen=True)
class Comparison:
    """The differences at all common nodes, in execution order.

    Attributes:
        differences: One for each node.
        metrics: What the two graphs score; a fidelity metric has a row for the changed one only.
    """

    differences: tuple[Difference, ...]
    metrics: tuple[Measurement, ...] = ()

    @property
    def steepest(self) -> Difference:
        """The node at which most decibels are lost against the node before it."""
        before = [200.0, *(difference.sqnr for difference in self.differences)]
        return min(zip(self.differences, before, strict=False), key=lambda pair: pair[0].sqnr - pair[1])[0]

    def measurements(self) -> list[Measurement]:
        """One row `node_sqnr` for each node, then those of the metrics."""
        rows = [
            Measurement(
                "node_sqnr",
                d.sqnr,
                "dB",
                "measured",
                where=d.path,
                details={"node": d.node, "op": d.op, "type": d.type},
            )
            for d in self.differences
        ]
        return [*rows, *self.metrics]

    def table(self) -> Table:
        """Nodes down, in execution order."""
        table = Table("node", "operation", "module", title="SQNR against the original", title_justify="left")
        table.add_column("dB", justify="right")
        for d in self.differences:
            table.add_row(d.node, d.op, d.path, f"{d.sqnr:.1f}")
        scores = [f"{row.name} {row.value:.4g} ({row.subject})" for row in self.metrics]
        table.caption = "; ".join([*scores, f"most is lost at {self.steepest.node}"])
        return table


def compare(
    original: Graph,
    changed: Graph,
    data: Data,
    metrics: Sequence[str | Metric] = ("mean_cosine",),
    progress: Progress | None = None,
) -> Comparison:
    """Run both graphs side by side and compare every node that has the same name and shape in both.

    Args:
        original: The reference.
        changed: A version of it made by passes, which keep the names of what they do not replace.
        data: Re-iterable `(args, kwargs)`, with a target where a metric reads one.
        metrics: What to score both by; fidelity metrics compare the changed graph's answers with the original's.
        progress: Called after each item.

    Raises:
        DataError: There is no data, or an item does not fit.
        OptionError: The graphs have no node in common.
    """
    left, right = Executor(original), Executor(changed)
    theirs = {node.name: node.target for node in right.order}
    names = [node.name for node in left.order if theirs.get(node.name) is node.target]
    if not names:
        raise OptionError("the two graphs have no operation in common", "compare", "compare versions of one model")
    noises = {name: Noise() for name in names}
    items = calls(data)
    for index, call in enumerate(items):
        _add(noises, _values(left, call), _values(right, call))
        if progress is not None:
            progress(index + 1, len(items), "comparison")
    scores = [row for metric in metrics for row in _scores(metric, original, changed, data)]
    nodes = {name: original.node(name) for name in names if noises[name].signal or noises[name].noise}
    return Comparison(
        tuple(Difference(n.name, n.op, n.path, n.module_type, noises[n.name].sqnr) for n in nodes.values()),
        tuple(scores),
    )


def _scores(metric: str | Metric, original: Graph, changed: Graph, data: Data) -> list[Measurement]:
    judge = get_metric(metric)
    if isinstance(metric, str) and metric in FIDELITY:
        return [replace(judge(changed, with_reference(original, data)), subject="changed")]
    return [replace(judge(graph, data), subject=name) for name, graph in (("original", original), ("changed", changed))]


def _values(executor: Executor, call: ItemCall) -> Iterator[tuple[fx.Node, Any]]:
    """The nodes of a graph and their values, as they are computed."""
    values = executor.bind(call)
    for index, node in enumerate(executor.order):
        kept: list[Any] = []
        executor.advance(values, index, index + 1, lambda _, value, kept=kept: kept.append(value))
        yield node, kept[0]


def _add(noises: dict[str, Noise], left: Iterator[tuple[fx.Node, Any]], right: Iterator[tuple[fx.Node, Any]]) -> None:
    """Bring the two streams together by name; they come in nearly the same order, so that little waits."""
    waiting: dict[str, Any] = {}
    for node, exact in left:
        if node.name not in noises:
            continue
        while node.name not in waiting:
            other, value = next(right)
            if other.name in noises:
                waiting[other.name] = value
        actual = waiting.pop(node.name)
        if getattr(exact, "shape", None) == getattr(actual, "shape", None):
            noises[node.name].add(exact, actual)
