"""Place and route by nextpnr-ecp5: the clock that a design reaches, what limits it, and the bitstream."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from planish.errors import UserError
from planish.record import Measurement
from planish.targets.fpga.toolchain import tools
from planish.targets.fpga.toolchain.devices import device as device_of
from planish.targets.fpga.toolchain.devices import speed_grade
from planish.targets.fpga.toolchain.pins import behind_registers
from planish.targets.fpga.toolchain.stage import digest, stage
from planish.targets.fpga.toolchain.synthesize import CLOCK, Synthesis
from planish.targets.fpga.toolchain.tools import Limits
from planish.targets.fpga.toolchain.utilization import OUTSIDE, owners

Progress = Callable[[int, int, str], None]
SEEDS = (1, 2, 3)
"""Placements that are tried: one tells little, since they differ by some percent."""
JOBS = 2
"""Placements at once."""
STALL = 60.0
"""Seconds of silence after which nextpnr's first router is taken to be stalled: a few wires push each other about, and
it would go on for hours. Its second one always ends, with a clock that is some percent slower."""


class ClockNotMet(UserError):
    """The design is slower than the clock that was asked for."""


@dataclass(frozen=True)
class Hop:
    """A part of the critical path that lies in one instance.

    Attributes:
        where: The instance of the top module; empty for the top's own logic.
        logic: Nanoseconds in cells, setup and clock-to-output included.
        wires: Nanoseconds on the way to the next cell.
        cells: Their names, from the first one.
    """

    where: str
    logic: float
    wires: float
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Route:
    """A finished place and route.

    Attributes:
        folder: Holds `route.json`, and `top.config` and `report.json` of the best seed.
        device: Name of the device.
        package: Of the device.
        speed: Speed grade.
        clock: What was asked for (MHz).
        seeds: What was tried.
        fmax: MHz that each seed reached.
        used: Cells after packing, as nextpnr names them.
        path: The critical path of the seed with the median clock.
        rerouted: Seeds on which nextpnr's first router stalled, and its second one took over.
        shifted: Whether the ports are behind shift registers, for want of pins.
    """

    folder: Path
    device: str
    package: str
    speed: int
    clock: float
    seeds: tuple[int, ...]
    fmax: tuple[float, ...]
    used: Mapping[str, int]
    path: tuple[Hop, ...]
    rerouted: tuple[int, ...]
    shifted: bool

    @property
    def median(self) -> float:
        """MHz."""
        return statistics.median_low(self.fmax)

    def measurements(self) -> list[Measurement]:
        """Clock with its spread over the seeds (lowest and highest), and cells after packing."""
        details = {"device": self.device, "speed": self.speed, "seeds": list(self.seeds), "clock": self.clock}
        details["rerouted"] = list(self.rerouted)
        spread = (min(self.fmax), max(self.fmax))
        rows = [Measurement("fmax", self.median, "MHz", "synthesized", spread, details=details)]
        kinds = {"TRELLIS_COMB": "comb", "TRELLIS_FF": "routed ff", "MULT18X18D": "routed dsp", "DP16KD": "routed bram"}
        return rows + [
            Measurement(name, self.used.get(kind, 0), kind, "synthesized", details={"device": self.device})
            for kind, name in kinds.items()
        ]

    def explain(self) -> str:
        """The critical path in a line: instances of the top module, and the first and last cell in each."""
        return ", then ".join(
            f"{hop.where or 'the top'} {hop.logic + hop.wires:.1f} ns ({hop.wires:.1f} in wires, "
            f"{_wire(hop.cells[0])} to {_wire(hop.cells[-1])})"
            for hop in self.path
        )

    def require(self) -> None:
        """Refuse a design that is slower than the clock in every placement.

        Raises:
            ClockNotMet: It is; names the path by instance.
        """
        if max(self.fmax) < self.clock:
            raise ClockNotMet(
                f"the clock is {max(self.fmax):.0f} MHz at best, {self.clock:g} MHz being asked for",
                self.explain(),
                f"a clock of {int(min(self.fmax))} MHz, or another fold or fewer bits in {slowest(self.path)}",
            )

    @classmethod
    def load(cls, folder: Path) -> Route:
        """The inverse of what `route` writes."""
        kept: dict[str, Any] = json.loads((folder / "route.json").read_text())
        kept |= {name: tuple(kept[name]) for name in ("seeds", "fmax", "rerouted")}
        kept["path"] = tuple(Hop(**{**hop, "cells": tuple(hop["cells"])}) for hop in kept["path"])
        return cls(folder=folder, **kept)


def _wire(cell: str) -> str:
    """The wire that yosys named a cell after, without its instance."""
    return (
        re.split(r"_(?:TRELLIS_FF|LUT4|CCU2C|MULT18X18D|DP16KD|PFUMX|L6MUX21)(?:_|$)", cell)[0].partition(".")[2]
        or cell
    )


def slowest(path: Sequence[Hop]) -> str:
    """The instance that takes most of a path."""
    return max(path, key=lambda hop: hop.logic + hop.wires).where or "top" if path else "top"


def route(
    synthesis: Synthesis,
    folder: Path,
    *,
    device: str = "ecp5-85k",
    package: str | None = None,
    speed: int = 6,
    clock: float = CLOCK,
    seeds: Sequence[int] = SEEDS,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Route:
    """Place and route a netlist, once for each seed.

    Args:
        synthesis: The netlist.
        folder: Where the result goes; kept if it is there and was made from the same netlist and options.
        device: Name of the device.
        package: Of the device; its largest one where none is given.
        speed: Speed grade; 6 is the slowest.
        clock: MHz to aim at. A slower result is no error here: see `Route.require` and `bitstream`.
        seeds: Of the placements.
        limits: Of time and memory, for each placement.
        progress: Told of each placement that is done.

    Raises:
        UserError: The design is larger than the device; says by how much.
        UnknownName: No such device or package.
        ToolError: nextpnr is missing, was killed, or failed.
    """
    chip = device_of(device)
    case = chip.package(package)
    chip.require(synthesis.total)
    options = [chip.option, "--package", case, "--speed", str(speed_grade(speed)), "--freq", f"{clock:g}"]
    options += ["--timing-allow-fail", "--no-print-critical-path-source"]
    version = tools.find("nextpnr-ecp5").version
    source = synthesis.folder / "netlist.json"
    shifted = synthesis.pins > chip.packages[case]

    def make(draft: Path) -> None:
        netlist = json.loads(source.read_text())
        (top,) = (name for name, module in netlist["modules"].items() if _is_top(module))
        if shifted:
            netlist["modules"][top] = behind_registers(netlist["modules"][top])
        # library cells are left out: nextpnr knows them
        kept = {**netlist, "modules": {top: netlist["modules"][top]}}
        (draft / "placed.json").write_text(json.dumps(kept))
        reports, rerouted = _place(draft, options, seeds, limits or Limits(), progress)
        fmax = {seed: _fmax(report) for seed, report in reports.items()}
        best = max(fmax, key=fmax.__getitem__)
        median = statistics.median_low(fmax.values())
        typical = next(seed for seed in fmax if fmax[seed] == median)
        used = {kind: count["used"] for kind, count in reports[best]["utilization"].items() if count["used"]}
        told = {
            "device": device,
            "package": case,
            "speed": speed,
            "clock": clock,
            "seeds": list(seeds),
            "fmax": [fmax[seed] for seed in seeds],
            "used": used,
            "path": [asdict(hop) for hop in critical(reports[typical], owners(kept["modules"][top]))],
            "rerouted": rerouted,
            "shifted": shifted,
        }
        (draft / "route.json").write_text(json.dumps(told, indent=1))
        (draft / f"{best}.config").rename(draft / "top.config")
        (draft / f"{best}.json").rename(draft / "report.json")
        (draft / "placed.json").unlink()
        for seed in set(seeds) - {best}:
            (draft / f"{seed}.config").unlink()
            (draft / f"{seed}.json").unlink()

    told = [each.name for each in fields(Route)]  # what another version of Planish kept may lack some
    key = digest([source], synthesis.folder, str(options), str(list(seeds)), version, str(told))
    return Route.load(stage(folder, key, make))


def bitstream(placed: Route, limits: Limits | None = None) -> Path:
    """The file that configures the device, made of the best placement.

    Raises:
        ClockNotMet: No placement is as fast as the clock that was asked for.
        UserError: The ports have more bits than the package has pins.
        ToolError: ecppack is missing, was killed, or failed.
    """
    placed.require()
    if placed.shifted:
        pins = device_of(placed.device).packages[placed.package]
        raise UserError(
            f"the ports have more bits than {placed.package} has pins, which are {pins}", placed.device, "fewer lanes"
        )
    made = placed.folder / "top.bit"
    if not made.exists():
        draft = placed.folder / ".top.bit.draft"
        log = placed.folder / "ecppack.log"
        tools.run("ecppack", "--compress", "top.config", draft.name, folder=placed.folder, log=log, limits=limits)
        draft.rename(made)
    return made


def critical(report: Mapping[str, Any], owner: Mapping[str, str]) -> list[Hop]:
    """The slowest path between registers, its neighboring cells of one instance as one hop.

    Args:
        report: Of nextpnr.
        owner: Instance of each cell of the netlist.
    """
    paths = [path for path in report["critical_paths"] if path["from"] == path["to"] != "<async>"]
    if not paths:
        return []
    hops: list[Hop] = []
    for part in max(paths, key=lambda path: sum(step["delay"] for step in path["path"]))["path"]:
        cell, delay = part["from"]["cell"], part["delay"]
        where = _owner(cell, owner)
        if not hops or hops[-1].where != where:
            hops.append(Hop(where, 0.0, 0.0, ()))
        last = hops[-1]
        wire = part["type"] == "routing"
        logic, wires = last.logic + delay * (not wire), last.wires + delay * wire
        hops[-1] = Hop(where, logic, wires, tuple(dict.fromkeys([*last.cells, cell])))
    return hops


def _owner(cell: str, owner: Mapping[str, str]) -> str:
    """Packing appends to a cell's name, after a dollar sign."""
    name = cell
    while name not in owner and "$" in name:
        name = name.rpartition("$")[0]
    return owner.get(name, OUTSIDE)


def _place(
    draft: Path, options: list[str], seeds: Sequence[int], limits: Limits, progress: Progress | None
) -> tuple[dict[int, dict[str, Any]], list[int]]:
    """Run nextpnr for each seed; the report of each, and which of them the second router made."""
    rerouted: list[int] = []

    def one(seed: int) -> int:
        command = [*options, "--seed", str(seed), "--json", "placed.json"]
        command += ["--textcfg", f"{seed}.config", "--report", f"{seed}.json"]
        log = draft / f"nextpnr.{seed}.log"
        try:
            tools.run("nextpnr-ecp5", *command, folder=draft, log=log, limits=replace(limits, silence=STALL))
        except tools.Stalled:
            rerouted.append(seed)
            tools.run("nextpnr-ecp5", *command, "--router", "router2", folder=draft, log=log, limits=limits)
        return seed

    # the first start compiles the program, which must not happen twice at once
    tools.run("nextpnr-ecp5", "--version", folder=draft, log=draft / "nextpnr.log")
    with ThreadPoolExecutor(JOBS) as pool:
        running = [pool.submit(one, seed) for seed in seeds]
        try:
            for done, each in enumerate(as_completed(running), 1):
                seed = each.result()
                if progress:
                    progress(done, len(seeds), f"nextpnr: seed {seed}{', rerouted' if seed in rerouted else ''}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {seed: json.loads((draft / f"{seed}.json").read_text()) for seed in seeds}, sorted(rerouted)


def _fmax(report: Mapping[str, Any]) -> float:
    """MHz of the slowest clock.

    Raises:
        UserError: Nothing is between registers, so that there is no clock to speak of.
    """
    clocks = [each["achieved"] for each in report["fmax"].values()]
    if not clocks:
        raise UserError("the design has no path from register to register", "the clock", "a design with registers")
    return min(clocks)


def _is_top(module: Mapping[str, Any]) -> bool:
    return bool(re.search("1$", str(module["attributes"].get("top", ""))))
