"""Claim: the hardware computes what the integer program does, bit for bit, in 10,000 vectors of every block and model.

    python -m benchmarks.fpga.exact                    # about an hour of one core; stop and go on when you like
    python -m benchmarks.fpga.exact --only vit         # names, as a regular expression

Verilator runs the SystemVerilog with random pauses at every port. A third of the vectors are any codes, a third the
smallest and largest ones only, a third what the calibration data looks like. The first code that differs ends the run.
Blocks are those of the cost model's designs, of random sizes, widths and folds; the models have random weights and
norms, in 8 bits, and are those that the tests lower; the digits network and the FashionMNIST network are trained. The
result goes to benchmarks/results/fpga/exact.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tests.targets.fpga import models as small

import planish
from benchmarks.fpga.designs import KINDS, single, together
from planish.compress import Quantize
from planish.record import environment
from planish.targets.fpga.artifact import FpgaArtifact
from planish.targets.fpga.prepare import Prepare
from planish.targets.fpga.program import Codes, Integers, Program
from planish.targets.fpga.streamed.emit import design
from planish.targets.fpga.target import Fpga
from planish.targets.fpga.toolchain import tools
from planish.targets.fpga.toolchain.simulate import simulate

RESULTS = Path(__file__).parents[1] / "results" / "fpga" / "exact.json"
VECTORS = 10_000
SIZES = 4
"""Random designs of each block."""
STALL = 30
"""Percent of the cycles in which a port pauses."""
ROOM = {"lut": 40_000, "ff": 80_000, "dsp": 156, "bram": 208}
"""What folds are chosen for."""
TRAINED = {
    "mlp": ("mlp", "q0.5", "uint6"),
    "mlp in binary": ("mlp", "binary", "uint4"),
    "mlp in MXINT8": ("mlp", "mxint8", "mxint8~dynamic"),
    "fashion_cnn": ("fashion_cnn", "int8", "uint8"),
}


@dataclass(frozen=True)
class Case:
    """Something to simulate.

    Attributes:
        name: In the result.
        key: Digest of the SystemVerilog and of the vectors.
        run: Simulates it, and tells the figures.
    """

    name: str
    key: str
    run: Callable[[], dict[str, Any]]


def main() -> None:
    """Simulate what is missing, write the result, print it."""
    parser = argparse.ArgumentParser(prog="benchmarks.fpga.exact")
    parser.add_argument("--only", default=".", help="names, as a regular expression")
    parser.add_argument("--vectors", type=int, default=VECTORS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    for case in chain(blocks(options.only, options.vectors), models(options.only, options.vectors)):
        rows = kept(options.results)
        if rows.get(case.name, {}).get("key") != case.key:
            start = time.perf_counter()
            figures = case.run()
            rows = kept(options.results) | {
                case.name: {"key": case.key, **figures, "seconds": round(time.perf_counter() - start, 1)}
            }
            write(options.results, rows)
        row = rows[case.name]
        print(
            f"{case.name:24} {row['vectors']:>7,} vectors, {row['wrong']} wrong codes of {row['codes']:>11,}; interval "
            f"{row['interval']:>9,.0f} cycles, {row['modeled interval']:>9,} modeled; {row['seconds']:>7} s",
            flush=True,
        )


def kept(file: Path) -> dict[str, dict[str, Any]]:
    """What was simulated before."""
    return json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else {}


def write(file: Path, rows: dict[str, dict[str, Any]]) -> None:
    """The result file, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    facts = {**environment(seed=0, command="python -m benchmarks.fpga.exact"), "tools": tools.versions("verilator")}
    draft = file.with_suffix(".draft")
    kept_now = {"environment": facts, "stall": STALL, "rows": rows}
    draft.write_text(json.dumps(kept_now, indent=1) + "\n", encoding="utf-8")
    draft.replace(file)


def blocks(only: str, vectors: int) -> Iterator[Case]:
    """Each kind of block, in several sizes."""
    for kind in KINDS:
        for number in range(SIZES):
            name = f"{kind.__name__}-{number}"
            if re.search(only, name):
                program = single(kind, number)
                netlist = together({name: program})
                made = design(netlist)
                yield Case(name, digest(made.files, vectors // SIZES), _block(program, made, vectors // SIZES))


def _block(program: Program, made: Any, vectors: int) -> Callable[[], dict[str, Any]]:
    def run() -> dict[str, Any]:
        codes = mixed(program, vectors)
        wrong, size, found = 0, 0, simulate(made, codes, stall=STALL, seed=1)
        for here, there in zip(program.run(*codes), found.outputs, strict=True):
            wrong, size = wrong + int((here != there.reshape(here.shape)).sum()), size + here.size
        paced = simulate(made, [each[: max(vectors // 10, 8)] for each in codes])
        return told(vectors, wrong, size, paced.interval, made.interval)

    return run


def models(only: str, vectors: int) -> Iterator[Case]:
    """Whole models."""
    for name in (*small.MODELS, *TRAINED):
        if re.search(only, name):
            artifact, real = trained(name) if name in TRAINED else random(name)
            yield Case(name, digest(artifact.design.files, vectors), _model(artifact, real, vectors))


def _model(artifact: FpgaArtifact, real: Sequence[Integers], vectors: int) -> Callable[[], dict[str, Any]]:
    def run() -> dict[str, Any]:
        codes = mixed(artifact.program, vectors, real)
        found = artifact.simulate_codes(codes, stall=STALL, seed=1)  # raises if a code differs
        paced = artifact.simulate_codes([each[:24] for each in codes])
        size = sum(each.size for each in found.outputs)
        return told(vectors, 0, size, paced.interval, artifact.design.interval)

    return run


def told(vectors: int, wrong: int, codes: int, interval: float, modeled: int) -> dict[str, Any]:
    """A row of the result."""
    return {"vectors": vectors, "wrong": wrong, "codes": codes, "interval": interval, "modeled interval": modeled}


def random(name: str) -> tuple[FpgaArtifact, Sequence[Integers]]:
    """A network of the tests, and codes of its calibration data."""
    artifact = Fpga(budget=ROOM).build(small.prepared(name))
    return artifact, artifact.encode(small.MODELS[name].inputs(32))


@cache
def trained(name: str) -> tuple[FpgaArtifact, Sequence[Integers]]:
    """A model of the package, and codes of its calibration data."""
    model, weights, activations = TRAINED[name]
    task = planish.models.get(model)()
    graph = planish.capture(task.model, task.example_inputs, dynamic=task.dynamic)
    recipe = planish.Recipe(Quantize(weights=weights, activations=activations), Prepare())
    artifact = Fpga(budget=ROOM).build(recipe(graph, data=task.calibration))
    args, kwargs, *_ = next(iter(task.calibration))
    return artifact, artifact.encode(*args, **kwargs)


def mixed(program: Program, vectors: int, real: Sequence[Integers] | None = None) -> list[Integers]:
    """Codes of each input: any, extreme, and, where there are some, real ones."""
    rng = np.random.default_rng(0)
    found = []
    for number, value in enumerate(program.inputs):
        codes: Codes = value.codes
        shape = (vectors, *value.shape)
        drawn = rng.integers(codes.low, codes.high + 1, shape)
        ends = np.where(rng.random(shape) < 0.5, codes.low, codes.high)
        kind = np.arange(vectors).reshape(-1, *(1,) * len(value.shape)) % 3
        chosen = np.where(kind == 1, ends, drawn)
        if real is not None:
            chosen = np.where(kind == 2, real[number][np.arange(vectors) % len(real[number])], chosen)
        found.append(chosen)
    return found


def digest(files: Any, vectors: int) -> str:
    """Of a design, and of how it is simulated."""
    return hashlib.sha256(repr((sorted(files.items()), vectors, STALL)).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
