"""`Fpga`: a quantized graph as hardware."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, get_args

from planish.errors import DataError, OptionError
from planish.graph import Graph
from planish.holes import Fillable
from planish.record import Measurement
from planish.targets.base import Data, Progress, Unsupported
from planish.targets.fpga.artifact import FpgaArtifact
from planish.targets.fpga.blocks import blocks
from planish.targets.fpga.board import Board, megahertz, quantity
from planish.targets.fpga.lower import lower, unsupported
from planish.targets.fpga.prepare import Prepare
from planish.targets.fpga.program import Program
from planish.targets.fpga.streamed.cost import cost
from planish.targets.fpga.streamed.emit import design
from planish.targets.fpga.streamed.folding import Folding, choose
from planish.targets.fpga.streamed.netlist import Netlist, connect
from planish.targets.fpga.streamed.queues import bursts, depths, needed
from planish.targets.fpga.toolchain.simulate import Simulation, simulate
from planish.targets.fpga.toolchain.utilization import UNITS, total

Mode = Literal["stream", "unroll"]
_FULL = {"lut": 0.7, "ff": 0.7, "dsp": 1.0, "bram": 0.95}
"""How much of a device is filled where no budget is given: a fuller one is hard to route."""
_TRIED = 6
"""Samples that are simulated to see how much waits in the FIFOs."""
_SLOWER = 1.01
"""By how much a design may be slower than its slowest block before queues are put between busy blocks."""
_STEPS = 4


def _silent(_done: int, _total: int, _what: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Fpga(Fillable):
    """A device of the ECP5 family, and how a model is laid out on it.

    Attributes:
        device: "ecp5-25k", "ecp5-45k" or "ecp5-85k".
        clock: What to aim at, "100MHz".
        mode: "stream": blocks that share their multipliers over time, connected by streams; "unroll": one circuit that
            takes a sample each cycle, for networks of some thousand weights.
        throughput: Samples a second to reach at least cost, "50k"; None: as many as fit. Of mode "stream".
        budget: How much to use at most: "lut" (LUT4-equivalents), "ff", "dsp", "bram"; what is not named is as large as
            the device has.
        speed: Speed grade of the device; 6 is the slowest.
        package: Of the device; None: its largest.
        name: What the emitted files call the model.
        blocks: Blocks of your own: registered name (an entry point of `planish.block`) by a pattern of module paths
            and, after a colon, the kind of operation, `{"encoder.*:linear": "mine"}`.
    """

    runs_here: ClassVar[bool] = False

    device: str = "ecp5-85k"
    clock: str | float = "100MHz"
    mode: Mode = "stream"
    throughput: str | float | None = None
    budget: Mapping[str, int] | None = None
    speed: int = 6
    package: str | None = None
    name: str = "A model"
    blocks: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise OptionError(f"unknown mode {self.mode!r}", "mode", f"one of {', '.join(get_args(Mode))}")
        for kind, limit in (self.budget or {}).items():
            if kind not in _FULL:
                raise OptionError(f"unknown resource {kind!r}", "budget", f"known: {', '.join(_FULL)}")
            if limit < 0:
                raise OptionError(f"a budget is 0 or more, not {limit}", f"budget, {kind}")
        for name in self.blocks.values():
            _ = blocks[name]
        _ = self.board, self.interval

    @cached_property
    def board(self) -> Board:
        """Where it goes."""
        return Board(self.device, megahertz(self.clock), self.speed, self.package)

    @cached_property
    def interval(self) -> int | None:
        """Most cycles that a sample may take."""
        if self.throughput is None:
            return None
        rate = quantity(self.throughput, "/s", "throughput", "50k")
        cycles = int(self.board.clock * 1e6 / rate)
        if cycles < 1:
            raise OptionError(
                f"{rate:g} samples a second are more than one in each cycle of {self.board.clock:g} MHz",
                "throughput",
                "a higher clock, or fewer samples",
            )
        return cycles

    @cached_property
    def limits(self) -> dict[str, int]:
        """The budget, with the device's own limits where it says nothing."""
        have = self.board.chip.capacity()
        given = dict(self.budget or {})
        return {kind: min(given.get(kind, int(have[kind] * full)), have[kind]) for kind, full in _FULL.items()}

    @property
    def _budget(self) -> list[Measurement]:
        limits = self.limits.items()
        return [Measurement("budget", limit, UNITS.get(kind, "LUT4"), "exact", subject=kind) for kind, limit in limits]

    def unsupported(self, graph: Graph) -> list[Unsupported]:
        """What of the graph has no integer form, or cannot be unrolled; nothing of a graph that `Prepare` takes."""
        if graph.branches:
            return [Unsupported("", "cond", "hardware has no branches: the model chooses what to compute")]
        found = Prepare().unsupported(graph) if unsupported(graph) else []
        if found or self.mode == "stream":
            return found
        from planish.targets.fpga.unrolled.unroll import unsupported as too_large

        return [Unsupported(where, "unroll", reason) for where, reason in too_large(self._draft(graph))]

    def estimate(self, graph: Graph) -> list[Measurement]:
        """Modeled cells and cycles, in total and by module, without building it.

        Raises:
            GraphError: A step has no integer form.
            UserError: It does not fit; says by how much.
        """
        program = self._draft(graph)
        return self._unrolled(program) if self.mode == "unroll" else self._modeled(program, self._fold(program))

    def build(
        self,
        graph: Graph,
        *,
        data: Data | None = None,
        original: Graph | None = None,
        folder: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> FpgaArtifact:
        """Lower the graph to integers, choose folds, and connect the blocks.

        A graph that is not in fixed point is prepared first, with the defaults of `Prepare`.

        Args:
            graph: What to build.
            data: To choose fraction bits on, where the graph must be prepared.
            original: If given, the artifact is measured: simulated, synthesized, placed and routed.
            folder: Where to save the artifact; None does not.
            progress: Told of each step.

        Raises:
            GraphError: A step has no integer form; names the first by its module path.
            UserError: It does not fit the device or the budget; says by how much, and what would.
        """
        tell = progress or _silent
        tell(0, _STEPS, "lowering to integers")
        program = lower(self._prepared(graph, data))
        if self.mode == "unroll":
            tell(1, _STEPS, "sharing adders")
            artifact = FpgaArtifact(program, self.board, "unroll", title=self.name)
            artifact.measurements = [*self._unrolled(program), *self._budget]
        else:
            tell(1, _STEPS, "choosing folds")
            folding = self._fold(program)
            tell(2, _STEPS, "sizing queues")
            queues = self._queues(program, folding)
            artifact = FpgaArtifact(program, self.board, "stream", folding.folds, queues, self.blocks, self.name)
            artifact.measurements = [*self._modeled(program, folding), *self._budget]
        if folder is not None:
            tell(3, _STEPS, "writing files")
            artifact.save(Path(folder))
        if original is not None:
            artifact.measure(progress=tell)
        tell(_STEPS, _STEPS, "built")
        return artifact

    def _prepared(self, graph: Graph, data: Data | None) -> Graph:
        if not unsupported(graph):
            return graph
        if data is None and not Prepare().unsupported(graph):
            raise DataError(
                "the graph is not in fixed point, and there is no calibration data to choose fraction bits on",
                "the FPGA target",
                "build(graph, data=...), or planish compress MODEL --target fpga",
            )
        return Prepare()(graph, data)

    def _draft(self, graph: Graph) -> Program:
        """The program, values aside."""
        return lower(Prepare().draft(graph) if unsupported(graph) else graph)

    def _fold(self, program: Program) -> Folding:
        return choose(program, self.limits, cost, self.interval, self.blocks)

    def _queues(self, program: Program, folding: Folding) -> dict[str, int]:
        """FIFO depths: bounds first, then what the simulation of a few samples showed to be needed."""
        plain = connect(program, folding.folds, chosen=self.blocks)
        bounds, smooth = depths(plain), bursts(plain)
        if not bounds and not smooth:
            return {}
        codes = FpgaArtifact(program, self.board).random(_TRIED)

        def tried(queues: dict[str, int]) -> tuple[Simulation, dict[str, int]]:
            netlist = connect(program, folding.folds, queues, self.blocks)
            found = simulate(design(netlist), codes, pace=folding.interval)
            return found, needed(netlist, queues, found.peaks)

        first, enough = tried(bounds)
        if not smooth or first.interval <= folding.interval * _SLOWER:
            return enough
        second, _ = tried({**smooth, **bounds})
        return {**smooth, **enough} if second.interval < first.interval else enough

    def _unrolled(self, program: Program) -> list[Measurement]:
        """What is known of a circuit before synthesis: in total, and by what each module makes."""
        from planish.targets.fpga.unrolled.area import areas
        from planish.targets.fpga.unrolled.pipeline import pipeline
        from planish.targets.fpga.unrolled.unroll import unroll

        circuit = unroll(program)
        cut = pipeline(circuit, 1e3 / self.board.clock)
        details = {"device": self.device, "MHz": self.board.clock, "mode": self.mode}
        figures = {
            "interval": (1, "cycles"),
            "stages": (cut.stages, "cycles"),
            "throughput": (self.board.clock * 1e6, "samples/s"),
        }
        found = areas(circuit, cut)
        rows = [Measurement(name, value, unit, "modeled", details=details) for name, (value, unit) in figures.items()]
        rows += total(found.values()).measurements(source="modeled")
        for name, each in found.items():
            if name:  # a layer's
                rows += each.measurements(program.values[name].path or name, source="modeled")
        return rows

    def _modeled(self, program: Program, folding: Folding) -> list[Measurement]:
        """What the cost model says: in total with what connects the blocks, and by module."""
        netlist: Netlist = connect(program, folding.folds, chosen=self.blocks)
        costs = {cell.name: cost(cell.instance) for cell in netlist.cells}
        cycles = {"interval": folding.interval}
        details = {"device": self.device, "MHz": self.board.clock, "mode": self.mode}
        rows = [Measurement(name, value, "cycles", "modeled", details=details) for name, value in cycles.items()]
        rate = self.board.clock * 1e6 / folding.interval
        rows.append(Measurement("throughput", rate, "samples/s", "modeled", details=details))
        rows += total(costs.values()).measurements(source="modeled")
        for cell in netlist.blocks:
            where = {"instance": cell.name, "module": cell.instance.module}
            rows.append(
                Measurement("cycles", cell.instance.interval, "cycles", "modeled", where=cell.path, details=where)
            )
            rows += [replace(row, details=where) for row in costs[cell.name].measurements(cell.path, source="modeled")]
        return rows
