"""Claim: widths, bits and folding searched together beat widths first, bits and folding after.

    python -m benchmarks.search.hardware               # both ways, ten seeds; about half an hour of one core
    python -m benchmarks.search.hardware --check       # five points of the front, synthesized and simulated

Perceptrons of two hidden layers on scikit-learn's digits, as streams on an ECP5-25k without multiplier blocks: accuracy
on the 147 digits that options are chosen by, LUTs and the interval between samples by the cost model. `joint` searches
all decisions at once; `apart` first searches the widths of the fp32 network by accuracy and multiply-accumulates, takes
the one that is best for its size, and spends what is left of the trials on its bits and folding. Both have the same
number of trials and the same strategy; what one of them has evaluated the other does not evaluate again.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from torch.nn import functional

import planish
from planish import Recipe
from planish.automl import Space, choose, each
from planish.automl.pareto import front, hypervolume
from planish.automl.strategies import sampler
from planish.automl.study import distributions
from planish.compress import Quantize
from planish.metrics import accuracy
from planish.models import digits
from planish.models.mlp import MLP
from planish.record import environment
from planish.targets.fpga.target import Fpga

RESULTS = Path(__file__).parents[1] / "results" / "search" / "hardware.json"
KEPT = RESULTS.with_name("hardware-points.json")
WIDTHS = (12, 16, 24, 32, 48)
BITS = ("int2", "int3", "int4", "int6", "int8")
ACTIVATIONS = ("uint3", "uint4", "uint6", "uint8")
RATES = ("50k", "100k", "200k", "400k", "800k", "1600k")
TRIALS, FIRST, SEEDS = 60, 15, 10
REFERENCE = (0.0, math.log(40_000), math.log(3_000))
"""Accuracy 0, 40,000 LUTs, 3,000 cycles: worse than any point."""


def space() -> Space:
    """All decisions: two widths, bits of each weight and of the activations, samples a second."""
    recipe = Recipe(
        Quantize(weights=each(*BITS, name="bits"), activations=choose(*ACTIVATIONS, name="activations")),
        target=Fpga("ecp5-25k", "100MHz", throughput=choose(*RATES, name="rate"), budget={"dsp": 0}),
        arguments={"first": choose(*WIDTHS, name="first"), "second": choose(*WIDTHS, name="second")},
    )
    return Space(recipe, model=network)


@cache
def network(first: int, second: int) -> planish.Graph:
    """A trained network of these widths."""
    torch.manual_seed(0)
    model = digits.trained(
        lambda: MLP((64, first, second, 10)), lambda net, x, y: functional.cross_entropy(net(x), y), (64,)
    )
    return planish.capture(model, (digits.digits("train")[0][:2],), dynamic={"x": {0: "batch"}})


class Points:
    """What is known of points, on disk."""

    def __init__(self) -> None:
        self.known: dict[str, list[float]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
        self.space = space()

    def losses(self, point: dict[str, Any]) -> tuple[float, float, float]:
        """Minus accuracy, log of LUTs, log of cycles. A design that does not fit counts as the reference."""
        key = json.dumps(point, sort_keys=True)
        if key not in self.known:
            filled = self.space.made(lambda decision: point[decision.name])
            small = filled.recipe(filled.graph, digits.batches("calibration"))
            right = accuracy(small, digits.batches("validation")).value
            try:
                rows = {row.name: row.value for row in filled.recipe.target.estimate(small) if not row.where}
                self.known[key] = [right, rows["lut"], rows["interval"]]
            except planish.errors.UserError:
                self.known[key] = [right, math.exp(REFERENCE[1]), math.exp(REFERENCE[2])]
            KEPT.parent.mkdir(parents=True, exist_ok=True)
            KEPT.write_text(json.dumps(self.known))
        right, lut, interval = self.known[key]
        return -right, math.log(lut), math.log(interval)

    @cache  # noqa: B019  (one object a run)
    def float_accuracy(self, first: int, second: int) -> float:
        """Of the network as it was trained."""
        return accuracy(network(first, second), digits.batches("validation")).value


def joint(points: Points, seed: int) -> list[tuple[float, ...]]:
    """All decisions at once."""
    return _searched(points, {}, TRIALS, seed)


def apart(points: Points, seed: int) -> list[tuple[float, ...]]:
    """Widths first, then the rest."""
    decisions = {d.name: d for d in points.space.decisions}
    widths = distributions([decisions["first"], decisions["second"]])
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler("auto", seed, widths))
    for _place in range(FIRST):
        trial = study.ask(widths)
        first, second = trial.params["first"], trial.params["second"]
        study.tell(trial, [points.float_accuracy(first, second), 64 * first + first * second + 10 * second])
    best = max(trial.values[0] for trial in study.trials)
    good = [trial for trial in study.trials if trial.values[0] >= best - 0.01]
    chosen = min(good, key=lambda trial: trial.values[1]).params
    return _searched(points, dict(chosen), TRIALS - FIRST, seed)


def _searched(points: Points, fixed: dict[str, Any], trials: int, seed: int) -> list[tuple[float, ...]]:
    free = distributions([decision for decision in points.space.decisions if decision.name not in fixed])
    study = optuna.create_study(directions=["minimize"] * 3, sampler=sampler("auto", seed, free))
    for _place in range(trials):
        trial = study.ask(free)
        study.tell(trial, points.losses({**fixed, **trial.params}))
    return [tuple(trial.values) for trial in study.trials]


def volume(losses: list[tuple[float, ...]]) -> float:
    """Hypervolume up to the reference."""
    return hypervolume(losses, REFERENCE)


def compare(seeds: int) -> dict[str, Any]:
    """Hypervolumes of both for each seed, and whether the difference is one."""
    from scipy.stats import wilcoxon

    points = Points()
    rows = []
    for seed in range(seeds):
        rows.append([volume(joint(points, seed)), volume(apart(points, seed))])
        print(f"seed {seed}: joint {rows[-1][0]:.4f}, apart {rows[-1][1]:.4f}", flush=True)
    both = np.array(rows)
    test = wilcoxon(both[:, 0], both[:, 1], alternative="greater")
    known = [(-right, math.log(lut), math.log(cycles)) for right, lut, cycles in points.known.values()]
    return {
        "trials": TRIALS,
        "of them for widths": FIRST,
        "seeds": seeds,
        "joint": both[:, 0].tolist(),
        "apart": both[:, 1].tolist(),
        "median ratio": float(np.median(both[:, 0] / both[:, 1])),
        "p": float(test.pvalue),
        "reference": {"accuracy": 0, "lut": 40_000, "interval": 3_000},
        "points evaluated": len(known),
        "front": [list(points.known.items())[place] for place in front(known)],
    }


def check(count: int) -> list[dict[str, Any]]:
    """Points of the front, evenly along the LUTs: modeled, synthesized and simulated."""
    found = json.loads(RESULTS.read_text())["front"]
    found.sort(key=lambda item: item[1][1])
    good = [item for item in found if item[1][0] > 0.8 and item[1][1] < 14_000]  # an estimate may be a little low
    picked = [good[round(place)] for place in np.linspace(0, len(good) - 1, count)]
    rows, made = [], space()
    for key, (right, lut, interval) in picked:
        point = json.loads(key)
        filled = made.made(lambda decision, point=point: point[decision.name])
        small = filled.recipe(filled.graph, digits.batches("calibration"))
        artifact = planish.build(small, target=filled.recipe.target, data=digits.batches("calibration"))
        images, labels = digits.digits("evaluation")
        codes = artifact.encode(images[:100])
        simulated = artifact.simulate_codes(codes, stall=30)  # raises if a code differs
        quiet = artifact.simulate_codes(codes)
        judged = float((torch.as_tensor(artifact(images)).argmax(1) == labels).float().mean())
        used = artifact.synthesize().total
        rows.append(
            {
                "point": point,
                "accuracy": {"validation": right, "evaluation, by the hardware's integers": judged},
                "lut": {"modeled": lut, "synthesized": used.lut},
                "interval": {"modeled": interval, "simulated": quiet.interval},
                "wrong codes of 100 digits with pauses": 0 if simulated else None,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    result = json.loads(RESULTS.read_text()) if given.check else compare(given.seeds)
    if given.check:
        result["checked"] = check(5)
    result["environment"] = environment(seed=0)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(f"joint over apart: median {result['median ratio']:.3f}, p = {result['p']:.2g}")


if __name__ == "__main__":
    main()
