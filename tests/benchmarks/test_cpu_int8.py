"""The race's own rules: what is run, what is shown."""

from __future__ import annotations

import argparse

import numpy as np
from benchmarks.cpu_int8 import BASE, Entry, _combinations, _duels, _row, _split, table
from benchmarks.dominance import Quality

from planish.measure import Timings


def options(**given: object) -> argparse.Namespace:
    return argparse.Namespace(**{"model": None, "shape": None, "batch": None, "threads": None, "quick": False, **given})


def test_every_combination_once() -> None:
    everything = list(_combinations(options()))
    assert len(everything) == len(set(everything)) == 4 + 2 + 3 * 4
    assert list(_combinations(options(model="minilm", shape="stream", threads=2))) == [("minilm", "stream", 1, 2)]
    assert {threads for *_, threads in _combinations(options(quick=True))} == {1}


def test_what_cannot_win_is_not_raced() -> None:
    def spin(loops: int) -> None:
        sum(range(loops))

    fast, slow = _split({BASE: lambda: spin(20_000), "half": lambda: spin(40_000), "tenth": lambda: spin(400_000)})
    assert set(fast) == {BASE, "half"}
    assert slow["tenth"] > 4


def test_the_table_says_who_dominates_whom() -> None:
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(100, 8))
    noise = rng.normal(size=wanted.shape)
    drift = rng.lognormal(0, 0.3, 30)
    programs = {
        BASE: (1.0, 0.0, False),
        "peer": (2.0, 0.1, False),
        "planish a": (1.5, 0.3, True),
        "planish b": (3.0, 0.1, True),
    }
    entries = {name: Entry(lambda: wanted, 10, is_ours) for name, (_, _, is_ours) in programs.items()}
    times = Timings({name: drift / speed for name, (speed, _, _) in programs.items()})
    qualities = {name: Quality.of("cosine", wanted + level * noise, wanted) for name, (_, level, _) in programs.items()}
    duels = list(_duels(entries, times, qualities))
    assert {(d["peer"], d["ours"]): d["verdict"] for d in duels} == {
        ("peer", "planish a"): "dominates",
        ("peer", "planish b"): "does not",
    }
    shown = table(
        {
            "problem": {"model": "m", "shape": "", "batch": 1, "threads": 1, "metric": "cosine"},
            "judged": 100,
            "rows": [_row(name, entries[name], times, qualities[name]) for name in programs],
            "duels": duels,
            "refused": {"other": "no kernel"},
        }
    )
    lines = shown.splitlines()
    order = [line[2:12].strip() for line in lines if line[:2] in ("> ", "  ") and "refused" not in line]
    assert order[0] == "planish b"
    assert "! peer dominates planish a (100%)" in lines
    assert "  other: refused, no kernel" in lines
    assert max(map(len, lines)) <= 100
