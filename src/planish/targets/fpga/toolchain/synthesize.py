"""SystemVerilog to a netlist of ECP5 cells, by yosys with its slang frontend, and what it takes.

The tables of UltraScale+ are counted in a run of their own, for comparison with the literature.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from planish.errors import UserError
from planish.record import Measurement
from planish.targets.fpga.toolchain import tools
from planish.targets.fpga.toolchain.carries import trim
from planish.targets.fpga.toolchain.registers import absorb
from planish.targets.fpga.toolchain.stage import digest, stage
from planish.targets.fpga.toolchain.tools import Limits
from planish.targets.fpga.toolchain.utilization import Utilization, count, total

Progress = Callable[[int, int, str], None]
CLOCK = 100.0
"""MHz."""
LOGIC = 0.4
"""Share of a period that logic may take; wires take the rest. Paths within it are mapped for area."""
PASSES = 50
"""Passes of a synthesis, for a bar."""

# Modules are kept apart until each cell was told which instance of the top module it belongs to.
_SCRIPT = """
from pyosys import libyosys

design = libyosys.Design()
read, *rest = {commands}
libyosys.Pass.call(design, read)
for name, module in design.modules_.items():
    path = name.str().partition("$")[2].split(".")
    for cell in module.cells_.values() if len(path) > 1 else ():
        cell.set_string_attribute(libyosys.IdString("\\\\instance"), path[1])
for command in rest:
    libyosys.Pass.call(design, command)
"""


@dataclass(frozen=True)
class Synthesis:
    """A finished synthesis.

    Attributes:
        folder: Holds `netlist.json` and `yosys.log`.
        instances: What each instance of the top module takes.
        pins: Bits of the top module's ports.
    """

    folder: Path
    instances: Mapping[str, Utilization]
    pins: int

    @cached_property
    def total(self) -> Utilization:
        """What all of it takes."""
        return total(self.instances.values())

    def measurements(self) -> list[Measurement]:
        """Of the whole, and of each instance."""
        rows = self.total.measurements()
        return rows + [row for name, each in self.instances.items() if name for row in each.measurements(name)]

    @classmethod
    def load(cls, folder: Path) -> Synthesis:
        """The inverse of what `synthesize` writes."""
        kept = json.loads((folder / "utilization.json").read_text())
        return cls(folder, {name: Utilization(**each) for name, each in kept["instances"].items()}, kept["pins"])


def sources(design: Path) -> list[Path]:
    """The SystemVerilog of a folder, without its testbench.

    Raises:
        UserError: There is none.
    """
    found = [file for file in sorted(design.rglob("*.sv")) if not any("testbench" in part for part in file.parts)]
    if not found:
        raise UserError("there is no SystemVerilog to synthesize", str(design), "the folder that emit writes")
    return found


def synthesize(
    design: Path,
    folder: Path,
    *,
    top: str = "top",
    clock: float = CLOCK,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Synthesis:
    """Make ECP5 cells of a design.

    Args:
        design: Folder of SystemVerilog, and of the memory files that it reads by relative paths.
        folder: Where the result goes; kept if it is there and was made from the same files.
        top: Name of the top module.
        clock: What the logic is mapped for (MHz).
        limits: Of time and memory.
        progress: Told what yosys is doing.

    Raises:
        ToolError: yosys is missing, was killed, or refused the design; quotes file and line.
        UserError: There is no SystemVerilog.
    """
    library = tools.share("lattice", "cells_bb_ecp5.v")
    commands = [
        ["read_slang", "--keep-hierarchy", "--top", top, "-D", "ECP5", "-v", str(library)],
        ["scratchpad", "-set", "abc9.D", str(round(1e6 / clock * LOGIC))],
        ["synth_ecp5", "-top", top],
        ["delete", "t:$scopeinfo"],
        ["write_json", "netlist.json"],
    ]

    def make(draft: Path) -> None:
        _yosys(design, draft, commands, limits, progress)
        netlist = json.loads((draft / "netlist.json").read_text())
        module = netlist["modules"][top]
        absorb(module)
        trim(netlist)
        (draft / "netlist.json").write_text(json.dumps(netlist))
        pins = sum(len(port["bits"]) for port in module["ports"].values())
        instances = {name: asdict(each) for name, each in count(module).items()}
        (draft / "utilization.json").write_text(json.dumps({"pins": pins, "instances": instances}, indent=1))

    return Synthesis.load(stage(folder, _key(design, [*commands, [absorb.__name__, trim.__name__]]), make))


def ultrascale(
    design: Path,
    folder: Path,
    *,
    top: str = "top",
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> list[Measurement]:
    """Cells of a design on UltraScale+ (LUT: of up to six inputs), as yosys counts them; nothing is placed.

    Args:
        design: As for `synthesize`.
        folder: Where the result goes; kept if it is there and was made from the same files.
        top: Name of the top module.
        limits: Of time and memory.
        progress: Told what yosys is doing.

    Raises:
        ToolError: yosys is missing, was killed, or refused the design; quotes file and line.
        UserError: There is no SystemVerilog.
    """
    commands = [
        ["read_slang", "--keep-hierarchy", "--top", top],
        ["synth_xilinx", "-family", "xcup", "-noiopad", "-noclkbuf", "-flatten", "-top", top],
        ["tee", "-q", "-o", "cells.json", "stat", "-json"],
    ]
    key = _key(design, commands)
    made = stage(folder, key, lambda draft: _yosys(design, draft, commands, limits, progress))
    cells = json.loads((made / "cells.json").read_text())["design"]["num_cells_by_type"]
    kinds = {"FF": r"FD[A-Z]+", "DSP": r"DSP48E2", "BRAM": r"RAMB\d+E2", "CARRY": r"CARRY\d"}
    found = {"LUT": sum(number * _tables(cell) for cell, number in cells.items())}
    for kind, pattern in kinds.items():
        found[kind] = sum(number for cell, number in cells.items() if re.fullmatch(pattern, cell))
    return [
        Measurement(kind.lower(), value, kind, "synthesized", subject="UltraScale+") for kind, value in found.items()
    ]


def _tables(cell: str) -> int:
    """Look-up tables that a cell of UltraScale+ takes; shift registers and distributed memories are made of them."""
    if re.fullmatch(r"LUT\d|INV|SRL\w+", cell):
        return 1
    memory = re.fullmatch(r"RAM(32|64|128|256|512)(X1[SD]|M16|M8|M)", cell)
    if memory is None:
        return 0
    return {"M16": 8, "M8": 8, "M": 4}.get(memory[2]) or max(int(memory[1]) // 64, 1) * (1 + (memory[2] == "X1D"))


def _key(design: Path, commands: list[list[str]]) -> str:
    files = [*sources(design), *(file for kind in ("hex", "mem") for file in design.rglob(f"*.{kind}"))]
    return digest(files, design, str(commands[1:]), tools.find("yosys").version, _SCRIPT)


def _yosys(
    design: Path, draft: Path, commands: list[list[str]], limits: Limits | None, progress: Progress | None
) -> None:
    """Read the sources of a design and run commands on them; what these write goes to the draft."""
    read, *rest = commands
    read = [*read, *(file.relative_to(design).as_posix() for file in sources(design))]
    out = draft.resolve()
    placed = [[str(out / part) if part.endswith(".json") else part for part in command] for command in rest]
    (draft / "script.py").write_text(_SCRIPT.format(commands=[read, *placed]))

    def watch(line: str) -> None:
        found = re.match(r"\d+\.(\d+)\. Executing (\w+) pass", line)
        if found and progress:
            progress(int(found[1]), PASSES, f"yosys: {found[2].lower()}")

    # memories are read by paths relative to the design
    tools.run("yosys", out / "script.py", folder=design, log=draft / "yosys.log", limits=limits, watch=watch)
