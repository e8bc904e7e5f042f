"""The step-time model against published rows: fitted on some, judged on others.

python -m benchmarks.training.steptime          # judge; writes results/training/steptime.json
python -m benchmarks.training.steptime --fit    # fit the constants again on the rows that say so
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from scipy.optimize import least_squares

from planish.training.planning.constants import FILE, Constants, constants
from planish.training.planning.hardware import Hardware
from planish.training.planning.setting import Setting
from planish.training.planning.steptime import Model
from planish.training.planning.transformer import Transformer
from planish.training.planning.work import even

PUBLISHED = Path(__file__).with_name("published.toml")
RESULTS = Path(__file__).parents[1] / "results" / "training" / "steptime.json"
BOUNDS: Mapping[str, tuple[float, float]] = {
    "product": (0.3, 0.95),
    "product8": (0.15, 0.8),
    "side": (20.0, 1500.0),
    "memory": (0.4, 0.95),
    "fused": (0.5, 2.0),
    "eager": (0.5, 8.0),
    "node": (0.3, 0.95),
    "network": (0.1, 0.95),
    "latency": (0.3, 4.0),
    "hidden": (0.05, 1.0),
    "asynchronous": (0.0, 1.0),
}
A100 = ("product", "side", "memory", "node", "network")
"""Fitted on the A100's rows. Those of the H100 are few: it has its own arithmetic, kernels and NVLink, and the A100's
other constants."""
DEEPSPEED = ("network", "latency", "hidden")
"""ZeRO-3 as of 2021: another program, whose traffic has its own constants."""
NEWER = ("h100-500w", "h100-sxm", "h200-sxm")
H100 = ("product", "product8", "side", "node", "fused", "eager", "asynchronous")


def rows() -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    table = tomllib.loads(PUBLISHED.read_text())
    return table["rows"], table["models"]


def seconds(row: Mapping[str, Any], models: Mapping[str, dict[str, Any]]) -> float:
    """What was measured, as seconds of a step (of one block for "ms")."""
    shape, value = Transformer(**models[row["model"]]), row["value"]
    if row["unit"] == "s":
        return value
    if row["unit"] == "ms":
        return value / 1e3
    devices = Setting(**row["setting"]).devices
    if row["unit"] == "tokens/s":
        return row["batch"] * shape.sequence / (value * devices)
    layers, hidden, length = shape.layers, shape.hidden, shape.sequence
    work = 96 * row["batch"] * length * layers * hidden**2
    work *= 1 + length / (6 * hidden) + shape.vocabulary / (16 * layers * hidden)
    return work / (value * 1e12 * devices)


def predicted(row: Mapping[str, Any], models: Mapping[str, dict[str, Any]], fitted: Constants | None = None) -> float:
    setting, hardware = Setting(**row["setting"]), Hardware.named(row["hardware"])
    layers = Transformer(**models[row["model"]]).work(row["recompute"])
    model = Model(hardware, setting, fitted or constants(row.get("system") or hardware.key))
    if row["unit"] == "ms":
        return model.layer(layers[1], row["batch"]).total
    return model.step(even(layers, setting.pp * setting.chunks), row["batch"]).seconds


def is_three_dimensional(row: Mapping[str, Any]) -> bool:
    setting = Setting(**row["setting"])
    return setting.tp > 1 and setting.pp > 1 and setting.dp * setting.fsdp > 1


def fit(
    found: Sequence[dict[str, Any]], models: Mapping[str, dict[str, Any]], names: Sequence[str], start: Constants
) -> Constants:
    low, high = (np.array([BOUNDS[name][side] for name in names]) for side in (0, 1))

    def given(values: np.ndarray) -> Constants:
        return replace(start, **dict(zip(names, map(float, values), strict=True)))

    def errors(values: np.ndarray) -> list[float]:
        # A weak pull to where the fit starts keeps a constant that no row speaks of from running away.
        pull = 0.02 * (values - begin) / (high - low)
        return [*(np.log(predicted(row, models, given(values)) / seconds(row, models)) for row in found), *pull]

    begin = np.array([getattr(start, name) for name in names])
    return given(least_squares(errors, begin, bounds=(low, high), x_scale=high - low).x)


def fit_all() -> None:
    """Fit both tables on the rows that say so, and freeze them."""
    all_rows, models = rows()
    chosen = [row for row in all_rows if row.get("fit")]
    own = [row for row in chosen if "system" not in row]
    older = fit([row for row in own if row["hardware"].startswith("a100")], models, A100, Constants())
    other = fit([row for row in chosen if row.get("system") == "deepspeed"], models, DEEPSPEED, older)
    newer = fit([row for row in own if row["hardware"].startswith("h100")], models, H100, older)
    for name, found in [("default", older), ("deepspeed", other), *((name, newer) for name in NEWER)]:
        freeze(name, found)


def freeze(name: str, found: Constants) -> None:
    """Write the constants of one kind of hardware."""
    tables = tomllib.loads(FILE.read_text())
    tables[name] = {key: float(f"{value:.4g}") for key, value in asdict(found).items()}
    note = "# Written by `python -m benchmarks.training.steptime --fit`; cpu by benchmarks.training.ranking --fit.\n"
    FILE.write_text(note + tomli_w.dumps(tables))
    constants.cache_clear()


def judge() -> dict[str, Any]:
    all_rows, models = rows()
    judged = []
    for row in all_rows:
        measured, modeled = seconds(row, models), predicted(row, models)
        kind = "fitted" if row.get("fit") else "3-D" if is_three_dimensional(row) else "held out"
        judged.append(
            {
                "name": row["name"],
                "source": f"{row['source']}, {row['table']}",
                "kind": kind,
                "hardware": row["hardware"],
                "measured": measured,
                "modeled": modeled,
                "error": modeled / measured - 1,
            }
        )
    held = [row for row in judged if row["kind"] != "fitted"]
    groups = {
        "fitted": [row for row in judged if row["kind"] == "fitted"],
        "held out": held,
        "3-D": [row for row in held if row["kind"] == "3-D"],
        "not ZeRO-3": [row for row in held if not row["name"].startswith("ZeRO-3")],
        "Megatron": [
            row for row in held if row["hardware"].startswith("a100") and not row["name"].startswith("ZeRO-3")
        ],
        "torchtitan": [row for row in held if row["hardware"].startswith("h100")],
    }
    mean = {
        name: {
            "rows": len(each),
            "mean": float(np.mean([abs(r["error"]) for r in each])),
            "worst": max(abs(r["error"]) for r in each),
        }
        for name, each in groups.items()
    }
    return {"summary": mean, "rows": judged}


def main() -> None:
    if "--fit" in sys.argv:
        fit_all()
    found = judge()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1))
    for row in found["rows"]:
        print(f"{row['kind']:9} {row['name']:50} {row['measured']:9.4f} s {row['modeled']:9.4f} s {row['error']:+7.1%}")
    for name, each in found["summary"].items():
        print(f"{name:12} {each['rows']:3} rows  mean {each['mean']:.1%}  worst {each['worst']:.1%}")


if __name__ == "__main__":
    main()
