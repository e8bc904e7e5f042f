"""Claim: a number format costs no more than copying the tensor.

    python -m benchmarks.formats
    python -m benchmarks.formats --seconds 20 --threads 1

All programs run in one process, in turn, on 16.8 million float32 numbers, with the output given where a program takes
one; a ratio to `Tensor.copy_` is taken within a round. The time is that of the processor, so that a busy machine
disturbs less. The result goes to benchmarks/results/formats/. See benchmarks/README.md.
"""

# ruff: noqa: A001
from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from planish.formats import get
from planish.formats.kernels.compiled import library
from planish.record import environment

SIDE = 4096
RESULTS = Path(__file__).parent / "results" / "formats"
CASTS = {  # text -> the target: at most so many times copy_
    "int8": 1.1,
    "int8@channel0": 1.1,
    "int8@channel1": 1.1,
    "uint8": 1.1,
    "int4@g32": 1.1,
    "q3.4": 1.1,
    "e4m3": 1.1,
    "e5m2": 1.1,
    "fp8": 1.1,
    "bfloat16": 1.1,
    "mxfp8~dynamic": 1.1,
    "mxfp6~dynamic": 1.1,
    "mxfp4~dynamic": 1.1,
    "mxint8~dynamic": 1.1,
    "bfp8~dynamic": 1.1,
    "mxfp8": 1.1,
    "mxfp4": 1.1,
    "nvfp4": 1.3,
    "nvfp4~dynamic": 1.3,
    "nf4@g64": 1.3,
    "nf4@g64~dynamic": 1.3,
}
ALLOCATING = ("int8", "e4m3", "mxfp8~dynamic", "mxfp4~dynamic")  # at most 1.6 times clone
PACKED = ("int8", "int4@g32", "mxfp8~dynamic", "mxfp4~dynamic", "nvfp4", "nf4@g64")  # at most 2 times copy_
SAME = {  # peers that mean to compute one of our formats
    "torchao MXFP8": "mxfp8~dynamic",
    "torchao MXFP4": "mxfp4~dynamic",
    "torchao NVFP4": "nvfp4~dynamic",
    "Brevitas MXFP8": "mxfp8~dynamic",
    "Brevitas MXINT8": "mxint8~dynamic",
}
SLOW = 6.0  # times copy_: timed in fewer rounds


@dataclass(frozen=True)
class Row:
    """A program's ratio to its base.

    Attributes:
        name: What runs.
        kind: "cast", "allocating", "encode + pack" or "peer".
        base: What it is compared with.
        ratio: The median over rounds.
        low: The 25th percentile of the ratios.
        high: The 75th.
        target: What the ratio may be; 0 where nothing is asked.
        milliseconds: The median time.
        rounds: How many.
    """

    name: str
    kind: str
    base: str
    ratio: float
    low: float
    high: float
    target: float
    milliseconds: float
    rounds: int


def main() -> None:
    """Time everything, write the result, print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.formats", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", type=int, default=SIDE, help="of the square tensor")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    x = torch.randn(options.side, options.side, generator=torch.Generator().manual_seed(0))
    runs, refused = programs(x)
    differing = {name: differing_share(runs[name].run, text, x) for name, text in SAME.items() if name in runs}
    rows = measure(runs, options.seconds)
    result = {
        "problem": {"numbers": x.numel(), "dtype": "float32", "threads": options.threads, "clock": "process CPU time"},
        "kernels": "C++" if library() else "torch",
        "environment": environment(seed=0, command="python -m benchmarks.formats"),
        "rows": [asdict(row) for row in rows],
        "refused": refused,
        "differing": differing,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    file = options.results / f"t{options.threads}.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
    Console().print(table(rows))
    for name, reason in refused.items():
        print(f"{name}: refused, {reason}")
    for name, share in differing.items():
        print(f"{name}: {share:.2%} of the numbers differ from {SAME[name]}")
    print(file)


@dataclass(frozen=True)
class Program:
    """Something to time."""

    run: Callable[[], object]
    kind: str
    base: str = "copy_"
    target: float = 0.0


def programs(x: Tensor) -> tuple[dict[str, Program], dict[str, str]]:
    """What is timed, by name, and the peers that cannot run."""
    y = torch.zeros_like(x)
    runs = {"copy_": Program(lambda: y.copy_(x), "base"), "clone": Program(x.clone, "base")}
    for text, target in CASTS.items():
        format, given = get(text), get(text).parameters(x)
        runs[text] = Program(lambda f=format, g=given: f.cast(x, g, out=y), "cast", target=target)
    for text in ALLOCATING:
        format, given = get(text), get(text).parameters(x)
        runs[f"{text}, new"] = Program(lambda f=format, g=given: f.cast(x, g), "allocating", "clone", 1.6)
    for text in PACKED:
        format, given = get(text), get(text).parameters(x)
        out = format.encode(x, given).pack()
        runs[f"{text}, packed"] = Program(
            lambda f=format, g=given, o=out: f.pack(x, g, out=o), "encode + pack", target=2.0
        )
        runs[f"{text}, packed, new"] = Program(lambda f=format, g=given: f.pack(x, g), "encode + pack")
    refused = {}
    for name, make in peers(x).items():
        try:
            call = make()
            call()
            runs[name] = Program(call, "peer")
        except Exception as error:  # a peer that cannot run is a result of its own
            refused[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return runs, refused


def differing_share(run: Callable[[], Any], text: str, x: Tensor) -> float:
    """The share of numbers that a peer rounds otherwise than our format, by more than the order of its products."""
    with torch.no_grad():
        theirs = run()
    same = torch.isclose(getattr(theirs, "value", theirs).reshape(x.shape), get(text).cast(x), rtol=1e-5, atol=0.0)
    return 1.0 - float(same.float().mean())


def peers(x: Tensor) -> dict[str, Callable[[], Callable[[], Any]]]:
    """What a user would otherwise call, each made when it is asked for."""
    scale, zero = x.abs().max() / 127, torch.zeros((), dtype=torch.int32)
    each, zeros = x.abs().amax(1) / 127, torch.zeros(x.shape[0], dtype=torch.int32)

    def mx(kind: str) -> Callable[[], Any]:
        from torchao.prototype.mx_formats.mx_tensor import MXTensor

        return lambda: MXTensor.to_mx(x, getattr(torch, kind), 32).dequantize(torch.float32)

    def nv() -> Callable[[], Any]:
        from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale

        whole = per_tensor_amax_to_scale(x.abs().max())
        return lambda: NVFP4Tensor.to_nvfp4(x, per_tensor_scale=whole).dequantize(torch.float32)

    def nf4() -> Callable[[], Any]:
        from torchao.dtypes.nf4tensor import NF4Tensor

        return lambda: NF4Tensor.from_tensor(x, 64, 256).get_original_weight()

    def brevitas() -> Callable[[], Any]:
        from brevitas.nn import QuantIdentity
        from brevitas.quant import Int8ActPerTensorFloat

        layer = QuantIdentity(act_quant=Int8ActPerTensorFloat).eval()
        return lambda: layer(x)

    def brevitas_mx(name: str) -> Callable[[], Any]:
        from brevitas.nn import QuantIdentity
        from brevitas.quant import mx_quant_ocp

        layer = QuantIdentity(act_quant=getattr(mx_quant_ocp, name), group_dim=1).eval()
        return lambda: layer(x)

    per_tensor, per_channel = torch.fake_quantize_per_tensor_affine, torch.fake_quantize_per_channel_affine
    return {
        "torch.fake_quantize, int8": lambda: lambda: per_tensor(x, scale, zero, -128, 127),
        "torch.fake_quantize, int8 per channel": lambda: lambda: per_channel(x, each, zeros, 0, -128, 127),
        "torch .to(float8_e4m3fn) and back": lambda: lambda: x.to(torch.float8_e4m3fn).float(),
        "torch .to(bfloat16) and back": lambda: lambda: x.bfloat16().float(),
        "torchao MXFP8": lambda: mx("float8_e4m3fn"),
        "torchao MXFP4": lambda: mx("float4_e2m1fn_x2"),
        "torchao NVFP4": nv,
        "torchao NF4": nf4,
        "Brevitas int8": brevitas,
        "Brevitas MXFP8": lambda: brevitas_mx("MXFloat8e4m3Act"),
        "Brevitas MXINT8": lambda: brevitas_mx("MXInt8Act"),
    }


def measure(runs: dict[str, Program], seconds: float) -> list[Row]:
    """Rounds in random order, in which each program runs once; the slow ones in every eighth round only."""
    with torch.no_grad():
        first = {name: min(_cpu_time(program.run) for _ in range(2)) for name, program in runs.items()}
        slow = {name for name in runs if runs[name].kind == "peer" and first[name] > SLOW * first["copy_"]}
        times: dict[str, list[tuple[int, float]]] = {name: [] for name in runs}
        start, number, shuffle = time.perf_counter(), 0, random.Random(0)
        while time.perf_counter() - start < seconds or number < 9:
            names = [name for name in runs if name not in slow or number % 8 == 0]
            shuffle.shuffle(names)
            for name in names:
                times[name].append((number, _cpu_time(runs[name].run)))
            number += 1
    return [_row(name, runs[name], times) for name in runs]


def _cpu_time(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def _row(name: str, program: Program, times: dict[str, list[tuple[int, float]]]) -> Row:
    base = dict(times[program.base])
    ratios = [spent / base[number] for number, spent in times[name]]
    low, ratio, high = np.percentile(ratios, [25, 50, 75])
    median = statistics.median(spent for _, spent in times[name]) * 1e3
    return Row(
        name, program.kind, program.base, float(ratio), float(low), float(high), program.target, median, len(ratios)
    )


def table(rows: list[Row]) -> Table:
    """For the terminal: what is above its target stands out."""
    result = Table("program", "kind", "ratio", "quartiles", "target", "ms", title="times copy_ (new: times clone)")
    for row in rows:
        style = "bold red" if row.target and row.ratio > row.target else ""
        target = f"{row.target:.1f}" if row.target else ""
        spread = f"{row.low:.2f}-{row.high:.2f}"
        result.add_row(row.name, row.kind, f"{row.ratio:.2f}", spread, target, f"{row.milliseconds:.1f}", style=style)
    return result


if __name__ == "__main__":
    main()
