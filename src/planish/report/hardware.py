"""A design on an FPGA, as its run tells of it: its blocks, the cells they take, the slowest path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planish.report.numbers import percent
from planish.report.rows import Row, Rows

SHARED = {"lut": "LUT", "ff": "FF", "dsp": "DSP", "bram": "BRAM"}
"""Kinds of cells, and what the page calls them."""


@dataclass(frozen=True)
class Block:
    """One block of the pipeline.

    Attributes:
        label: The user's module, or the instance where it belongs to none.
        instance: Its name in the SystemVerilog.
        kind: What it does: the name of its module in the library.
        cells: By kind, and "cycles".
    """

    label: str
    instance: str
    kind: str
    cells: Mapping[str, Row]


@dataclass(frozen=True)
class Hardware:
    """What the page shows of a design.

    Attributes:
        device: What it is on.
        used: For each kind of cell what is used, and what might be.
        blocks: In the order of the pipeline.
        fmax: The clock that it reaches.
        interval: Cycles from a sample to the next.
        latency: Of a sample.
        throughput: Samples a second.
        energy: Of a sample.
        path: Hops of the critical path, in order.
    """

    device: str
    used: list[tuple[str, Row, Row | None]]
    blocks: list[Block]
    fmax: Row | None
    interval: Row
    latency: Row | None
    throughput: Row | None
    energy: Row | None
    path: list[Row]

    def share(self, block: Block, kind: str) -> float:
        """Of all cells of a kind that blocks take; of "cycles", of the slowest block's."""
        values = [each.cells[kind].m.value for each in self.blocks if kind in each.cells]
        whole = max(values) if kind == "cycles" else sum(values)
        return block.cells[kind].m.value / whole if kind in block.cells and whole else 0.0

    @property
    def missed(self) -> float | None:
        """The clock that was asked for (MHz), where it is not reached."""
        asked = float(self.fmax.detail("clock") or 0) if self.fmax else 0.0
        return asked if self.fmax and self.fmax.m.value < asked else None

    @property
    def caption(self) -> str:
        """The finding in a sentence or two."""
        said = []
        timed = [block for block in self.blocks if "cycles" in block.cells]
        if timed:
            slow = max(timed, key=lambda block: block.cells["cycles"].m.value)
            said.append(f"{slow.label} sets the pace with {slow.cells['cycles'].text} a sample.")
        sized = [block for block in self.blocks if "lut" in block.cells]
        if sized:
            large = max(sized, key=lambda block: block.cells["lut"].m.value)
            said.append(f"{large.label} takes {percent(self.share(large, 'lut'))} of the blocks' LUTs.")
        if self.path and self.fmax:
            worst = max(self.path, key=lambda row: row.m.value)
            said.append(f"The critical path spends most in {worst.m.where or worst.detail('instance') or 'the top'}.")
        if self.missed:
            said.append(f"The {self.missed:g} MHz that were asked for are not reached.")
        return " ".join(said)


def hardware(rows: Rows) -> Hardware | None:
    """The design of a run; None where the run is of no FPGA."""
    interval = rows.one("interval")
    if interval is None:
        return None
    used = [(label, row, rows.one("budget", kind)) for kind, label in SHARED.items() if (row := rows.one(kind))]
    path = sorted((row for row in rows if row.m.name == "critical path"), key=lambda row: int(row.detail("place") or 0))
    return Hardware(
        interval.detail("device"),
        used,
        _blocks(rows),
        rows.one("fmax"),
        interval,
        rows.one("latency", "chosen"),
        rows.one("throughput"),
        rows.one("energy"),
        path,
    )


def _blocks(rows: Rows) -> list[Block]:
    """Those that take cycles, each with the cells of its instance."""
    cells: dict[str, dict[str, Row]] = {}
    paths: dict[str, str] = {}
    for row in rows:
        instance = row.detail("instance")
        if instance and row.m.name in (*SHARED, "cycles"):
            cells.setdefault(instance, {})[row.m.name] = row
            paths[instance] = paths.get(instance) or row.m.where
    return [
        Block(paths[name] or name, name, found["cycles"].detail("module"), found)
        for name, found in cells.items()
        if "cycles" in found
    ]
