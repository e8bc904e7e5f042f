"""How many of the numbers that a graph computes are zero, or nearly so: what skipping them could save."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table
from torch import Tensor, fx

from planish.analysis.execute import Executor, calls
from planish.errors import OptionError
from planish.graph import Data, Graph, Node, Progress
from planish.record import Measurement


@dataclass(frozen=True)
class NodeSparsity:
    """The zeros of one node's output.

    Attributes:
        node: Its name.
        op: What it does.
        path: Module path.
        count: Numbers seen.
        zeros: Share of them that is exactly zero.
        near: Share within `tolerance` times the root mean square of the same output; zeros count.
    """

    node: str
    op: str
    path: str
    count: int
    zeros: float
    near: float


@dataclass(frozen=True)
class Sparsity:
    """The zeros of every operation's output, in execution order.

    Attributes:
        nodes: Each operation that gives floating-point numbers.
        tolerance: What counts as near zero.
    """

    nodes: tuple[NodeSparsity, ...]
    tolerance: float

    def measurements(self) -> list[Measurement]:
        """Rows `activation_zeros` and `activation_near_zeros` for each node."""
        return [
            Measurement(
                name,
                value,
                "1",
                "measured",
                where=n.path,
                details={"node": n.node, "op": n.op, "count": n.count, **more},
            )
            for n in self.nodes
            for name, value, more in (
                ("activation_zeros", n.zeros, {}),
                ("activation_near_zeros", n.near, {"tolerance": self.tolerance}),
            )
        ]

    def table(self) -> Table:
        """Nodes down, in execution order."""
        table = Table("node", "operation", "module", title="Zeros among activations", title_justify="left")
        table.add_column("zero", justify="right")
        table.add_column(f"below {self.tolerance:g} rms", justify="right")
        for n in self.nodes:
            table.add_row(n.node, n.op, n.path, f"{n.zeros:.1%}", f"{n.near:.1%}")
        return table


def activation_sparsity(
    graph: Graph, data: Data, tolerance: float = 0.01, progress: Progress | None = None
) -> Sparsity:
    """Run data through a graph and count the zeros that each operation gives.

    Args:
        graph: The graph.
        data: Re-iterable `(args, kwargs)`.
        tolerance: A number is near zero if its magnitude is at most this share of the root mean square of the node's
            output on the same item.
        progress: Called after each item.

    Raises:
        DataError: There is no data, or an item does not fit.
        OptionError: The tolerance is negative.
    """
    if tolerance < 0:
        raise OptionError(f"a tolerance of {tolerance} is below zero", "tolerance", "tolerance=0.01")
    executor, items = Executor(graph), calls(data)
    counts: dict[fx.Node, list[int]] = {}

    def count(node: fx.Node, value: Any) -> None:
        if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
            return
        magnitude = value.abs()
        size = float(value.double().square().mean().sqrt())
        here = (value.numel(), int((magnitude == 0).sum()), int((magnitude <= tolerance * size).sum()))
        counts[node] = [old + new for old, new in zip(counts.get(node, [0, 0, 0]), here, strict=True)]

    for index, call in enumerate(items):
        executor.advance(executor.bind(call, f"data[{index}]"), 0, observe=count)
        if progress is not None:
            progress(index + 1, len(items), "sparsity")
    views = [(Node(graph, node), found) for node, found in counts.items()]
    rows = (NodeSparsity(n.name, n.op, n.path, total, none / total, few / total) for n, (total, none, few) in views)
    return Sparsity(tuple(rows), tolerance)
