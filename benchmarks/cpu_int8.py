"""Claim: on this machine's CPU no int8 peer is both faster and better than Planish.

    python -m benchmarks.cpu_int8 --quick
    python -m benchmarks.cpu_int8 --model minilm --shape 128 --batch 1 --threads 1

Each combination of model, shape, batch and threads runs in a process of its own, in which all programs are timed in
turn, and leaves one file under benchmarks/results/; one that is there is not run again. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dominance import Quality, dominance
from benchmarks.problems import Feed
from planish.errors import PlanishError
from planish.measure import Timings, compare
from planish.record import environment
from planish.targets.cpu.engine import has_bfloat16, may_saturate

HERE = Path(__file__).parent
BASE = "openvino fp32"
TOO_SLOW = 4.0  # times the baseline: cannot win, is timed apart in a few calls and not judged
SHAPES = {"minilm": ("128", "stream"), "resnet18": ("",), "mobilenet_v2": ("",), "vit_tiny": ("",)}
RECIPES = {
    "minilm": ("w8a8", "w8a8-vnni", "w8a8-dynamic", "w8"),
    "vit_tiny": ("w8a8", "w8a8-vnni", "w8a8-dynamic", "w8"),
    "resnet18": ("w8a8-conv", "w8a8-conv-vnni", "w8a8-classifier"),
    "mobilenet_v2": ("w8a8-conv", "w8a8-conv-vnni", "w8a8-classifier"),
}
# An engine may round at other places than the graph. MobileNetV2 with random weights loses 22 % to 8 bits whatever runs
# it, so two roundings differ by more than the default tolerance; what counts is the SQNR against fp32, judged below.
TOLERANCE = {"mobilenet_v2": 0.25}


@dataclass
class Entry:
    """A program in the race.

    Attributes:
        call: Runs it on what `given` makes of one call's arrays.
        nbytes: Of its file; 0 where it has none.
        ours: Whether it is Planish's.
        detail: What else is known of it.
        given: One call's arrays as the program's users have them; it is not timed.
    """

    call: Callable[[Any], Any]
    nbytes: int = 0
    ours: bool = False
    detail: str = ""
    given: Callable[[Feed], Any] = lambda feed: feed

    def answer(self, feed: Feed) -> np.ndarray:
        """What it computes, as an array."""
        return np.asarray(self.call(self.given(feed)))


def main() -> None:
    """Run every combination that has no result yet, then print all tables."""
    options = _options()
    for model, shape, batch, threads in _combinations(options):
        file = _file(options.results, model, shape, batch, threads, options.quick)
        if not file.exists() or options.again:
            print(f"running {file.stem}", flush=True)
            # passive waiting: threads of one engine that spin would take the cores from the next
            still = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "OMP_NUM_THREADS": str(threads)}
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.cpu_int8", "--inside", str(file)]
            command += ["--model", model, "--shape", shape, "--batch", str(batch), "--threads", str(threads)]
            command += ["--seconds", str(options.seconds)] + (["--quick"] if options.quick else [])
            done = subprocess.run(command, env={**os.environ, **still}, cwd=HERE.parent, check=False)
            if done.returncode:
                print(f"{file.stem} failed", file=sys.stderr)
        if file.exists():
            print(table(json.loads(file.read_text())))


def run(model: str, shape: str, batch: int, threads: int, quick: bool, seconds: float) -> dict[str, Any]:
    """Build, time and judge all programs for one combination; what the result file holds."""
    import torch

    from benchmarks import peers
    from benchmarks.problems import Problem, answers

    torch.set_num_threads(threads)
    problem = Problem(model, shape, batch, judged=100 if quick else 500)
    entries: dict[str, Entry] = {}
    refused: dict[str, str] = {}
    cache = HERE / ".cache" / model

    def enter(name: str, make: Callable[[], Entry]) -> None:
        start = time.perf_counter()
        try:
            entries[name] = make()
        except Exception as error:  # a peer that cannot run is a result of its own
            refused[name] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        note = f"refused: {refused[name]}" if name in refused else f"{time.perf_counter() - start:.0f} s"
        print(f"  {name}: {note}", file=sys.stderr, flush=True)

    for name in [n for n in peers.files(problem) if not quick or n in peers.QUICK]:

        def from_file(name: str = name, **how: Any) -> Entry:
            file = peers.prepare(name, problem, cache)
            return Entry(peers.session(file, problem, threads, **how), peers.size(file))

        enter(name, from_file)
        if has_bfloat16() and name.startswith(("openvino", "nncf")):
            enter(f"{name.removesuffix(' fp32')} in bf16", partial(from_file, half=True))
    groups = partial(from_file, "openvino 8-bit weights", groups=32)
    enter("openvino 8-bit weights, dynamic groups of 32", groups)
    if has_bfloat16():
        enter("openvino 8-bit weights, dynamic groups of 32 in bf16", partial(groups, half=True))
    eager = partial(peers.without_gradients, problem.module)
    enter("eager fp32", lambda: Entry(eager, given=problem.tensors))
    if not quick:
        enter("torch.compile fp32", lambda: Entry(peers.compiled(problem), given=problem.tensors))
        enter("torchao int8 dynamic", lambda: Entry(peers.compiled(problem, int8=True), given=problem.tensors))
    for name in RECIPES[model]:
        if name.endswith("-vnni") and may_saturate():
            continue
        enter(f"planish {name}", partial(ours, problem, name, threads, cache))
        if has_bfloat16():
            enter(f"planish {name} in bf16", partial(ours, problem, name, threads, cache, "bfloat16"))
    if has_bfloat16():
        enter("planish in bf16", partial(ours, problem, "", threads, cache, "bfloat16"))

    given = {name: [entry.given(feed) for feed in problem.timed()] for name, entry in entries.items()}
    runs = {name: partial(_calls, entry.call, given[name]) for name, entry in entries.items()}
    fast, slow = _split(runs)
    times = compare(fast, seconds=seconds, min_rounds=15, warmup=1)
    feeds = problem.rows("evaluation", problem.judged)
    wanted = problem.reference(feeds)
    qualities = {name: Quality.of(problem.kind, answers(entries[name].answer, feeds), wanted) for name in fast}
    rows = [_row(name, entries[name], times, qualities[name]) for name in fast]
    rows += [
        {"name": name, "ours": False, "speed": 1 / ratio, "note": "too slow to race"} for name, ratio in slow.items()
    ]
    return {
        "problem": {"model": model, "shape": shape, "batch": batch, "threads": threads, "metric": problem.kind},
        "judged": len(wanted),
        "environment": environment(seed=0, command="python -m benchmarks.cpu_int8" + (" --quick" if quick else "")),
        "rows": rows,
        "duels": list(_duels(entries, times, qualities)),
        "refused": refused,
        "seconds": {name: [round(float(t), 7) for t in times.seconds[name]] for name in fast},
    }


def _calls(call: Callable[[Any], object], given: list[Any]) -> None:
    for one in given:
        call(one)


def ours(problem: Any, name: str, threads: int, cache: Path, precision: Any = "float32") -> Entry:
    """Planish with one of its ready recipes or with none, calibrated on the calibration split; the engine that it
    chooses."""
    import torch

    import planish
    from planish.graph.store import VERSION

    task, recipe = problem.task, planish.Recipe.ready(name) if name else planish.Recipe(None)
    # unpadded, as the peers get it
    data = [(tuple(map(torch.from_numpy, feed.values())), {}) for feed in problem.calibration()]
    kept = cache / f"planish-{name}-{hashlib.sha256(recipe.to_toml().encode()).hexdigest()[:8]}-v{VERSION}.planish"
    graph = planish.capture(task.model, task.example_inputs, dynamic=task.dynamic)
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        recipe(graph, data=data).save(kept)
    small = planish.load(kept)
    target = planish.Cpu(
        threads=threads,
        batch=problem.batch,
        dynamic=problem.shape == "stream",
        timed_on="data" if problem.shape == "stream" else "example",
        tolerance=TOLERANCE.get(problem.model, planish.Cpu.tolerance),
        precision=precision,
    )
    artifact = planish.build(small, target, data=data)

    return Entry(lambda given: artifact(*given), artifact.nbytes, True, artifact.label, problem.tensors)


def _split(runs: dict[str, Callable[[], object]]) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """Those worth racing, and how many times the baseline's time the others take."""

    def best(run: Callable[[], object], calls: int) -> float:
        times = []
        for _ in range(calls):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return min(times)

    base = best(runs[BASE], 4)
    once = {name: best(run, 3) / base for name, run in runs.items()}
    return (
        {name: run for name, run in runs.items() if once[name] <= TOO_SLOW},
        {name: ratio for name, ratio in once.items() if ratio > TOO_SLOW},
    )


def _row(name: str, entry: Entry, times: Timings, quality: Quality) -> dict[str, Any]:
    speed, interval = times.ratio(BASE, name)
    return {
        "name": name,
        "ours": entry.ours,
        "detail": entry.detail,
        "bytes": entry.nbytes,
        "median_s": times.median(name),
        "quartiles_s": [times.percentile(name, 25), times.percentile(name, 75)],
        "p90_s": times.percentile(name, 90),
        "rounds": len(times.seconds[name]),
        "speed": speed,
        "speed_95": interval,
        "quality": quality.value(),
        "quality_95": quality.interval(),
    }


def _duels(entries: dict[str, Entry], times: Timings, qualities: dict[str, Quality]) -> Iterator[dict[str, Any]]:
    """Every int8 peer against every artifact of ours."""
    mine = [name for name in qualities if entries[name].ours]
    for rival in qualities:
        if rival in mine or "fp32" in rival:
            continue
        for own in mine:
            share, verdict = dominance(times.seconds[rival], times.seconds[own], qualities[rival], qualities[own])
            yield {"peer": rival, "ours": own, "share": share, "verdict": verdict}


def table(result: dict[str, Any]) -> str:
    """The result for the terminal: fastest first, times and quality with what is beaten."""
    problem = result["problem"]
    unit = "cosine" if problem["metric"] == "cosine" else "SQNR dB"
    title = f"{problem['model']} {problem['shape']} batch {problem['batch']}, {problem['threads']} thread(s)"
    lines = [f"\n{title}: × {BASE} [95 %], {unit} on {result['judged']} rows", ""]
    digits = 5 if unit == "cosine" else 1
    for row in sorted(result["rows"], key=lambda row: -row["speed"]):
        mark = ">" if row["ours"] else " "
        if "quality" not in row:
            lines.append(f"{mark} {row['name'][:44]:44} {row['speed']:5.2f}  {row['note']}")
            continue
        low, high = row["speed_95"]
        size = f"{row['bytes'] / 1e6:6.1f} MB" if row["bytes"] else " " * 9
        lines.append(
            f"{mark} {row['name'][:44]:44} {row['speed']:5.2f} [{low:.2f}, {high:.2f}] "
            f"{row['quality']:8.{digits}f} {size}  {row['detail']}".rstrip()
        )
    lines += [f"  {name}: refused, {reason}" for name, reason in result["refused"].items()]
    lines += [
        f"! {d['peer']} {d['verdict']} {d['ours']} ({d['share']:.0%})"
        for d in result["duels"]
        if d["verdict"] != "does not"
    ]
    return "\n".join(lines) + "\n"


def _combinations(options: argparse.Namespace) -> Iterator[tuple[str, str, int, int]]:
    for model, shapes in SHAPES.items():
        for shape in shapes:
            for batch in (1,) if options.quick or shape == "stream" else (1, 8):
                for threads in (1,) if options.quick else (1, 2):
                    wanted = (options.model, options.shape, options.batch, options.threads)
                    have = (model, shape, batch, threads)
                    if all(wish is None or wish == value for wish, value in zip(wanted, have, strict=True)):
                        yield have


def _file(results: Path, model: str, shape: str, batch: int, threads: int, quick: bool) -> Path:
    name = "-".join(filter(None, [model, shape, f"b{batch}", f"t{threads}", "quick" if quick else ""]))
    return results / f"{name}.json"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.cpu_int8", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", choices=list(SHAPES))
    parser.add_argument("--shape", choices=["128", "stream", ""])
    parser.add_argument("--batch", type=int, choices=[1, 8])
    parser.add_argument("--threads", type=int, choices=[1, 2])
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing for each combination")
    parser.add_argument("--quick", action="store_true", help="batch 1, 1 thread, fewer peers, 100 judged rows")
    parser.add_argument("--again", action="store_true", help="run combinations that have a result, too")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "cpu_int8")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        try:
            result = run(options.model, options.shape, options.batch, options.threads, options.quick, options.seconds)
        except PlanishError as error:
            sys.exit(str(error))
        options.inside.parent.mkdir(parents=True, exist_ok=True)
        options.inside.write_text(json.dumps(result, indent=1) + "\n")
        sys.exit()
    return options


if __name__ == "__main__":
    main()
