"""Claim: a folded 64-32-32-10 network of 6 bits takes a digit in 80 cycles at 150 MHz, 2,500 LUTs and 26 DSP blocks.

    python -m benchmarks.fpga.digits

From the trained PyTorch module to the bitstream, each step timed, in one process with two placements at once. The
network is trained in floating point, cached, and only rounded; its digits are those that nothing was chosen on. The
result goes to benchmarks/results/fpga/digits.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

import planish
from planish.compress import Quantize
from planish.models import digits
from planish.models.mlp import MLP
from planish.record import environment
from planish.targets.fpga.prepare import Prepare
from planish.targets.fpga.target import Fpga
from planish.targets.fpga.toolchain import tools
from planish.targets.fpga.toolchain.route import bitstream
from planish.targets.fpga.toolchain.synthesize import ultrascale

RESULTS = Path(__file__).parents[1] / "results" / "fpga"
WIDTHS = (64, 32, 32, 10)
BARS = {  # at most, but for the last two
    "interval": 80,
    "lut": 2500,
    "dsp": 26,
    "seconds to the bitstream": 60,
    "fmax": 150,
    "accuracy": 0.945,
}
SEEDS = (1, 2)  # placed at once on two cores


def main() -> None:
    """Build it, measure it, write the result, print it."""
    parser = argparse.ArgumentParser(prog="benchmarks.fpga.digits")
    parser.add_argument("--device", default="ecp5-25k")
    parser.add_argument("--vectors", type=int, default=500, help="digits that are simulated, with random pauses")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    result = run(options.device, options.vectors)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "digits.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, value in result["figures"].items():
        bar = BARS.get(name)
        print(f"{name:28} {value:>10.4g}" + (f"   bar {bar:g}" if bar is not None else ""))
    for name, seconds in result["seconds"].items():
        print(f"  {name:40} {seconds:8.2f} s, {result['processor seconds'][name]:.2f} s of a processor")


def run(device: str, vectors: int) -> dict[str, Any]:
    """What the result file holds."""
    model = digits.trained(lambda: MLP(WIDTHS), lambda net, x, y: functional.cross_entropy(net(x), y), (64,))
    images, labels = digits.digits("evaluation")
    calibration = digits.batches("calibration")
    seconds: dict[str, float] = {}
    busy: dict[str, float] = {}
    start, last = time.perf_counter(), (time.perf_counter(), processor())

    def passed(step: str) -> None:
        nonlocal last
        now = time.perf_counter(), processor()
        seconds[step], busy[step] = now[0] - last[0], now[1] - last[1]
        last = now

    graph = planish.capture(model, (images[:2],), dynamic={"x": {0: "batch"}})
    quantized = planish.Recipe(Quantize(weights="q0.5", activations="uint6"), Prepare(bits=6))(graph, data=calibration)
    passed("quantize and prepare")
    target = Fpga(
        device,
        "150MHz",
        throughput=150e6 / BARS["interval"],
        budget={"lut": 2500, "dsp": 26},
        name="Digits, 64-32-32-10 in 6 bits",
    )
    artifact = planish.build(quantized, target=target)
    passed("fold and emit")
    with tempfile.TemporaryDirectory() as folder:
        synthesis = artifact.synthesize()
        passed("synthesize")
        placed = artifact.route(SEEDS)
        passed(f"place and route {len(SEEDS)} times")
        size = bitstream(placed).stat().st_size if max(placed.fmax) >= placed.clock else 0
        passed("bitstream")
        total, worked = last[0] - start, sum(busy.values())
        codes = artifact.encode(images[:vectors])
        simulated = artifact.simulate_codes(codes)
        artifact.simulate_codes(codes, stall=30)  # raises if a code differs
        design = artifact.emit(folder + "/design")
        literature = ultrascale(design, Path(folder, "ultrascale"))
        passed("simulate twice and count for UltraScale+")
    right = (torch.as_tensor(artifact(images)).argmax(1) == labels).float().mean()
    float_right = (model(images).argmax(1) == labels).float().mean()
    used = synthesis.total
    figures = {
        "accuracy": float(right),
        "float accuracy": float(float_right),
        "interval": simulated.interval,
        "latency": simulated.latency,
        "lut": used.lut,
        "ff": used.ff,
        "dsp": used.dsp,
        "bram": used.bram,
        "comb": placed.used["TRELLIS_COMB"],
        "fmax": placed.median,
        "fmax of the slowest seed": min(placed.fmax),
        "fmax of the fastest seed": max(placed.fmax),
        "digits a second": min(placed.median, placed.clock) * 1e6 / simulated.interval,
        "bytes of the bitstream": size,
        "seconds to the bitstream": total,
        "processor seconds to the bitstream": worked,
        **{f"UltraScale+ {row.name}": row.value for row in literature},
    }
    return {
        "problem": {"network": WIDTHS, "bits": 6, "device": device, "speed": 6, "clock": placed.clock, "seeds": SEEDS},
        "environment": {
            **environment(seed=0, command="python -m benchmarks.fpga.digits"),
            "tools": tools.versions(*tools.PIP),
        },
        "figures": figures,
        "bars": BARS,
        "seconds": seconds,
        "processor seconds": busy,
        "critical path": [asdict(hop) for hop in placed.path],
        "instances": {name: {**asdict(each), "lut": each.lut} for name, each in synthesis.instances.items()},
        "vectors": {"count": len(codes[0]), "wrong": 0, "with pauses": True},
    }


def processor() -> float:
    """Seconds of processor time of this process and of its children: what a busy machine does not change."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
