"""Fits the prices of the cost model by nonnegative least squares, and judges them on held-out designs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import nnls

from planish.targets.fpga.counting import COUNTERS
from planish.targets.fpga.utilization import Utilization

Row = Mapping[str, Any]
FLOOR = 40
"""Cells: errors of smaller blocks count as if they had so many."""
FOLDS = 10


def fitted(rows: Iterable[Row]) -> dict[str, dict[str, list[float]]]:
    """Prices of each module."""
    modules: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        modules[row["module"]].append(row)
    return {module: _fit(module, found) for module, found in sorted(modules.items())}


def _fit(module: str, rows: Sequence[Row]) -> dict[str, list[float]]:
    features = np.array([COUNTERS[module](row["parameters"])[0] for row in rows], dtype=np.float64)
    found = {}
    for kind in ("lut", "ff"):
        used = np.array([getattr(Utilization(**row["used"]), kind) for row in rows], dtype=np.float64)
        weight = 1 / np.maximum(used, FLOOR)
        prices = _robust(features * weight[:, None], used * weight)
        found[kind] = [round(float(price), 5) for price in prices]
    return found


def _robust(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Prices of least absolute error, by reweighted least squares."""
    weight = np.ones(len(y))
    prices = np.zeros(a.shape[1])
    for _ in range(12):
        prices = nnls(a * weight[:, None], y * weight)[0]
        weight = 1 / np.sqrt(np.maximum(np.abs(a @ prices - y), 0.01))
    return prices


def predicted(model: Mapping[str, Mapping[str, Sequence[float]]], row: Row) -> Utilization:
    """What a model says of a row."""
    features, dsp, bram = COUNTERS[row["module"]](row["parameters"])
    lut, ff = (float(np.dot(features, model[row["module"]][kind])) for kind in ("lut", "ff"))
    return Utilization(lut4=round(lut), ff=round(ff), dsp=dsp, bram=bram)


def held_out(rows: Sequence[Row]) -> list[tuple[Row, Utilization]]:
    """Each row as predicted by a model that was fitted without the design it is in; networks are fitted on never."""
    single = [row for row in rows if not row["design"].startswith("network")]
    names = sorted({row["design"] for row in single})
    places = np.random.default_rng(0).permutation(len(names)) % FOLDS
    part = dict(zip(names, places.tolist(), strict=True))
    found = []
    for fold in range(FOLDS):
        model = fitted(row for row in single if part[row["design"]] != fold)
        found += [
            (row, predicted(model, row)) for row in single if part[row["design"]] == fold and row["module"] in model
        ]
    model = fitted(single)
    return found + [
        (row, predicted(model, row)) for row in rows if row["design"].startswith("network") and row["module"] in model
    ]


def errors(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean relative error of LUT and FF on held-out designs (the sums of their blocks), by kind of design and in all.

    `wrong` counts rows whose DSP blocks or block memories are not exact.
    """
    designs: dict[str, list[tuple[Row, Utilization]]] = defaultdict(list)
    for row, guess in held_out(rows):
        designs[row["design"]].append((row, guess))
    by_kind: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"lut": [], "ff": []})
    wrong: dict[str, list[str]] = {"dsp": [], "bram": []}
    for name, pairs in designs.items():
        true = sum((Utilization(**row["used"]) for row, _ in pairs), Utilization())
        guess = sum((guess for _, guess in pairs), Utilization())
        for kind in ("lut", "ff"):
            actual = getattr(true, kind)
            error = abs(getattr(guess, kind) - actual) / max(actual, FLOOR)
            by_kind[name.rpartition("-")[0]][kind].append(error)
            by_kind["all"][kind].append(error)
        for kind, list_of in wrong.items():
            if getattr(true, kind) != getattr(guess, kind):
                list_of.append(f"{name}: {getattr(guess, kind)} for {getattr(true, kind)}")
    told = {
        kind: {"designs": len(found["lut"]), **{name: float(np.mean(each)) for name, each in found.items()}}
        for kind, found in sorted(by_kind.items())
    }
    return {"errors": told, "wrong": wrong}


def report(rows: Sequence[Row]) -> list[str]:
    """The errors as lines of text."""
    found = errors(rows)
    lines = [f"{'held-out designs':16} {'n':>4} {'LUT':>7} {'FF':>7}"]
    for kind, each in found["errors"].items():
        lines.append(f"{kind:16} {each['designs']:4} {each['lut']:7.1%} {each['ff']:7.1%}")
    return lines + [f"wrong {kind}: {len(names)} ({'; '.join(names[:8])})" for kind, names in found["wrong"].items()]
