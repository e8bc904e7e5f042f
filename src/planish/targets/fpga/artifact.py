"""`FpgaArtifact`: a model as hardware: run as integers, simulated, and taken through the tools to a bitstream."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from planish.errors import DataError, EngineError, UntrustedFile, UserError
from planish.graph.structure import load_spec
from planish.record import Measurement, environment
from planish.targets.fpga import project
from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.board import Board
from planish.targets.fpga.design import Design
from planish.targets.fpga.measured import measured
from planish.targets.fpga.program import Integers, Program
from planish.targets.fpga.streamed.emit import design as emit
from planish.targets.fpga.streamed.netlist import connect
from planish.targets.fpga.toolchain.route import SEEDS, Route, bitstream, route
from planish.targets.fpga.toolchain.simulate import Simulation, simulate
from planish.targets.fpga.toolchain.synthesize import Progress, Synthesis, synthesize
from planish.targets.fpga.toolchain.tools import Limits

NOTE = "fpga.json"
"""Its presence tells a folder from other artifacts."""
VECTORS = 64
"""Samples in the testbench of the emitted folder."""
_PROGRAM = "program"


@dataclass
class FpgaArtifact:
    """A model in hardware.

    Attributes:
        program: What it computes, on integers.
        board: Device, package, speed grade and clock.
        mode: "stream": folded blocks; "unroll": one circuit for all of it.
        folds: Of each operation, by the name of what it makes; of mode "stream".
        depths: Beats of the FIFOs before inputs, by `value.port`; of mode "stream".
        blocks: Registered names of the user's own blocks, as `Fpga` takes them.
        title: What the emitted files call it.
        measurements: What was found out while it was built, and since.
        path: The folder, once saved.
    """

    program: Program
    board: Board
    mode: str = "stream"
    folds: Mapping[str, Fold] = field(default_factory=dict)
    depths: Mapping[str, int] = field(default_factory=dict)
    blocks: Mapping[str, str] = field(default_factory=dict)
    title: str = "A model"
    measurements: Sequence[Measurement] = field(default_factory=list)
    path: Path | None = None

    @cached_property
    def design(self) -> Design:
        """The SystemVerilog."""
        if self.mode == "unroll":
            from planish.targets.fpga.unrolled.emit import design as unrolled
            from planish.targets.fpga.unrolled.pipeline import pipeline  # needs SciPy
            from planish.targets.fpga.unrolled.unroll import unroll

            circuit = unroll(self.program)
            return unrolled(self.program, circuit, pipeline(circuit, 1e3 / self.board.clock), self.title)
        return emit(connect(self.program, self.folds, self.depths, self.blocks), self.title)

    # Running ---------------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the integer program; arguments and result are those of the original model.

        Raises:
            DataError: The arguments do not fit.
        """
        tensors = self.program.decode(*self.program.run(*self.encode(*args, **kwargs)))
        structure: Any = self.program.structure
        made = [torch.from_numpy(np.ascontiguousarray(x)) for x in tensors]
        made = [x.float() if x.is_floating_point() else x for x in made]
        leaves = [item[0] if isinstance(item, list) else made[item] for item in structure["results"]]
        return pytree.tree_unflatten(leaves, load_spec(structure["out_spec"], "the artifact"))

    def encode(self, *args: Any, **kwargs: Any) -> tuple[Integers, ...]:
        """The codes, `(batch, *shape)` each, that a call sends in.

        Raises:
            DataError: The arguments do not fit.
        """
        structure: Any = self.program.structure
        leaves, given = pytree.tree_flatten((args, kwargs))
        if given != load_spec(structure["in_spec"], "the artifact"):
            names = ", ".join(value.name for value in self.program.inputs)
            raise DataError(
                f"the call has {len(leaves)} inputs in another structure than the model was captured with",
                names,
                "call it as in example_inputs",
            )
        tensors = [torch.as_tensor(leaf).detach() for leaf in leaves]
        return self.program.encode(*(x.numpy() for x in tensors))

    def simulate(
        self, *args: Any, stall: int = 0, seed: int = 0, waves: str | os.PathLike[str] | None = None, **kwargs: Any
    ) -> Simulation:
        """Run the SystemVerilog, and compare it with the integer program.

        Args:
            *args: Of the model.
            stall: Percent of the cycles in which each port pauses, at random.
            seed: Of the pauses.
            waves: Where to write waveforms (VCD).
            **kwargs: Of the model.

        Returns:
            The codes that came out, and when.

        Raises:
            EngineError: The hardware computes something else, or hangs.
            ToolError: A tool is missing or failed.
        """
        return self.simulate_codes(
            self.encode(*args, **kwargs), stall=stall, seed=seed, waves=None if waves is None else Path(waves)
        )

    def simulate_codes(
        self, codes: Sequence[Integers], *, stall: int = 0, seed: int = 0, waves: Path | None = None
    ) -> Simulation:
        """As `simulate`, with codes `(samples, *shape)` for each input."""
        expected = self.program.run(*codes)
        found = simulate(self.design, codes, stall=stall, seed=seed, waves=waves)
        for value, here, there in zip(self.program.results, expected, found.outputs, strict=True):
            wrong = int((here != there.reshape(here.shape)).sum())
            if wrong:
                raise EngineError(
                    f"{wrong} of {here.size} codes of {value.name} differ from the integer program's",
                    value.path or "the simulation",
                    "report this, with the artifact's folder",
                )
        shaped = (there.reshape(here.shape) for here, there in zip(expected, found.outputs, strict=True))
        return replace(found, outputs=tuple(shaped))

    def random(self, samples: int, seed: int = 0) -> tuple[Integers, ...]:
        """Codes of each input, all of those that it may hold, `(samples, *shape)`."""
        rng = np.random.default_rng(seed)
        return tuple(
            rng.integers(value.codes.low, value.codes.high + 1, (samples, *value.shape))
            for value in self.program.inputs
        )

    # Tools -----------------------------------------------------------------------------------------------------------

    @cached_property
    def _scratch(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="planish-"))
        weakref.finalize(self, shutil.rmtree, folder, True)
        return folder

    @property
    def _work(self) -> Path:
        """Where the tools' results are kept: beside the saved design, or in a folder that goes with this object."""
        return self.path or self._scratch

    def emit(self, folder: str | os.PathLike[str]) -> Path:
        """Write the design as a folder that stands on its own, with a testbench.

        Raises:
            UserError: The folder is there and is something else.
        """
        codes = self.random(VECTORS)
        return project.write(self.design, Path(folder), codes, self.program.run(*codes), self.title)

    def synthesize(self, limits: Limits | None = None, progress: Progress | None = None) -> Synthesis:
        """Cells of the device, in total and by instance.

        Raises:
            ToolError: yosys is missing, was killed, or failed.
        """
        source = self.emit(self._work / "design")
        return synthesize(source, self._work / "synthesis", clock=self.board.clock, limits=limits, progress=progress)

    def route(
        self, seeds: Sequence[int] = SEEDS, limits: Limits | None = None, progress: Progress | None = None
    ) -> Route:
        """Placed and routed: the clock that it reaches.

        Raises:
            UserError: The design is larger than the device.
            ToolError: nextpnr is missing, was killed, or failed.
        """
        made, board = self.synthesize(limits, progress), self.board
        return route(
            made, self._work / "route", device=board.device, package=board.package, speed=board.speed,
            clock=board.clock, seeds=seeds, limits=limits, progress=progress,
        )  # fmt: skip

    def bitstream(
        self, seeds: Sequence[int] = SEEDS, limits: Limits | None = None, progress: Progress | None = None
    ) -> Path:
        """The file that configures the device.

        Raises:
            ClockNotMet: No placement is as fast as the clock; names the path.
            UserError: More pins than the package has, or a design larger than the device.
            ToolError: A tool is missing or failed.
        """
        return bitstream(self.route(seeds, limits, progress), limits)

    def measure(
        self, samples: int = 16, seeds: Sequence[int] = SEEDS, progress: Progress | None = None
    ) -> list[Measurement]:
        """Simulate it, synthesize it, place and route it.

        Args:
            samples: Random samples that are simulated, 2 or more.
            seeds: Placements that are tried.
            progress: Told of each step.

        Raises:
            ToolError: A tool is missing or failed.
            UserError: The design is larger than the device.
        """
        if samples < 2:
            raise DataError(f"the interval is between samples: {samples} is too few", "samples", "samples=16")
        simulated = self.simulate_codes(self.random(samples))
        synthesis = self.synthesize(progress=progress)
        placed = self.route(seeds, progress=progress)
        rows = measured(self.design, self.board, self.mode, simulated, synthesis, placed)
        kept = [row for row in self.measurements if row.source == "modeled" or row.name == "budget"]
        self.measurements = kept + rows
        return rows

    # Keeping ---------------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the program, `fpga.json`, and `design/`, which stands on its own.

        Raises:
            UserError: The disk refused, or the folder is something else; what it held is still there.
        """
        target = Path(folder)
        place = target.resolve()
        draft, before = (place.with_name(f".{place.name}.{kind}") for kind in ("draft", "before"))
        if target.exists() and not (target / NOTE).exists() and any(target.iterdir()):
            raise UserError(
                "the folder is not an artifact for an FPGA, and is not overwritten", str(target), "another folder"
            )
        note = {
            "format": 1,
            "board": asdict(self.board),
            "mode": self.mode,
            "folds": {name: asdict(fold) for name, fold in self.folds.items()},
            "depths": dict(self.depths),
            "blocks": dict(self.blocks),
            "title": self.title,
            "version": importlib.metadata.version("planish"),
            "environment": environment(),
        }
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            self.program.save(draft / _PROGRAM)
            self.emit(draft / "design")
            (draft / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
            for kept in ("synthesis", "route"):
                if (self._work / kept).exists():
                    shutil.copytree(self._work / kept, draft / kept)
            if target.exists():
                target.rename(before)
            draft.rename(target)
        except OSError as error:
            if before.exists() and not target.exists():
                before.rename(target)
            raise UserError(
                f"cannot save the artifact: {error.strerror}", str(target), "free space, or another folder"
            ) from error
        finally:
            for left in (draft, before):
                shutil.rmtree(left, ignore_errors=True)
        self.path = target
        return target


def load(folder: str | os.PathLike[str]) -> FpgaArtifact:
    """Read what `save` wrote. The SystemVerilog is made anew from the program; nothing in the folder is executed.

    Raises:
        UntrustedFile: The folder is no artifact, or is damaged.
    """
    path = Path(folder)
    try:
        note = json.loads((path / NOTE).read_text(encoding="utf-8"))
        return FpgaArtifact(
            Program.load(path / _PROGRAM),
            Board(**note["board"]),
            str(note["mode"]),
            {str(name): Fold(**fold) for name, fold in note["folds"].items()},
            {str(name): int(depth) for name, depth in note["depths"].items()},
            {str(pattern): str(name) for pattern, name in note["blocks"].items()},
            str(note["title"]),
            path=path,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UntrustedFile(
            f"this is no artifact for an FPGA, or it is damaged ({error})",
            str(path),
            "planish build MODEL --target fpga",
        ) from error
