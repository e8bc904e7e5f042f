"""Bits and folding of a perceptron on an FPGA, by the cost model.

    python -m benchmarks.search.folding        # models what results/search/folding.json lacks; minutes

The network has four linear layers for digits. Decisions are the bits of each layer's weights, the bits of what enters
each layer (one for all), and how many cycles a digit may take, from which the target folds the layers. Objectives are
the validation error and the LUTs; one objective weighs an error, LUTs and cycles. The LUTs of a layer are modeled for
each number of bits with all layers alike, and a network's are the sum of its layers'. The greatest difference from
networks that are modeled whole stands in the file.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import planish
from benchmarks.search.precision import Option, error, linears, perceptron, sweep
from benchmarks.search.tables import Table
from planish.compress import Quantize
from planish.formats import get
from planish.models.digits import batches, digits
from planish.record import environment
from planish.targets.fpga.prepare import Prepare

WIDTHS = (64, 48, 32, 32, 10)
LAYERS = len(WIDTHS) - 1
WEIGHTS, INPUTS, CYCLES = (2, 3, 4, 6, 8), (4, 6, 8), (32, 64, 128, 256, 512, 1024)
CLOCK = 100  # MHz
RESULT = Path(__file__).parents[1] / "results" / "search" / "folding.json"


def modeled(weights: tuple[int, ...], inputs: int, cycles: tuple[int, ...]) -> dict[int, list[float]]:
    """LUTs of each layer, for each number of cycles a digit.

    Args:
        weights: Bits, a layer.
        inputs: Bits of what enters a layer.
        cycles: That a digit may take.
    """
    graph = planish.capture(perceptron(WIDTHS), (digits("calibration")[0][:2],), {"x": {0: "batch"}})
    recipe = planish.Recipe(
        *(Quantize(f"int{bits}", None, where=f"path('layers.{layer}')") for layer, bits in enumerate(weights)),
        Quantize(None, f"uint{inputs}"),
        Prepare(inputs),
    )
    prepared = recipe(graph, data=batches("calibration"))
    found = {}
    for count in cycles:
        rows = planish.Fpga(throughput=1e6 * CLOCK / count, clock=f"{CLOCK}MHz").estimate(prepared)
        found[count] = [
            sum(row.value for row in rows if row.name == "lut" and row.where == f"layers.{layer}")
            for layer in range(LAYERS)
        ]
    return found


def main() -> None:
    """Model what is missing, and keep it."""
    kept: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"luts": {}}
    for weights, inputs in itertools.product(WEIGHTS, INPUTS):
        if f"{weights} {inputs}" not in kept["luts"]:
            kept["luts"][f"{weights} {inputs}"] = modeled((weights,) * LAYERS, inputs, CYCLES)
            write(kept)
            print(weights, inputs, kept["luts"][f"{weights} {inputs}"], flush=True)
    kept = json.loads(RESULT.read_text(encoding="utf-8"))
    rng, differences = random.Random(0), []
    for _ in range(5):
        weights, inputs, cycles = tuple(rng.choices(WEIGHTS, k=LAYERS)), rng.choice(INPUTS), rng.choice(CYCLES)
        whole = sum(modeled(weights, inputs, (cycles,))[cycles])
        parts = sum(kept["luts"][f"{bits} {inputs}"][str(cycles)][layer] for layer, bits in enumerate(weights))
        differences.append(abs(parts / whole - 1))
    kept["greatest difference of five whole networks"] = max(differences)
    write(kept)


def write(kept: dict[str, Any]) -> None:
    """The result file, whole or not at all."""
    kept["environment"] = environment(seed=0, command="python -m benchmarks.search.folding")
    draft = RESULT.with_suffix(".draft")
    draft.write_text(json.dumps(kept) + "\n", encoding="utf-8")
    draft.replace(RESULT)


def folding() -> Table:
    """Error, LUTs and cycles: 11,250 points."""
    luts = json.loads(RESULT.read_text(encoding="utf-8"))["luts"]
    images, labels = digits("evaluation")
    model = perceptron(WIDTHS)
    wrong = np.concatenate([accuracies(model, bits, images, error(labels)) for bits in INPUTS])  # inputs, then weights
    space = {"inputs": INPUTS, **{f"layer {i}": WEIGHTS for i in range(LAYERS)}, "cycles": CYCLES}
    cost = np.array(
        [
            sum(luts[f"{bits} {inputs}"][str(cycles)][layer] for layer, bits in enumerate(weights))
            for inputs, *weights, cycles in itertools.product(*space.values())
        ]
    )
    wrong = np.repeat(wrong, len(CYCLES))
    cycles = np.tile(np.array(CYCLES, float), len(wrong) // len(CYCLES))
    loss = wrong + 0.02 * np.log2(cost) + 0.01 * np.log2(cycles)  # half the LUTs for 2 points, half the cycles for 1
    return Table("fpga", space, {"error": wrong, "LUT": cost}, loss, (1.0, float(cost.max()) * 1.01))


def accuracies(model: Any, inputs: int, images: Tensor, judge: Callable[[Tensor], float]) -> Any:
    """The error at every choice of the weights' bits."""

    def options(_: int, weight: Tensor) -> list[Option]:
        cast = get(f"uint{inputs}").cast
        return [Option((bits,), get(f"int{bits}").cast(weight), bits, cast) for bits in WEIGHTS]

    with torch.no_grad():
        return sweep(linears(model, options), images, judge)[0]


if __name__ == "__main__":
    main()
