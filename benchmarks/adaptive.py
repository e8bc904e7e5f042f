"""Claim: models that spend less where less is enough run half again as fast, within a point of the whole's accuracy.

    python -m benchmarks.adaptive                        # every case that has no result yet
    python -m benchmarks.adaptive --case merge-tokens    # one
    python -m benchmarks.adaptive --show                 # the table, and nothing is run

Networks are trained ones (`planish models`); exits learn from their calibration and validation data, and all are judged
on their evaluation data. OpenVINO and ONNX Runtime run the whole model and the adaptive one, in turn and in one
process, on rows of that data; what is told is the fastest adaptive program against the fastest whole one. Each case
leaves one file under benchmarks/results/adaptive/.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from planish import build, capture
from planish.compress import PruneTokens
from planish.graph import Pass
from planish.measure import compare
from planish.models import models
from planish.recipe import Recipe
from planish.record import environment
from planish.targets.cpu import Cpu

RESULTS = Path(__file__).parent / "results" / "adaptive"
ENGINES = ("openvino", "onnxruntime")
TIMED = 192
"""Rows that are timed, at equal distances in the evaluation data."""
SECONDS = 40.0

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """What is made of a network, and what it is to reach.

    Attributes:
        model: A trained task.
        steps: Of the recipe.
        batch: Rows of a call.
        loss: Accuracy that may be lost.
        bar: How many times faster it is to be.
    """

    model: str
    steps: tuple[Pass, ...]
    batch: int
    loss: float
    bar: float = 1.5


CASES = {
    "exits-cnn": Case("fashion_cnn", Recipe.ready("early-exit").steps, 1, 0.005),
    "exits-minilm": Case("minilm_sentiment", Recipe.ready("early-exit").steps, 1, 0.005),
    "merge-tokens": Case("fashion_vit", Recipe.ready("merge-tokens").steps, 32, 0.01),
    "merge-tokens-b1": Case("fashion_vit", Recipe.ready("merge-tokens").steps, 1, 0.01),
    "drop-tokens": Case("fashion_vit", (PruneTokens(remove=24),), 32, 0.01),
}


def main() -> None:
    """Run what is asked for, then print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.adaptive", description=__doc__.partition("\n")[0])
    parser.add_argument("--case", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--again", action="store_true", help="run cases that have a result, too")
    parser.add_argument("--show", action="store_true", help="run nothing")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in options.case:
        file = RESULTS / f"{name}.json"
        if not options.show and (options.again or not file.exists()):
            print(f"running {name}", flush=True)
            file.write_text(json.dumps(run(name), indent=1) + "\n")
    print(table())


def run(name: str) -> dict[str, Any]:
    """Make the network adaptive, judge and time it; what the result file holds."""
    torch.set_num_threads(1)
    case = CASES[name]
    task = models[case.model]()
    graph = capture(task.model, task.example_inputs, dynamic=task.dynamic)
    small = Recipe(*case.steps)(graph, data=[*task.calibration, *task.validation])
    calls = _calls(task.evaluation, case.batch)
    programs = {
        (engine, kind): build(which, Cpu(engine=engine), data=task.calibration)
        for engine in ENGINES
        for kind, which in (("whole", graph), ("adaptive", small))
    }
    times = compare({" ".join(key): each.timed(calls) for key, each in programs.items()}, seconds=SECONDS)
    whole, adaptive = (
        min((" ".join(key) for key in programs if key[1] == kind), key=times.median) for kind in ("whole", "adaptive")
    )
    speed, interval = times.ratio(whole, adaptive)
    engine = programs[(adaptive.split()[0], "adaptive")]
    before, after = (next(row for row in task.judge(each) if row.name == "accuracy") for each in (graph, engine))
    return {
        "case": {"name": name, "model": case.model, "batch": case.batch, "loss": case.loss, "bar": case.bar},
        "recipe": Recipe(*case.steps).to_data(),
        "environment": environment(seed=0, command=f"python -m benchmarks.adaptive --case {name}"),
        "accuracy": {"whole": before.value, "adaptive": after.value, "spread": after.spread},
        "speed": {"value": speed, "interval": interval, "whole": whole, "adaptive": adaptive},
        "same_engine": {each: times.ratio(f"{each} whole", f"{each} adaptive") for each in ENGINES},
        "seconds_a_call": {key: times.median(key) / len(calls) for key in times.seconds},
        "reached": [row.value for row in engine.reached()],
    }


def _calls(data: Any, batch: int) -> Sequence[Call]:
    """Calls of so many rows each, from items at equal distances."""
    rows = [row for args, *_ in data for row in zip(*(part.split(1) for part in args), strict=True)]
    picked = rows[:: len(rows) // TIMED][:TIMED]
    if batch == 1:
        return [(row, {}) for row in picked]
    groups = [picked[first : first + batch] for first in range(0, len(picked), batch)]
    return [(tuple(torch.cat(parts) for parts in zip(*group, strict=True)), {}) for group in groups]


def table() -> str:
    """All results, as Markdown."""
    lines = [
        "| case | model | batch | faster | bar | accuracy | lost, points | may lose | engine |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in CASES:
        file = RESULTS / f"{name}.json"
        if not file.exists():
            continue
        result = json.loads(file.read_text())
        case, speed, accuracy = result["case"], result["speed"], result["accuracy"]
        low, high = speed["interval"]
        lines.append(
            f"| {name} | {case['model']} | {case['batch']} | {speed['value']:.2f}× ({low:.2f} to {high:.2f}) "
            f"| {case['bar']}× | {accuracy['whole']:.4f} → {accuracy['adaptive']:.4f} "
            f"| {100 * (accuracy['whole'] - accuracy['adaptive']):+.2f} | {100 * case['loss']:.1f} "
            f"| {speed['adaptive'].split()[0]} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
