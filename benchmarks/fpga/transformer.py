"""Claim: a transformer block (64 wide, 4 heads, 16 tokens) is placed and routed on an ECP5-85k in less than 10 minutes.

    python -m benchmarks.fpga.transformer

Layer norms, attention with its softmax, GELU and both residual sums, in 8 bits, with random weights and norms; bit for
bit the integer program (`benchmarks.fpga.exact` simulates 10,000 vectors of it, this benchmark 100). Two placements run
at once, each step is timed. The result goes to benchmarks/results/fpga/transformer.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.targets.fpga import models

from benchmarks.fpga.digits import RESULTS, SEEDS, processor
from planish.record import environment
from planish.targets.fpga.measured import measured
from planish.targets.fpga.target import Fpga
from planish.targets.fpga.toolchain import tools

BARS = {"seconds to the clock": 600}
VECTORS = 100


def main() -> None:
    """Build it, measure it, write the result, print it."""
    parser = argparse.ArgumentParser(prog="benchmarks.fpga.transformer")
    parser.add_argument("--clock", default="100MHz")
    parser.add_argument("--throughput", default="10k", help="blocks a second")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    result = run(options.clock, options.throughput)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "transformer.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, value in result["figures"].items():
        print(f"{name:28} {value:>12.5g}" + (f"   bar {BARS[name]:g}" if name in BARS else ""))
    for name, seconds in result["seconds"].items():
        print(f"  {name:38} {seconds:8.1f} s, {result['processor seconds'][name]:.1f} s of a processor")


def run(clock: str, throughput: str) -> dict[str, Any]:
    """What the result file holds."""
    graph = models.prepared("block")
    seconds: dict[str, float] = {}
    busy: dict[str, float] = {}
    last = time.perf_counter(), processor()

    def passed(step: str) -> None:
        nonlocal last
        now = time.perf_counter(), processor()
        seconds[step], busy[step] = now[0] - last[0], now[1] - last[1]
        last = now

    artifact = Fpga("ecp5-85k", clock, throughput=throughput, name="A transformer block, 64 wide").build(graph)
    passed("fold, size queues and emit")
    synthesis = artifact.synthesize()
    passed("synthesize")
    placed = artifact.route(SEEDS)
    passed(f"place and route {len(SEEDS)} times")
    total, worked = sum(seconds.values()), sum(busy.values())
    real = artifact.encode(models.MODELS["block"].inputs(VECTORS))
    artifact.simulate_codes(real, stall=30)  # raises if a code differs
    simulated = artifact.simulate_codes(real)
    passed("simulate twice")
    rows = measured(artifact.design, artifact.board, "stream", simulated, synthesis, placed)
    known = {row.name: row.value for row in rows if not row.details.get("instance")}
    names = (
        "interval",
        "latency cycles",
        "latency",
        "throughput",
        "lut",
        "ff",
        "dsp",
        "bram",
        "comb",
        "fmax",
        "energy",
    )
    figures = {name: known[name] for name in names}
    figures |= {"fmax of the slowest seed": min(placed.fmax), "fmax of the fastest seed": max(placed.fmax)}
    figures |= {"seconds to the clock": total, "processor seconds to the clock": worked}
    modeled = {row.name: row.value for row in artifact.measurements if not row.details.get("instance")}
    return {
        "problem": {"width": 64, "heads": 4, "tokens": 16, "hidden": 128, "bits": 8, "clock": clock, "seeds": SEEDS},
        "environment": {
            **environment(seed=0, command="python -m benchmarks.fpga.transformer"),
            "tools": tools.versions(*tools.PIP),
        },
        "figures": figures,
        "bars": BARS,
        "modeled": {name: modeled[name] for name in ("interval", "lut", "ff", "dsp", "bram")},
        "seconds": seconds,
        "processor seconds": busy,
        "critical path": [asdict(hop) for hop in placed.path],
        "vectors": {"count": VECTORS, "wrong": 0, "with pauses": True},
    }


if __name__ == "__main__":
    main()
