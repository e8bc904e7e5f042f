"""Whether plans that are predicted to be faster are: measured and predicted step times on processes of this machine.

    python -m benchmarks.training.ranking          # measures what results/training/ranking.json lacks, and judges
    python -m benchmarks.training.ranking --fit    # and fits the constants of "cpu", on the first four models

Eleven plans for four processes train a transformer on gloo; steps of all plans are timed in turn after a warm-up, the
median counts.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import least_squares
from scipy.stats import spearmanr
from tests.training.parallel.networks import GPT, TOKENS, WORDS
from tests.training.parallel.pool import Pool

import planish
from benchmarks.training.steptime import freeze
from planish.graph import Graph
from planish.record import Run, environment
from planish.training import Moment, Training
from planish.training.loop import Loop
from planish.training.losses import cross_entropy
from planish.training.parallel import Plan
from planish.training.parallel.spread import Spread
from planish.training.parallel.tensor import megatron
from planish.training.parallel.world import is_first
from planish.training.planning import Cluster
from planish.training.planning.constants import Constants, constants
from planish.training.planning.planner import Planner
from planish.training.start import OfTarget

RESULTS = Path("benchmarks/results/training")
STEPS, WARM, ROUNDS, DEVICES = 8, 2, 4, 4
Shape = tuple[int, int, int]
"""Width, layers, rows of a step."""
FITTED: tuple[Shape, ...] = ((256, 6, 128), (384, 4, 64), (512, 4, 32), (320, 5, 96))
JUDGED: tuple[Shape, ...] = ((448, 4, 48), (192, 8, 96))
"""Measured when constants and terms were settled."""
NAMES = ("product", "side", "memory", "node", "sharding", "copied", "latency", "start", "start_distributed")
PLANS = [
    Plan(dp=4),
    Plan(fsdp=4),
    Plan(dp=2, fsdp=2),
    Plan(tp=4),
    Plan(dp=2, tp=2),
    Plan(fsdp=2, tp=2),
    Plan(pp=4, microbatches=4),
    Plan(dp=2, pp=2, microbatches=4),
    Plan(tp=2, pp=2, microbatches=2),
    Plan(dp=4, recompute="blocks.*"),
    Plan(dp=4, microbatches=4),
]


class Times:
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_step(self, moment: Moment) -> None:
        self.at.append(time.perf_counter())

    def on_epoch(self, moment: Moment) -> None:
        pass

    def on_end(self, moment: Moment) -> None:
        pass


def model(shape: Shape) -> tuple[Graph, list[Any]]:
    torch.manual_seed(0)
    width, layers, rows = shape
    ids = [torch.randint(0, WORDS, (rows, TOKENS)) for _ in range(4)]
    graph = planish.capture(GPT(width=width, heads=8, layers=layers), (ids[0],), dynamic={"ids": {0: "batch"}})
    return graph, [((each,), {}, each) for each in ids]


def steps(shape: Shape, plan: Plan) -> list[float] | None:
    """Seconds of each step but the first ones."""
    graph, data = model(shape)
    watch, net = Times(), graph.module(hierarchical=True).train()

    def engine(*given: Any) -> Spread:
        return Spread(*given, plan, graph)

    Loop(net, data, OfTarget(cross_entropy), Training(steps=STEPS), [watch], engine=engine).run()
    taken = [later - earlier for earlier, later in zip(watch.at[WARM:-1], watch.at[WARM + 1 :], strict=True)]
    return taken if is_first() else None


def measured(shapes: Sequence[Shape]) -> dict[Shape, np.ndarray]:
    """Median seconds of each plan."""
    found: dict[Shape, list[list[float]]] = {shape: [[] for _ in PLANS] for shape in shapes}
    for _ in range(ROUNDS):  # in turn, so that a busy minute does not fall on one plan
        pool = Pool()  # anew, since where the system puts processes and pages stays with them
        for shape in shapes:
            for own, plan in zip(found[shape], PLANS, strict=True):
                own += pool.run(steps, shape, plan, processes=DEVICES)[0]
                print(f"{shape} {plan}: {statistics.median(own):.3f} s", file=sys.stderr, flush=True)
        pool.end()
    return {shape: np.array([statistics.median(own) for own in each]) for shape, each in found.items()}


def planner(shape: Shape) -> Planner:
    graph, _ = model(shape)
    made = Planner(graph, Cluster.of("cpu", devices=DEVICES), shape[2], math.inf, "fp32")
    for tp in {plan.tp for plan in PLANS} - {1}:
        made.divide(tp, megatron(graph, tp))
    return made


def predicted(judge: Planner, fitted: Constants | None = None) -> np.ndarray:
    return np.array([judge.estimate(plan, fitted).seconds for plan in PLANS])


START = replace(
    constants("cpu"),
    product=0.6,
    side=60.0,
    memory=0.8,
    node=1.0,
    sharding=0.5,
    copied=4.0,
    latency=1.0,
    start=1.5e-5,
    start_distributed=6e-5,
)
"""As single operations and collectives measure on their own."""


def fit(known: Mapping[Shape, np.ndarray]) -> Constants:
    """Least squares of the logarithms, with a weak pull to where it starts."""
    judges = {shape: planner(shape) for shape in FITTED}
    begin = np.log([getattr(START, name) for name in NAMES])

    def given(values: np.ndarray) -> Constants:
        return replace(START, **dict(zip(NAMES, map(float, np.exp(values)), strict=True)))

    def errors(values: np.ndarray) -> np.ndarray:
        each = [np.log(predicted(judge, given(values)) / known[shape]) for shape, judge in judges.items()]
        return np.concatenate([*each, 0.1 * (values - begin)])

    return given(least_squares(errors, begin, max_nfev=60).x)


def compared(shape: Shape, seconds: np.ndarray) -> Mapping[str, Any]:
    expected = predicted(planner(shape))
    rank = float(spearmanr(seconds, expected).statistic)
    rows = [
        {"plan": str(plan), "measured": float(own), "predicted": float(its)}
        for plan, own, its in zip(PLANS, seconds, expected, strict=True)
    ]
    for row in sorted(rows, key=lambda row: row["measured"]):
        print(f"{row['plan']:28s} {1e3 * row['measured']:6.0f} ms, predicted {1e3 * row['predicted']:6.0f}")
    print(f"{shape}: Spearman's rank correlation over {len(rows)} plans {rank:.3f}")
    return {"width": shape[0], "layers": shape[1], "rows": shape[2], "spearman": rank, "unit": "s", "plans": rows}


def kept() -> dict[Shape, np.ndarray]:
    """What the result file has; delete it to measure anew."""
    file = RESULTS / "ranking.json"
    rows = json.loads(file.read_text())["models"] if file.is_file() else []
    found: dict[Shape, np.ndarray] = {}
    for row in rows:
        seconds = {each["plan"]: each["measured"] for each in row["plans"]}
        found[row["width"], row["layers"], row["rows"]] = np.array([seconds[str(plan)] for plan in PLANS])
    return found


def main() -> None:
    shapes, known = FITTED if "--fit" in sys.argv else (*FITTED, *JUDGED), kept()
    if missing := [shape for shape in shapes if shape not in known]:
        known |= measured(missing)
    if "--fit" in sys.argv:
        freeze("cpu", fit(known))
    models = [{**compared(shape, known[shape]), "fitted": shape in FITTED} for shape in known]
    found = {"models": models, "environment": environment(0)}
    Run(RESULTS).write("ranking.json", json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
