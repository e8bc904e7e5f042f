"""Fits the prices of the cost model by nonnegative least squares, and judges it on held-out designs.

Prices are of tables: all else that a block takes follows rules. Parts that several blocks have cost the same in each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import nnls

from benchmarks.fpga.networks import HELD_OUT
from planish.targets.fpga.streamed.cost import Prices, predict
from planish.targets.fpga.streamed.counting import COUNTERS
from planish.targets.fpga.toolchain.utilization import Utilization, total

Row = Mapping[str, Any]
Designs = Mapping[str, Sequence[Row]]
FLOOR = 40
"""Cells: errors of smaller designs count as if they had so many."""
FOLDS = 10


def designs(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by the design that they are in: only its sum is certain, as yosys merges what blocks share."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["design"]):
        found[row["design"]].append(row)
    return dict(found)


def is_network(design: str) -> bool:
    """Whether it is never fitted on."""
    return kind(design) in {make.__name__ for make in HELD_OUT}


def kind(design: str) -> str:
    """Of a design's name."""
    return design.rpartition("-")[0]


def fitted(rows: Iterable[Row]) -> Prices:
    """Prices, of least absolute relative error, from designs that are no networks."""
    fit_on = [each for name, each in designs(rows).items() if not is_network(name)]
    amounts = [_amounts(each) for each in fit_on]
    names = sorted({name for each in amounts for name in each})
    a = np.array([[each[name] for name in names] for each in amounts])
    used = [_used(each) for each in fit_on]
    scale = 1 / np.maximum([each.lut for each in used], FLOOR)
    prices = _robust(a * scale[:, None], np.array([each.lut4 for each in used]) * scale)
    return {name: round(float(price), 4) for name, price in zip(names, prices, strict=True) if price >= 1e-4}


def _amounts(rows: Iterable[Row]) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in rows:
        found.update(COUNTERS[row["module"]](row["parameters"]).logic)
    return found


def _used(rows: Iterable[Row]) -> Utilization:
    return total(Utilization(**row["used"]) for row in rows)


def _robust(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least absolute error, by reweighted least squares."""
    weight = np.ones(len(y))
    prices = np.zeros(a.shape[1])
    for _ in range(12):
        prices = nnls(a * weight[:, None], y * weight)[0]
        weight = 1 / np.sqrt(np.maximum(np.abs(a @ prices - y), 0.01))
    return prices


def held_out(rows: Sequence[Row]) -> dict[str, Utilization]:
    """Each design as predicted from prices that were fitted without it; networks are never fitted on."""
    every = designs(rows)
    single = [name for name in every if not is_network(name)]
    part = dict(zip(single, (np.random.default_rng(0).permutation(len(single)) % FOLDS).tolist(), strict=True))
    found = {}
    for fold in range(FOLDS + 1):
        chosen = [name for name in every if part.get(name, FOLDS) == fold]
        prices = fitted(row for name, each in every.items() if name not in chosen for row in each)
        for name in chosen:
            found[name] = total(predict(row["module"], row["parameters"], prices) for row in every[name])
    return found


def errors(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean relative error of LUT and FF on held-out designs, by kind of design and in all.

    `wrong` lists designs whose DSP blocks or block memories are not exact.
    """
    every, guesses = designs(rows), held_out(rows)
    by_kind: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"lut": [], "ff": []})
    wrong: dict[str, list[str]] = {"dsp": [], "bram": []}
    for name, guess in guesses.items():
        true = _used(every[name])
        groups = (kind(name), "networks" if is_network(name) else "blocks", "all")
        for which in ("lut", "ff"):
            actual = getattr(true, which)
            error = abs(getattr(guess, which) - actual) / max(actual, FLOOR)
            for group in groups:
                by_kind[group][which].append(error)
        for which, listed in wrong.items():
            if getattr(true, which) != getattr(guess, which):
                listed.append(f"{name}: {getattr(guess, which)} for {getattr(true, which)}")
    told = {
        group: {"designs": len(found["lut"]), **{which: float(np.mean(each)) for which, each in found.items()}}
        for group, found in sorted(by_kind.items())
    }
    return {"errors": told, "wrong": wrong}


def report(found: Mapping[str, Any]) -> list[str]:
    """The errors as lines of text."""
    lines = [f"{'held-out designs':16} {'n':>4} {'LUT':>7} {'FF':>7}"]
    for group, each in found["errors"].items():
        lines.append(f"{group:16} {each['designs']:4} {each['lut']:7.1%} {each['ff']:7.1%}")
    return lines + [f"wrong {which}: {len(names)} ({'; '.join(names[:8])})" for which, names in found["wrong"].items()]
