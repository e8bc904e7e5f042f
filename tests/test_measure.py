"""Timing: paired ratios see through drift, and every number carries its spread."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from planish.errors import OptionError
from planish.measure import Timings, compare, in_fresh_process


def test_rounds_are_paired_and_interleaved() -> None:
    calls: list[str] = []
    timings = compare(
        {"a": lambda: calls.append("a") or time.sleep(0.001), "b": lambda: calls.append("b") or time.sleep(0.002)},
        seconds=0.01,
        min_rounds=6,
        warmup=1,
    )
    assert len(timings.seconds["a"]) == len(timings.seconds["b"]) >= 6
    assert timings.fastest() == "a"
    rounds = calls[2:]
    assert all(set(rounds[i : i + 2]) == {"a", "b"} for i in range(0, len(rounds), 2))


def test_a_paired_ratio_cancels_drift() -> None:
    rng = np.random.default_rng(0)
    drift = np.exp(np.cumsum(rng.normal(0, 0.2, 200)))  # the machine wanders over an order of magnitude
    timings = Timings({"slow": 3.0 * drift * rng.uniform(0.99, 1.01, 200), "fast": drift})
    value, (low, high) = timings.ratio("slow", "fast")
    assert low <= value <= high
    assert value == pytest.approx(3.0, rel=0.01)
    assert high - low < 0.02


def test_the_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        timings = Timings({"a": 2.0 * rng.lognormal(0, 0.3, 60), "b": np.ones(60)})
        _, (low, high) = timings.ratio("a", "b")
        covered += low <= 2.0 <= high
    assert covered >= 52  # 95 % of 60 is 57; 52 is five standard errors of luck away


def test_rows_carry_unit_origin_and_spread() -> None:
    timings = Timings({"a": np.arange(1.0, 101.0), "b": np.full(100, 2.0)})
    row = timings.latency("a", role="chosen")
    assert (row.name, row.unit, row.source, row.subject) == ("latency", "s", "measured", "a")
    assert row.value == 50.5
    assert row.spread == (25.75, 75.25)
    assert row.details["role"] == "chosen"
    assert timings.speedup("b", "b").value == 1.0


def test_short_runs_are_repeated() -> None:
    calls = 0

    def run() -> None:
        nonlocal calls
        calls += 1

    compare({"short": run}, seconds=0.0, min_rounds=2, warmup=2)
    assert calls > 100


def test_nothing_to_time() -> None:
    with pytest.raises(OptionError, match="nothing to time"):
        compare({})


def test_a_fresh_process(tmp_path: Path) -> None:
    program = tmp_path / "hold.py"
    program.write_text("held = bytearray(200_000_000)\nprint('hello')\n")
    (fresh,) = in_fresh_process([str(program)], times=1)
    assert 200e6 < fresh.peak_bytes < 400e6
    assert fresh.seconds > 0
    program.write_text("raise SystemExit('no luck')")
    with pytest.raises(OptionError, match="no luck"):
        in_fresh_process([str(program)], times=1)
