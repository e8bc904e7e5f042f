"""Claim: `auto` finds one of the best 0.1 % in less than half of the trials that Optuna's TPE takes; fronts likewise.

    python -m benchmarks.search.compare single                        # trials to the best 0.1 %, all tables
    python -m benchmarks.search.compare front                         # hypervolume against trials, two objectives
    python -m benchmarks.search.compare single --tables cells --methods auto,optuna-tpe --seeds 50

Every program runs every seed on every table, in a study of its own in memory; seeds are paired. Runs that are kept in
results/search/ are not made again, so that a command that is stopped goes on. The constants of `auto` were chosen on
`TUNING`, every other one by name of the tables that there were; what is reported is the others, and all. See
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from rich.console import Console
from rich.table import Table as Printed

from benchmarks.search.tables import Array, Table, tables
from planish.automl.strategies import sampler
from planish.record import environment

RESULTS = Path(__file__).parents[1] / "results" / "search"
TUNING = ("cells", "fpga", "graph-citeseer", "graph-cora", "graph-photo", "graph-proteins")
TUNING += ("mixed", "mixed-letters", "nas201-qat")
MARKS = (10, 20, 30, 50, 75, 100, 150, 200)  # trials after which a curve is kept
SINGLE_TRIALS, FRONT_TRIALS = 400, 100
SHORT = {"optuna-gp": 50}  # trials of a program that takes 20 s for them
RESAMPLES = 2000
METHODS: dict[str, Callable[[int, Table], BaseSampler]] = {
    "optuna-tpe": lambda seed, table: TPESampler(seed=seed),
    "optuna-random": lambda seed, table: RandomSampler(seed=seed),
    "optuna-nsga2": lambda seed, table: NSGAIISampler(seed=seed),
    "optuna-gp": lambda seed, table: GPSampler(seed=seed),
    **{
        name: (lambda seed, table, name=name: sampler(name, seed, table.distributions))
        for name in ("auto", "hamming", "local", "evolution", "pareto", "reinforce", "ppo")
    },
}
DEFAULT = {
    "single": ("auto", "optuna-tpe", "optuna-random", "optuna-nsga2", "evolution", "local"),
    "front": ("auto", "optuna-tpe", "optuna-random", "optuna-nsga2", "pareto"),
}
FRONTS = ("mixed", "mixed-letters", "mixed-conv", "formats", "sparse", "fpga", "cells", "graph-cora")


def single(table: Table, method: str, seed: int, trials: int) -> dict[str, Any]:
    """A run for one objective, until it is among the best 0.1 %.

    Returns:
        `reached`: the number of trials, or one more than there were; `best`: the least loss after `MARKS` of them;
        `distinct`: the share of trials that were no repeat.
    """
    study = optuna.create_study(sampler=METHODS[method](seed, table))
    best, curve, rows, target = np.inf, [], [], table.target()
    for _ in range(trials):
        trial = study.ask(table.distributions)
        rows.append(table.row(trial.params))
        study.tell(trial, float(table.single[rows[-1]]))
        best = min(best, float(table.single[rows[-1]]))
        if len(rows) in MARKS:
            curve.append(round(best, 6))
        if best <= target:
            break
    reached = len(rows) if best <= target else trials + 1
    return {"reached": reached, "best": curve, "distinct": round(len(set(rows)) / len(rows), 4)}


def front(table: Table, method: str, seed: int, trials: int) -> dict[str, Any]:
    """A run for two objectives: `volume`, the share of the true hypervolume after `MARKS` trials, and `distinct`."""
    study = optuna.create_study(directions=["minimize"] * 2, sampler=METHODS[method](seed, table))
    losses, rows = np.stack(list(table.objectives.values()), 1), []
    trials = min(trials, SHORT.get(method, trials))
    for _ in range(trials):
        trial = study.ask(table.distributions)
        rows.append(table.row(trial.params))
        study.tell(trial, losses[rows[-1]].tolist())
    whole = hypervolume(losses, table.reference)
    marks = [mark for mark in MARKS if mark <= trials]
    volume = [round(hypervolume(losses[rows[:mark]], table.reference) / whole, 5) for mark in marks]
    return {"volume": volume, "distinct": round(len(set(rows)) / len(rows), 4)}


def hypervolume(losses: Array, reference: Sequence[float]) -> float:
    """The area that rows of `(rows, 2)` dominate below a reference point."""
    inside = losses[(losses < np.array(reference)).all(1)]
    total, low = 0.0, reference[1]
    for first, second in inside[np.lexsort((inside[:, 1], inside[:, 0]))]:
        if second < low:
            total += float((reference[0] - first) * (low - second))
            low = second
    return total


def run(kind: str, names: Sequence[str], methods: Sequence[str], seeds: int, trials: int) -> dict[str, Any]:
    """All runs that are not kept yet; the whole file of results."""
    file = RESULTS / f"{kind}.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"trials": trials, "runs": {}}
    for name in names:
        missing = {m: range(len(kept["runs"].get(name, {}).get(m, [])), seeds) for m in methods}
        if not any(missing.values()):
            continue
        table = tables[name]()
        kept.setdefault("points", {})[name] = len(table)
        for method, left in missing.items():
            began = time.process_time()
            rows = [{"single": single, "front": front}[kind](table, method, seed, kept["trials"]) for seed in left]
            kept["runs"].setdefault(name, {}).setdefault(method, []).extend(rows)
            print(f"{name}, {method}: {len(rows)} runs in {time.process_time() - began:.0f} s", flush=True)
            write(file, kept, kind)
    return kept


def write(file: Path, kept: dict[str, Any], kind: str) -> None:
    """The file, whole or not at all, a line for each table and method."""
    kept["environment"] = environment(seed=0, command=f"python -m benchmarks.search.compare {kind}")
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    draft.write_text(lines(kept, 3) + "\n", encoding="utf-8")
    draft.replace(file)


def lines(value: Any, depth: int, indent: str = "") -> str:
    """JSON with a line for each entry down to some depth."""
    if not depth or not isinstance(value, dict) or not value:
        return json.dumps(value)
    inner = indent + " "
    entries = (f"{inner}{json.dumps(name)}: {lines(entry, depth - 1, inner)}" for name, entry in value.items())
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"


def ratios(runs: Mapping[str, Mapping[str, Any]], names: Sequence[str], method: str, base: str) -> dict[str, Any]:
    """Median trials of a method over those of another: by table and as geometric mean, with 95 % intervals."""
    rng = np.random.default_rng(0)
    logs, by_table = [], {}
    for name in names:
        pair = [np.array([row["reached"] for row in runs[name][which]]) for which in (method, base)]
        count = min(map(len, pair))
        drawn = rng.integers(count, size=(RESAMPLES, count))
        ratio = [float(np.median(pair[0][:count]) / np.median(pair[1][:count]))]
        sampled = np.median(pair[0][drawn], axis=1) / np.median(pair[1][drawn], axis=1)
        by_table[name] = [*ratio, *np.quantile(sampled, [0.025, 0.975]).tolist()]
        logs.append(np.log(np.r_[ratio, sampled]))
    mean = np.exp(np.mean(logs, 0))
    return {"tables": by_table, "mean": [float(mean[0]), *np.quantile(mean[1:], [0.025, 0.975]).tolist()]}


def show_single(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Medians and ratios to Optuna's TPE."""
    names = sorted(name for name in runs if "optuna-tpe" in runs[name])
    methods = [m for m in METHODS if all(m in runs[name] for name in names)]
    printed = Printed("table", *methods, "auto / TPE", title="median trials to the best 0.1 %")
    against = ratios(runs, names, "auto", "optuna-tpe")
    for name in names:
        medians = [f"{np.median([row['reached'] for row in runs[name][m]]):g}" for m in methods]
        ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*against["tables"][name])
        printed.add_row(name + (" (tuning)" if name in TUNING else ""), *medians, ratio)
    Console().print(printed)
    halves = {
        "all": names,
        "tuning": [n for n in names if n in TUNING],
        "others": [n for n in names if n not in TUNING],
    }
    for half, chosen in halves.items():
        for method in (m for m in methods if m != "optuna-tpe" and chosen):
            mean = ratios(runs, chosen, method, "optuna-tpe")["mean"]
            print(f"{method} / TPE, geometric mean over {len(chosen)} tables ({half}): {interval(mean)}")


def show_front(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Mean shares of the hypervolume, with 95 % intervals."""
    rng = np.random.default_rng(0)
    for name in sorted(runs):
        printed = Printed("method", "runs", *(f"{mark}" for mark in MARKS if mark <= FRONT_TRIALS), title=name)
        for method, rows in runs[name].items():
            volume = np.array([row["volume"] for row in rows])
            drawn = volume[rng.integers(len(rows), size=(RESAMPLES, len(rows)))].mean(1)
            low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
            cells = [f"{m:.4f} [{a:.4f}, {b:.4f}]" for m, a, b in zip(volume.mean(0), low, high, strict=True)]
            printed.add_row(method, f"{len(rows)}", *cells)
        Console(width=160).print(printed)


def interval(numbers: Sequence[float]) -> str:
    """A number and its interval."""
    return "{:.3f} [{:.3f}, {:.3f}]".format(*numbers)


def main() -> None:
    """Run, keep, show."""
    parser = argparse.ArgumentParser(prog="benchmarks.search.compare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=("single", "front"))
    parser.add_argument("--tables", help="names, with commas between them")
    parser.add_argument("--methods", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--seeds", type=int, default=50)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    names = options.tables.split(",") if options.tables else list(tables) if options.kind == "single" else FRONTS
    methods = options.methods.split(",") if options.methods else DEFAULT[options.kind]
    trials = SINGLE_TRIALS if options.kind == "single" else FRONT_TRIALS
    kept = run(options.kind, names, methods, options.seeds, trials)
    (show_single if options.kind == "single" else show_front)(kept["runs"])


if __name__ == "__main__":
    main()
