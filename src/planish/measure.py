"""Timing that survives a noisy machine: several programs in one process, in turn, compared pair by pair.

A machine's speed drifts from second to second, and drifts for all programs alike. So every round runs each program
once, in a new order; a ratio is taken within a round, where the drift cancels, and its interval by bootstrap over
rounds. A single time is never compared with one taken minutes earlier.
"""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from planish.errors import OptionError
from planish.record import Measurement

Run = Callable[[], object]
Progress = Callable[[int, int, str], None]
SAMPLE = 1e-3  # seconds: shorter runs are repeated within a sample until it is this long
BOOTSTRAP = 2000


@dataclass(frozen=True)
class Timings:
    """Seconds of each program in each round.

    Attributes:
        seconds: Name -> seconds of one run, one entry a round; the same round stands at the same place in each.
    """

    seconds: Mapping[str, np.ndarray] = field(repr=False)

    def median(self, name: str) -> float:
        """The median time of one run, in seconds."""
        return float(np.median(self.seconds[name]))

    def percentile(self, name: str, q: float) -> float:
        """A percentile of the times, in seconds."""
        return float(np.percentile(self.seconds[name], q))

    def ratio(self, slower: str, faster: str) -> tuple[float, tuple[float, float]]:
        """How many times longer `slower` takes: the median over rounds, and its 95 % interval by paired bootstrap."""
        ratios = self.seconds[slower] / self.seconds[faster]
        picks = np.random.default_rng(0).integers(0, len(ratios), (BOOTSTRAP, len(ratios)))
        low, high = np.percentile(np.median(ratios[picks], axis=1), [2.5, 97.5])
        return float(np.median(ratios)), (float(low), float(high))

    def each(self, calls: int) -> Timings:
        """Where a run is several calls: the mean time of a call."""
        return Timings({name: seconds / calls for name, seconds in self.seconds.items()})

    def fastest(self) -> str:
        """The name with the smallest median."""
        return min(self.seconds, key=self.median)

    def latency(self, name: str, **details: Any) -> Measurement:
        """The median as a `latency` row, with its quartiles and its 90th and 99th percentile."""
        return Measurement(
            name="latency",
            value=self.median(name),
            unit="s",
            source="measured",
            spread=(self.percentile(name, 25), self.percentile(name, 75)),
            subject=name,
            details={
                "p90": self.percentile(name, 90),
                "p99": self.percentile(name, 99),
                "rounds": len(self.seconds[name]),
                **details,
            },
        )

    def speedup(self, other: str, chosen: str, **details: Any) -> Measurement:
        """How many times faster `chosen` is than `other`, as a `speedup` row with its 95 % interval."""
        value, spread = self.ratio(other, chosen)
        return Measurement("speedup", value, "x", "measured", spread, subject=other, details=details)


def compare(
    runs: Mapping[str, Run],
    *,
    seconds: float = 5.0,
    min_rounds: int = 15,
    warmup: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> Timings:
    """Time several programs in turn.

    Args:
        runs: Name -> what to run. Each is called with nothing and should do the same work every time.
        seconds: About how long to measure, for all together; `min_rounds` may take longer.
        min_rounds: The fewest rounds.
        warmup: Calls of each before anything is measured.
        seed: Of the order within each round.
        progress: Called with (done, total, what), in hundredths of the time.

    Raises:
        OptionError: There is nothing to run.
    """
    if not runs:
        raise OptionError("nothing to time", "runs")
    repeats = {name: _repeats(run, warmup) for name, run in runs.items()}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle = list(runs), random.Random(seed)
    collecting = gc.isenabled()
    gc.disable()  # a collection would fall on whoever happens to run
    try:
        start, rounds = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds or rounds < min_rounds:
            shuffle.shuffle(order)
            for name in order:
                samples[name].append(_sample(runs[name], repeats[name]))
            rounds += 1
            if progress:
                progress(min(99, int(100 * max(elapsed / seconds, 0))), 100, f"timing, round {rounds}")
    finally:
        if collecting:
            gc.enable()
    if progress:
        progress(100, 100, f"timed {rounds} rounds")
    return Timings({name: np.array(times) for name, times in samples.items()})


def _repeats(run: Run, warmup: int) -> int:
    last = [_sample(run, 1) for _ in range(max(1, warmup))][-1]
    return max(1, int(np.ceil(SAMPLE / max(last, 1e-7))))


def _sample(run: Run, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


@dataclass(frozen=True)
class Fresh:
    """What a program cost in a process of its own.

    Attributes:
        seconds: From the start of the process to its end.
        peak_bytes: The most memory that it held at once (resident set).
    """

    seconds: float
    peak_bytes: int


def in_fresh_process(arguments: Sequence[str], *, times: int = 3) -> list[Fresh]:
    """Run `python ARGUMENTS` several times, each in a new process: for cold starts and peak memory.

    Raises:
        OptionError: The program failed; carries the end of what it printed.
    """
    results = []
    for _ in range(times):
        start = time.perf_counter()
        process = subprocess.run(
            [sys.executable, "-c", _REPORT, *arguments], capture_output=True, text=True, check=False
        )
        elapsed = time.perf_counter() - start
        last = process.stdout.strip().splitlines()[-1:] or [""]
        if process.returncode != 0 or not last[0].isdigit():
            raise OptionError(f"the program failed: {process.stderr.strip()[-500:]}", " ".join(arguments))
        results.append(Fresh(elapsed, int(last[0])))
    return results


# Linux keeps ru_maxrss across exec, so that a child would report its parent's peak; VmHWM is the program's own
_REPORT = """
import resource, runpy, sys
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
try:
    with open("/proc/self/status") as status:
        print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")))
except OSError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""
