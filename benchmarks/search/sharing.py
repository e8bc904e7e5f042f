"""Shared weights on the digits cells: how well they rank 625 networks, and what searches by gradients choose.

    python -m benchmarks.search.sharing             # all seeds; goes on where it was stopped; about an hour
    python -m benchmarks.search.sharing --seeds 3   # fewer

The supernet is the network of `cells` with all five operations on every edge; the strategies have their default
settings. It is trained on the 1,000 training digits in batches of 50 and judged on the 297 of the calibration and the
validation split. What it says is compared with the accuracy on the 500 evaluation digits of stand-alone networks,
mean of three seeds. CPU seconds are the process's, capture and build of the supernet included.

- `rank`: one path at a time, then the whole space in order. Kendall's tau against the table.
- `best`: the `FINALISTS` first of that order trained alone with three seeds, and the best of them by `valid` chosen:
  how many points it is below the best cell, and its share of the CPU time of training all cells. Trainings are those
  of the table, which are the same to the bit; each counts the CPU seconds that one takes (`alone`).
- `gdas`, `proxyless`, `darts`: the percentile of what they choose among all cells, and whether they say they collapsed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from statistics import fmean, median
from typing import Any

import torch
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.search import cells
from planish.automl.supernet import Darts, Gdas, Proxyless, SinglePath, Slot, Supernet
from planish.compress import Replace
from planish.frontends import capture
from planish.models.digits import digits
from planish.record import environment

RESULT = cells.RESULT.with_name("sharing.json")
OPERATORS = {"none": "none", "skip": "skip", "conv1x1": "conv1x1-bn-relu", "conv3x3": None, "avgpool": "average-pool"}
SEEDS, BATCH, FINALISTS = 20, 50, 18
SEARCHES = {"gdas": Gdas(), "proxyless": Proxyless(), "darts": Darts()}


def supernet(seed: int) -> Supernet:
    """All cells in one network, a decision for each edge."""
    point = dict.fromkeys(cells.NAMES, "conv3x3")
    side = cells.SIDE
    graph = capture(cells.initialized(point, seed), (torch.zeros(2, 1, side, side),), {"x": {0: "batch"}})
    slots = [
        Slot(
            name,
            tuple(OPERATORS),
            tuple(by and Replace(by, f"path('*.edges.{name}')", "modules", seed) for by in OPERATORS.values()),
        )
        for name in cells.NAMES
    ]
    return Supernet(graph, slots)


def data(*splits: str) -> list[tuple[Any, ...]]:
    """Digits in batches."""
    rows = [digits(split, (1, cells.SIDE, cells.SIDE)) for split in splits]
    images, labels = (torch.cat(parts) for parts in zip(*rows, strict=True))
    return [((x,), {}, y) for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True)]


def loss(module: nn.Module, item: tuple[Any, ...]) -> Tensor:
    """Cross-entropy."""
    return functional.cross_entropy(module(*item[0]), item[2])


def key_of(point: Mapping[str, object]) -> str:
    """What the table calls a point of the supernet."""
    return " ".join(str(point[name]) for name in cells.NAMES)


def ranked(seed: int, truth: dict[str, float]) -> dict[str, Any]:
    """The whole space in order, and the best of those that come first."""
    began = time.process_time()
    result = SinglePath().run(supernet(seed), data("train"), data("calibration", "validation"), loss, seed)
    spent = time.process_time() - began
    rows, order = cells.table(), [key_of(point) for point, _ in result.ranking]
    tau: Any = kendalltau([-error for _, error in result.ranking], [truth[key] for key in order])[0]
    finalists = {key: fmean(rows[key].valid) for key in order[:FINALISTS]}
    chosen = max(finalists, key=finalists.__getitem__)
    return {
        "seed": seed,
        "tau": round(float(tau), 4),
        "cpu": round(spent, 2),
        "chosen": chosen,
        "below": round(max(truth.values()) - truth[chosen], 4),
    }


def searched(name: str) -> Callable[[int, dict[str, float]], dict[str, Any]]:
    """A search by gradients."""

    def run(seed: int, truth: dict[str, float]) -> dict[str, Any]:
        began = time.process_time()
        result = SEARCHES[name].run(supernet(seed), data("train"), data("calibration", "validation"), loss, seed)
        spent, chosen = time.process_time() - began, key_of(result.point)
        below = sum(value <= truth[chosen] for value in truth.values()) / len(truth)
        row = {"seed": seed, "chosen": chosen, "percentile": round(100 * below, 1), "cpu": round(spent, 2)}
        return {**row, "note": result.note}

    return run


def trained_alone() -> float:
    """CPU seconds of training one cell with one seed: the mean of 25 cells spread over the space."""
    seconds = []
    for point in cells.points()[::25]:
        began = time.process_time()
        cells.accuracy(cells.train(cells.initialized(point, 0), 0), "evaluation")
        seconds.append(time.process_time() - began)
    return fmean(seconds)


def main() -> None:
    """Run what the result file lacks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--only", nargs="*", default=["rank", *SEARCHES])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    truth = {key: fmean(row.test) for key, row in cells.table().items()}
    kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    rows: dict[str, list[dict[str, Any]]] = kept.get("rows", {})
    if "alone" not in kept:
        kept["alone"] = {"seconds": round(trained_alone(), 4), "networks": len(truth) * len(cells.SEEDS)}
    supernet(0)  # what torch imports for its first export is nobody's time
    for seed in range(chosen.seeds):
        for name in chosen.only:
            if any(row["seed"] == seed for row in rows.get(name, ())):
                continue
            run = ranked if name == "rank" else searched(name)
            rows.setdefault(name, []).append(run(seed, truth))
            print(name, rows[name][-1], flush=True)
            write(rows, kept["alone"])
    write(rows, kept["alone"])
    print(json.dumps(summary(rows, kept["alone"]), indent=1))


def summary(rows: dict[str, list[dict[str, Any]]], alone: dict[str, float]) -> dict[str, Any]:
    """What is claimed of the rows."""
    told: dict[str, Any] = {}
    if found := rows.get("rank"):
        trained = FINALISTS * len(cells.SEEDS)
        shares = [(row["cpu"] / alone["seconds"] + trained) / alone["networks"] for row in found]
        told["rank"] = {
            "tau": [round(f([row["tau"] for row in found]), 3) for f in (min, median, max)],
            "cpu": [round(f([row["cpu"] for row in found]), 1) for f in (min, median, max)],
            "within_half_a_point": sum(row["below"] <= 0.005 for row in found) / len(found),
            "below": round(median(row["below"] for row in found), 4),
            "share_of_exhaustive": round(median(shares), 4),
        }
    for name in SEARCHES:
        if found := rows.get(name):
            good = [row["percentile"] > 90 for row in found]
            told[name] = {
                "above_90th": sum(good) / len(found),
                "above_90th_or_says_collapsed": sum(
                    fine or bool(row["note"]) for fine, row in zip(good, found, strict=True)
                )
                / len(found),
                "good_but_says_collapsed": sum(
                    fine and bool(row["note"]) for fine, row in zip(good, found, strict=True)
                )
                / len(found),
                "percentile": [round(f([row["percentile"] for row in found]), 1) for f in (min, median)],
                "cpu": round(median(row["cpu"] for row in found), 1),
            }
    return told


def write(rows: dict[str, list[dict[str, Any]]], alone: dict[str, float]) -> None:
    """The result file, whole or not at all."""
    facts = environment(seed=0, command="python -m benchmarks.search.sharing")
    content = {"environment": facts, "summary": summary(rows, alone), "alone": alone, "rows": rows}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    draft = RESULT.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draft.replace(RESULT)


if __name__ == "__main__":
    main()
