"""What a graph costs: arithmetic, parameters and bytes, of each operation and rolled up by module.

cost = planish.analyze(graph, sizes={"batch": 8})
print(cost)                                        # the module tree
cost.total.macs
cost.by_path(3)["encoder.layer.0"].weight_bytes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from planish.analysis.meter import Meter
from planish.analysis.peaks import Peaks
from planish.analysis.roofline import roofline_time
from planish.analysis.sizes import Sizes
from planish.analysis.work import NodeCost, Work
from planish.graph import Graph
from planish.record import Measurement


@dataclass(frozen=True)
class Cost:
    """The cost of a graph at given sizes.

    Attributes:
        nodes: Every operation in execution order. Of a `torch.cond` only the costlier branch is run.
        sizes: The dynamic sizes that were assumed, by the user's name; a size that depends on data counts as its lower
            bound, at least 1.
    """

    nodes: tuple[NodeCost, ...]
    sizes: Mapping[str, int]

    @property
    def total(self) -> Work:
        """Of the whole graph."""
        return Work.sum(node.work for node in self.nodes)

    @property
    def unruled(self) -> Mapping[str, tuple[str, ...]]:
        """Operations without a rule, of which only the bytes are known, and the nodes that call them."""
        found: dict[str, tuple[str, ...]] = {}
        for node in self.nodes:
            if node.kind == "unruled":
                found[node.op] = (*found.get(node.op, ()), node.node)
        return found

    def by_path(self, depth: int | None = None) -> dict[str, Work]:
        """The work of each module with everything below it, parents first; "" is the whole model.

        Args:
            depth: How many components of a path are kept; None keeps all.
        """
        return {path: Work.sum(node.work for node in nodes) for path, nodes in self._groups(depth).items()}

    def _groups(self, depth: int | None) -> dict[str, list[NodeCost]]:
        groups: dict[str, list[NodeCost]] = {"": []}
        for node in self.nodes:
            parts = node.path.split(".")[:depth] if node.path else []
            for length in range(len(parts) + 1):
                groups.setdefault(".".join(parts[:length]), []).append(node)
        return groups

    def measurements(self, peaks: Peaks | None = None, subject: str = "original") -> list[Measurement]:
        """Rows of a run folder, for every operation that computes or moves something: `macs`, `flops`, `weight_bytes`,
        `activation_bytes`, `intensity`, and, where peaks are given, `roofline_time`."""
        rows: list[Measurement] = []
        for node in self.nodes:
            work, details = node.work, {"node": node.node, "op": node.op, "type": node.type}
            if not work.flops and not work.bytes:
                continue
            for name, (value, unit) in {
                "macs": (work.macs, "MAC"),
                "flops": (work.flops, "FLOP"),
                "weight_bytes": (work.weight_bytes, "B"),
                "activation_bytes": (work.activation_bytes, "B"),
                "intensity": (work.intensity, "FLOP/B"),
            }.items():
                rows.append(Measurement(name, value, unit, "exact", None, subject, node.path, details))
            if peaks is not None:
                time = roofline_time(node, peaks)
                rows.append(Measurement("roofline_time", time, "s", "modeled", None, subject, node.path, details))
        return rows

    def table(self, depth: int = 2, peaks: Peaks | None = None) -> Table:
        """The module tree down to `depth`, for a terminal; with peaks, its modeled time too."""
        columns: dict[str, Callable[[Work], str]] = {
            "MACs": lambda work: scaled(work.macs),
            "params": lambda work: scaled(work.parameters),
            "weights": lambda work: scaled(work.weight_bytes, "B"),
            "activations": lambda work: scaled(work.activation_bytes, "B"),
            "FLOP/B": lambda work: f"{work.intensity:.1f}",
        }
        sizes = ", ".join(f"{name} = {size}" for name, size in self.sizes.items())
        table = Table("module", title=f"cost at {sizes}" if sizes else "cost", title_justify="left")
        for name in [*columns, *(["roofline"] if peaks else [])]:
            table.add_column(name, justify="right", no_wrap=True)
        for path, nodes in self._groups(depth).items():
            work = Work.sum(node.work for node in nodes)
            if work == Work():
                continue
            modeled = [f"{1e3 * sum(roofline_time(node, peaks) for node in nodes):.3f} ms"] if peaks else []
            table.add_row(_indented(path), *(show(work) for show in columns.values()), *modeled)
        if self.unruled:
            table.caption = f"bytes only, no rule for: {', '.join(self.unruled)}"
        return table

    def __str__(self) -> str:
        console = Console(width=100)
        with console.capture() as text:
            console.print(self.table())
        return text.get()


def _indented(path: str) -> str:
    return "  " * path.count(".") + path.rpartition(".")[2] if path else "(model)"


def scaled(value: float, unit: str = "") -> str:
    """Three digits and a prefix: "1.23 G", "45.6 MB"."""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 999.5 or prefix == "P":
            break
        value /= 1000
    digits = f"{value:.0f}" if not prefix or value >= 100 else f"{value:.3g}"
    return f"{digits} {prefix}{unit}".rstrip()


def analyze(graph: Graph, sizes: Mapping[str, int] | None = None) -> Cost:
    """Count what a graph costs, without running it.

    Args:
        graph: Any captured graph.
        sizes: Dynamic sizes by the user's names, `{"batch": 8}`; those left out are the example's.

    Raises:
        OptionError: The graph has no dynamic size of a given name.
    """
    known = Sizes(graph, sizes or {})
    return Cost(Meter(graph, known).run(), known.used)
