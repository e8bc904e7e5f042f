"""Claim: printed letters are told apart in some ten nanoseconds, from 1,000 LUTs up: accuracy against LUTs and latency.

    python -m benchmarks.fpga.letters

LetterRecognition (16 features, 26 classes) stands in for jet tagging. Perceptrons of several widths and numbers of bits
are trained in floats, pruned by magnitude, given their casts, and trained on with these; the unrolled ones take a
sample each cycle, the folded ones share their multipliers over time. The front is chosen on the validation data by the
cost model's LUTs; its networks are synthesized, placed and routed, and judged on the 4,000 letters that nothing was
chosen on, by the integer program. Everything goes to benchmarks/results/fpga/letters.json as soon as it is known: a run
that is killed goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import planish
from planish.compress import Prune, Quantize
from planish.formats import fixed
from planish.models import letters
from planish.models.data import cache_folder
from planish.models.mlp import MLP
from planish.record import environment
from planish.targets.fpga.artifact import FpgaArtifact, load
from planish.targets.fpga.prepare import Prepare
from planish.targets.fpga.program import Linear
from planish.targets.fpga.target import Fpga
from planish.targets.fpga.toolchain import tools
from planish.training import Training

RESULTS = Path(__file__).parents[1] / "results" / "fpga" / "letters.json"
CLOCK = "125MHz"
SEEDS = (1, 2)
BATCH = 125
SUMS = 16  # bits of the scores: all of them, since rounding scores costs more than carrying them
VECTORS = 500


@dataclass(frozen=True)
class Point:
    """A network.

    Attributes:
        hidden: Widths of the hidden layers.
        weights: Bits of a weight.
        activations: Bits of a hidden number.
        inputs: Bits of a feature.
        sparsity: Share of the weights that are zero.
        cycles: Of a folded network, at most, for a letter; 0 is unrolled.
    """

    hidden: tuple[int, ...]
    weights: int
    activations: int
    inputs: int
    sparsity: float
    cycles: int = 0

    @property
    def name(self) -> str:
        """For files and people."""
        shape = "-".join(map(str, (16, *self.hidden, 26)))
        folded = f", {self.cycles} cycles" if self.cycles else ""
        return f"{shape} w{self.weights}a{self.activations}i{self.inputs}, {self.sparsity:.0%} zeros{folded}"

    @property
    def folder(self) -> str:
        """For its artifact."""
        return self.name.replace(" ", "_").replace(",", "").replace("%", "")


POINTS = (
    Point((), 3, 2, 2, 0.6),
    Point((), 2, 2, 3, 0.6),
    Point((12,), 3, 2, 3, 0.6),
    Point((8,), 4, 2, 3, 0.4),
    Point((16,), 3, 2, 3, 0.6),
    Point((24,), 4, 2, 3, 0.7),
    Point((20,), 2, 4, 4, 0.6),
    Point((20,), 3, 3, 3, 0.5),
    Point((20,), 4, 3, 4, 0.6),
    Point((20,), 4, 4, 4, 0.5),
    Point((32,), 3, 3, 4, 0.6),
    Point((24,), 4, 4, 4, 0.5),
    Point((64,), 2, 4, 4, 0.6),
    Point((48, 24), 3, 4, 4, 0.6),
    Point((48,), 4, 3, 4, 0.4),
    Point((96,), 3, 2, 4, 0.5),
    Point((96,), 4, 4, 4, 0.6),
    Point((192, 128), 6, 6, 4, 0.0, 1024),
)


def main() -> None:
    """Train what is not trained yet, build the front, print it."""
    parser = argparse.ArgumentParser(prog="benchmarks.fpga.letters")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=cache_folder() / "fpga-letters", help="trained networks")
    parser.add_argument("--epochs", type=int, nargs=2, default=(12, 40), help="in floats, and with casts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known: dict[str, dict[str, Any]] = {}
    if options.results.exists():
        known = json.loads(options.results.read_text(encoding="utf-8"))["points"]
    for point in POINTS:
        folder = options.work / point.folder
        if point.name not in known or not folder.exists():
            known[point.name] = trained(point, folder, *options.epochs)
            _keep(options.results, known, options.epochs)
            told = ("validation", "accuracy", "modeled lut")
            print(point.name, {name: known[point.name][name] for name in told}, flush=True)
    folders = {point.name: options.work / point.folder for point in POINTS}
    for name in sorted(front(known), key=lambda name: known[name]["modeled lut"]):
        if "fmax" not in known[name]:
            known[name] |= measured(load(folders[name]))
            _keep(options.results, known, options.epochs)
        print(_line(name, known[name]), flush=True)


def data(split: letters.Split) -> tuple[Tensor, Tensor]:
    """The features as eighths from -1 up, which four bits hold, and the letters."""
    x, y = letters.letters(split)
    return ((x + 1) * 7.5).round() / 8 - 1, y


def trained(point: Point, folder: Path, floats: int, casts: int) -> dict[str, Any]:
    """The network, built and saved; how well it does, and its modeled size."""
    torch.manual_seed(0)
    x, y = data("train")
    items = [((a,), {}, b) for a, b in zip(x.split(BATCH), y.split(BATCH), strict=True)]
    model = MLP((16, *point.hidden, 26))
    planish.train(model, items, Training(epochs=floats, learning_rate=1e-2))
    model.eval()
    weights = [layer.get_parameter("weight").detach() for layer in model.layers]
    least = torch.quantile(torch.cat([each.abs().flatten() for each in weights]), point.sparsity)
    left = [each[each.abs() >= least] for each in weights]
    graph = planish.capture(model, (x[:2],), dynamic={"x": {0: "batch"}}, training=True)
    recipe = planish.Recipe(
        *([Prune(point.sparsity, scope="global")] if point.sparsity else []),
        *(_weights(weight, point.weights, index) for index, weight in enumerate(left)),
        Quantize(None, fixed(0, point.inputs - 1), where="path('layers.0')"),
        *([Quantize(None, f"uint{point.activations}")] if point.hidden else []),
        Prepare(point.activations, wide=SUMS, rounding="halfup"),
    )
    prepared = recipe(graph, data=[((a,), {}) for a in data("calibration")[0].split(100)])
    prepared = planish.train(prepared, items, Training(epochs=casts, learning_rate=1.5e-2))
    target = Fpga(clock=CLOCK, mode="unroll", name=point.name)
    if point.cycles:
        target = Fpga(clock=CLOCK, throughput=125e6 / point.cycles, name=point.name)
    artifact = planish.build(prepared, target=target, folder=folder)
    assert isinstance(artifact, FpgaArtifact)
    figures = {row.name: row.value for row in artifact.measurements if not row.where}
    matrices = [each.weight for each in artifact.program.operations if isinstance(each, Linear)]
    return {
        **asdict(point),
        "validation": _accuracy(artifact, "validation"),
        "accuracy": _accuracy(artifact, "evaluation"),
        "weights that are not zero": sum(int(np.count_nonzero(each)) for each in matrices),
        "modeled lut": figures["lut"],
        "modeled ff": figures["ff"],
    }


def measured(artifact: FpgaArtifact) -> dict[str, Any]:
    """Simulated with pauses against the integer program, synthesized, placed and routed."""
    codes = artifact.encode(data("evaluation")[0][:VECTORS])
    artifact.simulate_codes(codes, stall=30)  # raises if a code differs
    simulated = artifact.simulate_codes(codes)
    used, placed = artifact.synthesize().total, artifact.route(SEEDS)
    return {
        "lut": used.lut, "ff": used.ff, "dsp": used.dsp, "bram": used.bram, "comb": placed.used["TRELLIS_COMB"],
        "fmax": placed.median, "fmax of each seed": placed.fmax, "interval": simulated.interval,
        "latency cycles": simulated.latency, "latency ns": simulated.latency * 1e3 / placed.median,
    }  # fmt: skip


def front(known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Networks that no other beats in both validation accuracy and LUTs, smallest first; folded ones by themselves."""
    found = []
    for folded in (False, True):
        best = -1.0
        names = [name for name, each in known.items() if bool(each["cycles"]) == folded]
        for name in sorted(names, key=lambda name: (known[name]["modeled lut"], -known[name]["validation"])):
            if known[name]["validation"] > best:
                best = known[name]["validation"]
                found.append(name)
    return found


def _weights(left: Tensor, bits: int, index: int) -> Quantize:
    """Signed fixed point of least squared error on the weights of a layer that are left."""

    def error(whole: int) -> float:
        step, top = 2.0 ** (whole - bits + 1), 1 << bits - 1
        return float((left - step * (left / step).round().clamp(-top, top - 1)).square().sum())

    whole = min(range(-6, 6), key=error)
    return Quantize(fixed(whole, bits - 1 - whole), None, where=f"path('layers.{index}')")


def _accuracy(artifact: FpgaArtifact, split: letters.Split) -> float:
    x, y = data(split)
    return float((torch.as_tensor(artifact(x)).argmax(1) == y).float().mean())


def _keep(file: Path, known: Mapping[str, Any], epochs: Iterable[int]) -> None:
    """Write what is known; a kill leaves the file as it was."""
    result = {
        "problem": {"clock": CLOCK, "speed": 6, "seeds": SEEDS, "epochs": list(epochs)},
        "environment": {
            **environment(seed=0, command="python -m benchmarks.fpga.letters"),
            "tools": tools.versions(*tools.PIP),
        },
        "front": front(known),
        "points": known,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draft.replace(file)


def _line(name: str, each: Mapping[str, Any]) -> str:
    return (
        f"{name:40} {each['accuracy']:6.1%}  {each['lut']:6} LUT {each['ff']:6} FF {each['dsp']:3} DSP "
        f"{each['fmax']:5.0f} MHz {each['latency ns']:7.1f} ns, a letter each {each['interval']:g} cycles"
    )


if __name__ == "__main__":
    main()
