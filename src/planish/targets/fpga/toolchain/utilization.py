"""What a design takes of a device, counted in a netlist, in total and by instance."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from planish.record import Measurement, Source

OUTSIDE = ""
"""Name of what belongs to no instance: the top module's own logic."""
UNITS = {"lut4": "LUT4", "ccu2c": "CCU2C", "ff": "FF", "dsp": "DSP", "bram": "BRAM", "ram": "RAM16X4"}
_ECP5 = {
    "LUT4": "lut4",
    "CCU2C": "ccu2c",
    "TRELLIS_FF": "ff",
    "MULT18X18D": "dsp",
    "DP16KD": "bram",
    "PDPW16KD": "bram",
    "TRELLIS_DPR16X4": "ram",
}


@dataclass(frozen=True)
class Utilization:
    """Cells of an ECP5.

    Attributes:
        lut4: Tables of four inputs; larger functions take several and a multiplexer, which is free.
        ccu2c: Carry cells of two bits, each in the place of two LUT4.
        ff: Flip-flops.
        dsp: Multipliers of 18 by 18 bits.
        bram: Block memories of 18 kbit.
        ram: Distributed memories of 16 words of 4 bits.
    """

    lut4: int = 0
    ccu2c: int = 0
    ff: int = 0
    dsp: int = 0
    bram: int = 0
    ram: int = 0

    @property
    def lut(self) -> int:
        """LUT4-equivalents: LUT4 + 2 x CCU2C, and 6 for each distributed memory (4 hold it, 2 write it)."""
        return self.lut4 + 2 * self.ccu2c + 6 * self.ram

    def __add__(self, other: Utilization) -> Utilization:
        return Utilization(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def measurements(self, where: str = "", source: Source = "synthesized") -> list[Measurement]:
        """A row for each kind of cell, and for the LUT4-equivalents."""
        rows = {"lut": self.lut, **{each.name: getattr(self, each.name) for each in fields(self)}}
        return [Measurement(name, value, UNITS.get(name, "LUT4"), source, where=where) for name, value in rows.items()]


def owners(module: Mapping[str, Any]) -> dict[str, str]:
    """The instance of the top module that each cell of its flat netlist came from.

    Cells that keep their `instance` attribute tell it themselves. Tables lose theirs when logic is mapped: they are
    named after a wire, which tells it in all but a few cases, and otherwise belong to most of the cells that they feed,
    or that feed them. Registers lose theirs where they were part of a memory: they belong to what they keep.
    """
    cells: Mapping[str, Any] = module["cells"]
    known = {name: cell["attributes"].get("instance", "") for name, cell in cells.items()}
    instances = {name for name in known.values() if name} | {name.partition(".")[0] for name in cells if "." in name}
    for name in cells:
        prefix = name.partition(".")[0]
        if not known[name] and prefix in instances and prefix != name:
            known[name] = prefix
    readers: dict[int, list[str]] = defaultdict(list)
    drivers: dict[int, list[str]] = defaultdict(list)
    for name, cell in cells.items():
        for bit in _bits(cell, "input"):
            readers[bit].append(name)
        for bit in _bits(cell, "output"):
            drivers[bit].append(name)
    for _ in range(3):  # a table may feed tables
        unknown = [name for name in cells if not known[name]]
        for name in unknown:
            feeds = [to for bit in _bits(cells[name], "output") for to in readers[bit] if known[to]]
            fed_by = [by for bit in _bits(cells[name], "input") for by in drivers[bit] if known[by]]
            kept = [by for bit in cells[name]["connections"].get("DI", ()) for by in drivers[bit] if known[by]]
            votes = Counter(known[each] for each in kept or feeds or fed_by)
            known[name] = votes.most_common(1)[0][0] if votes else OUTSIDE
    return known


def count(module: Mapping[str, Any]) -> dict[str, Utilization]:
    """Cells of a flat ECP5 netlist by instance of the top module; `OUTSIDE` is there if anything is outside of all."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for name, owner in owners(module).items():
        kind = _ECP5.get(module["cells"][name]["type"])
        if kind:
            found[owner][kind] += 1
    return {owner: Utilization(**kinds) for owner, kinds in sorted(found.items())}


def total(parts: Iterable[Utilization]) -> Utilization:
    """The sum."""
    return sum(parts, Utilization())


def _bits(cell: Mapping[str, Any], direction: str) -> list[int]:
    """Numbers of the wires at a cell's ports of one direction; constants are left out."""
    ports = (port for port, given in cell["port_directions"].items() if given == direction)
    return [bit for port in ports for bit in cell["connections"][port] if isinstance(bit, int)]
