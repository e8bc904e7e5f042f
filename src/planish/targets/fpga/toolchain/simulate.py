"""Runs a design in Verilator: many samples, with or without random pauses at every port; what came out, and when."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from planish.errors import DataError, EngineError
from planish.targets.fpga.design import Design
from planish.targets.fpga.program import Integers
from planish.targets.fpga.toolchain import tools

TESTBENCH = Path(__file__).parents[1] / "testbench"
STALL = 30
"""Percent of the cycles in which a port pauses, where pauses are asked for."""
KEPT = 100
"""Compiled simulators that are kept."""


@dataclass(frozen=True)
class Simulation:
    """What a simulation showed.

    Attributes:
        outputs: Codes `(samples, *shape)` of each output.
        cycles: From the first beat in to the last one out.
        latency: Cycles from a sample's first beat in to its last beat out; of the first sample, which meets an empty
            pipeline.
        first: Cycles from its first beat in to its first beat out.
        interval: Cycles from one sample to the next, on average over the later half of them (initiation interval).
        peaks: The most beats that each FIFO held, by its instance's name; 0 where no beat had to wait in it.
        warnings: What Verilator's lint said of the design.
        waves: The waveforms' file, where they were asked for.
    """

    outputs: tuple[Integers, ...]
    cycles: int
    latency: int
    first: int
    interval: float
    peaks: Mapping[str, int] = field(default_factory=dict)
    warnings: str = ""
    waves: Path | None = None


def simulate(
    design: Design,
    inputs: Sequence[Integers],
    *,
    stall: int = 0,
    pace: int = 0,
    seed: int = 0,
    waves: Path | None = None,
    limits: tools.Limits | None = None,
) -> Simulation:
    """Feed a design.

    Args:
        design: What is simulated.
        inputs: Codes `(samples, *shape)` of each input.
        stall: Percent of the cycles in which each port pauses, at random.
        pace: Cycles, at least, over which the beats of a sample come in evenly.
        seed: Of the pauses, and of what registers hold before the reset.
        waves: Where to write the waveforms (VCD); None writes none.
        limits: Of the tools.

    Raises:
        EngineError: The design hangs, or breaks the protocol of its streams.
        ToolError: A tool is missing or failed.
        DataError: The inputs do not fit the design.
    """
    samples = _count(design, inputs)
    texts = design.files
    with tempfile.TemporaryDirectory(prefix="planish-") as scratch:
        folder = Path(scratch)
        driver, warnings = compiled(texts, ports(design), folder / "build", waves is not None, limits)
        for name, text in texts.items():
            if name.startswith("memories/"):
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(text)
        for stream, codes in zip(design.inputs, inputs, strict=True):
            stream.pack(np.asarray(codes)).tofile(folder / f"{stream.name}.in")
        log, patience = folder / "driver.log", design.patience * 100 // max(1, 100 - stall)
        tool = tools.Tool("the simulation", "", (str(driver),))
        try:
            said = tools.run(
                tool, ".", str(samples), str(stall), str(seed), str(patience), str(pace),
                folder=folder, log=log, limits=limits,
            )  # fmt: skip
        except tools.ToolError as error:
            said = log.read_text() if log.exists() else ""
            told = [line for line in said.splitlines() if line.startswith(("nothing moved", "cycle "))]
            if not told:
                raise
            raise EngineError(f"the design is wrong: {told[0]}", "the simulation", "simulate(x, waves=FILE)") from error
        times = np.fromfile(folder / "times.out", np.uint64).reshape(-1, 3).astype(np.int64)
        outputs = tuple(
            stream.unpack(np.fromfile(folder / f"{stream.name}.out", np.uint32).reshape(-1, stream.words))
            for stream in design.outputs
        )
        if waves is not None:
            shutil.move(folder / "waves.vcd", waves)
    peaks = {
        found[1]: int(found[2])
        for found in re.finditer(r"^peak (?:TOP\.)?top\.(\w+)\.monitor (\d+)$", said, re.MULTILINE)
    }
    first_in, first_out, last_out = times[0] if design.inputs else (0, *times[0, 1:])
    half = samples // 2
    return Simulation(
        outputs,
        int(last_out if samples == 1 else times[-1, 2]) - int(first_in) + 1,
        int(last_out - first_in),
        int(first_out - first_in),
        float((times[-1, 2] - times[half - 1, 2]) / (samples - half)) if samples > 1 else float("nan"),
        peaks,
        warnings,
        waves,
    )


def ports(design: Design) -> str:
    """The text of ports.h, from which the driver knows the design."""
    sides = {"INPUTS": design.inputs, "OUTPUTS": design.outputs}
    lines = ["// The design's streams: name, 32-bit words in a beat, beats in a sample.", '#include "Vtop.h"']
    for side, streams in sides.items():
        listed = " ".join(f"STREAM({each.name}, {each.words}, {each.beats})" for each in streams)
        lines.append(f"#define {side}(STREAM) {listed}")
    return "\n".join([*lines, ""])


def _count(design: Design, inputs: Sequence[Integers]) -> int:
    if len(inputs) != len(design.inputs):
        raise DataError(f"the design has {len(design.inputs)} inputs, not {len(inputs)}")
    counts = {len(codes) for codes in inputs}
    for stream, codes in zip(design.inputs, inputs, strict=True):
        if np.size(codes) != len(codes) * stream.value.size:
            raise DataError(f"codes of shape {np.shape(codes)[1:]} for {stream.value.shape}", stream.name)
    if len(counts) != 1 or counts == {0}:
        raise DataError(f"inputs have {sorted(counts)} samples", "", "the same number for each, 1 or more")
    return counts.pop()


def compiled(
    texts: Mapping[str, str], header: str, build: Path, waves: bool = False, limits: tools.Limits | None = None
) -> tuple[Path, str]:
    """The simulator of a design, from the cache where it has been made before, and what lint said.

    The memories are no part of it: it reads them as it starts.

    Args:
        texts: The design's files.
        header: The text of ports.h.
        build: A scratch folder, not there yet.
        waves: Whether it can write waveforms.
        limits: Of the tools.

    Raises:
        ToolError: A tool is missing or failed.
    """
    verilator = tools.find("verilator")
    library = _library(verilator, waves, limits)
    sources = {name: text for name, text in texts.items() if name.endswith(".sv")}
    if "rtl/fifo.sv" in sources:
        sources["monitor.sv"] = (TESTBENCH / "monitor.sv").read_text(encoding="utf-8")
    driver = (TESTBENCH / "driver.cpp").read_text(encoding="utf-8")
    key = _digest(*sources.items(), header, driver, verilator.version, waves)
    place = _cache() / f"{key}.sim"
    told = place.with_suffix(".txt")
    with contextlib.suppress(FileNotFoundError):
        os.utime(place)
        return place, told.read_text()
    build.mkdir(parents=True)
    for name, text in sources.items():
        (build / name).parent.mkdir(exist_ok=True)
        (build / name).write_text(text, encoding="utf-8")
    (build / "ports.h").write_text(header)
    (build / "driver.cpp").write_text(driver)
    options = ["--cc", "-Wall", "-Wno-fatal", "--x-initial", "unique", "--x-assign", "unique", "--quiet"]
    options += ["--output-split", "0", *(["--trace-vcd"] if waves else []), "--top-module", "top", "-Mdir", "."]
    order = sorted(
        sources, key=lambda name: (name == "top.sv", not re.search(r"^package\b", sources[name], re.M), name)
    )
    said = tools.run(verilator, *options, *order, folder=build, log=build / "verilator.log", limits=limits)
    warnings = "\n".join(line for line in said.splitlines() if line.startswith("%"))
    units = sorted(file.name for file in build.glob("Vtop*.cpp"))
    (build / "all.cpp").write_text("".join(f'#include "{unit}"\n' for unit in [*units, "driver.cpp"]))
    flags = [*_flags(verilator, waves), *(["-include", "verilated_vcd_c.h"] if waves else [])]
    tools.run(
        "g++", *flags, "-I.", "all.cpp", str(library), "-pthread", "-o", "sim",
        folder=build, log=build / "compile.log", limits=limits,
    )  # fmt: skip
    _keep(told, warnings.encode())
    _keep(place, (build / "sim").read_bytes(), executable=True)
    _prune()
    return place, warnings


def _library(verilator: tools.Tool, waves: bool, limits: tools.Limits | None) -> Path:
    """Verilator's own run-time code, compiled once."""
    flags = _flags(verilator, waves)
    place = _cache() / f"verilated-{_digest(verilator.version, *flags)}.a"
    if place.exists():
        return place
    root = Path(verilator.environment["VERILATOR_ROOT"]) / "include"
    with tempfile.TemporaryDirectory(prefix="planish-") as scratch:
        folder = Path(scratch)
        names = ["verilated", "verilated_threads", *(["verilated_vcd_c"] if waves else [])]
        for name in names:
            arguments = [*flags, "-c", str(root / f"{name}.cpp"), "-o", f"{name}.o"]
            tools.run("g++", *arguments, folder=folder, log=folder / "log", limits=limits)
        # One object that holds them all: `ar` is one more tool that could be missing.
        objects = [f"{name}.o" for name in names]
        tools.run("g++", "-r", "-nostdlib", *objects, "-o", "all.o", folder=folder, log=folder / "log", limits=limits)
        _keep(place, (folder / "all.o").read_bytes())
    return place


def _flags(verilator: tools.Tool, waves: bool) -> list[str]:
    root = Path(verilator.environment["VERILATOR_ROOT"]) / "include"
    return [
        "-O1", "-std=c++17", f"-I{root}", f"-I{root}/vltstd", "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TIMING=0",
        f"-DVM_TRACE={int(waves)}", f"-DVM_TRACE_VCD={int(waves)}", "-DVM_TRACE_FST=0", "-DVM_TRACE_SAIF=0",
        *(["-DWAVES"] if waves else []),
    ]  # fmt: skip


def _cache() -> Path:
    """`$XDG_CACHE_HOME/planish/simulators`, or below `~/.cache`."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "planish" / "simulators"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _keep(place: Path, content: bytes, executable: bool = False) -> None:
    """Write a file of the cache whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as draft:
        draft.write(content)
    Path(draft.name).chmod(0o755 if executable else 0o644)
    Path(draft.name).replace(place)


def _prune() -> None:
    """Forget the simulators that were used longest ago; another process may do so at the same time."""
    used = {}
    for file in _cache().glob("*.sim"):
        with contextlib.suppress(FileNotFoundError):
            used[file] = file.stat().st_mtime
    for file in sorted(used, key=used.__getitem__)[:-KEPT]:
        file.unlink(missing_ok=True)
        file.with_suffix(".txt").unlink(missing_ok=True)
