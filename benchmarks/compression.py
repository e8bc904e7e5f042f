"""Claim: on MiniLM-L6, real weights and real text, no other tool compresses better at the same cost.

    python -m benchmarks.compression                      # every case that has no result yet
    python -m benchmarks.compression --case w8a8 mxfp4    # these
    python -m benchmarks.compression --show               # the table, and nothing is run

Each case is a ready recipe. One shot sees 128 calibration sentences. What is "recovered" has ten minutes of two cores,
or twenty of one, for all of it: its first steps see 4,096 sentences of the text without labels that it then learns
from, those behind 512. All are judged on 500 other sentences. A case runs in a process of its own and leaves one file
under benchmarks/results/compression/.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "compression"
CALIBRATED = 128
RECOVERED = 4096
"""Sentences that the first steps of a recipe see, in one shot and in front of a recovery."""
CORES, MINUTES = 2, 10.0
"""For a recovery, all its steps together."""
BEHIND = 512
"""Sentences that a step behind a distillation sees."""
AFTERWARDS = 0.75
"""Minutes that are left to it."""
NEIGHBORS = 10


@dataclass(frozen=True)
class Case:
    """A cost, and the fidelity to reach at it.

    Attributes:
        recipe: Name of a ready recipe.
        bar: The mean cosine to reach.
        limits: What the cost is, in words.
        pair_bits: Of `Quantize`, where not the recipe's.
    """

    recipe: str
    bar: float
    limits: str
    pair_bits: int | None = None

    def steps(self) -> list[Any]:
        """Of the recipe."""
        from planish.compress import Quantize
        from planish.recipe import Recipe

        steps = Recipe.ready(self.recipe).steps
        if self.pair_bits is None:
            return list(steps)
        return [replace(step, pair_bits=self.pair_bits) if isinstance(step, Quantize) else step for step in steps]


CASES = {
    "w8a8": Case("w8a8", 0.9985, "8-bit weights and static activations, one scale a tensor; one shot"),
    "w8a8-free-codes": Case(
        "w8a8", 0.9985, "as w8a8, for processors that add products in 32 bits; one shot", pair_bits=32
    ),
    "w8a8-vnni": Case("w8a8-vnni", 0.9985, "as w8a8-free-codes, queries and keys in 8 bits, too; one shot"),
    "w4": Case("nf4", 0.985, "at most 4.5 bits a weight, embeddings included; one shot"),
    "mxfp4": Case("mxfp4", 0.95, "MXFP4 weights and activations; one shot"),
    "mxfp4-recovered": Case("mxfp4-recovered", 0.985, "as mxfp4, then 10 minutes of distillation"),
    "sparse-50": Case("sparse-50", 0.92, "half of the encoder's weights are zero; one shot"),
    "sparse-50-recovered": Case("sparse-50-recovered", 0.98, "as sparse-50, then 10 minutes of distillation"),
    "2of4-w8a8": Case("2of4-int8", 0.86, "2:4 zeros, then 8-bit weights and activations; one shot"),
    "2of4-w8a8-recovered": Case("2of4-int8-recovered", 0.97, "as 2of4-w8a8, then 10 minutes of distillation"),
    "mxfp4-low-rank": Case("mxfp4-qera", 0.98, "MXFP4 weights and at most 0.75 bits a weight of correction; one shot"),
    "structured-recovered": Case("half-macs", 0.95, "half the multiply-accumulates, then 10 minutes of distillation"),
}


def main() -> None:
    """Run what is asked for, then print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.compression", description=__doc__.partition("\n")[0])
    parser.add_argument("--case", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--again", action="store_true", help="run cases that have a result, too")
    parser.add_argument("--no-peers", action="store_true", help="only Planish")
    parser.add_argument("--threads", type=int, default=CORES, help="distillation takes as many core-minutes on fewer")
    parser.add_argument("--show", action="store_true", help="run nothing")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        (name,) = options.case
        options.inside.write_text(json.dumps(run(name, options.threads, peers=not options.no_peers), indent=1) + "\n")
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in options.case:
        file = RESULTS / f"{name}.json"
        if not options.show and (options.again or not file.exists()):
            print(f"running {name}", flush=True)
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.compression", "--case", name]
            command += ["--threads", str(options.threads), "--inside", str(file)]
            command += ["--no-peers"] if options.no_peers else []
            if subprocess.run(command, cwd=HERE.parent, check=False).returncode:
                print(f"{name} failed", file=sys.stderr)
    print(table())


def run(name: str, threads: int = CORES, peers: bool = True) -> dict[str, Any]:
    """Apply the case's recipe and its peers', and judge them; what the result file holds."""
    from benchmarks.compression_peers import peers as known_peers
    from planish import analyze, capture
    from planish.analysis import weights
    from planish.models import minilm
    from planish.recipe import Recipe
    from planish.record import environment
    from planish.training import Distill

    case, task = CASES[name], minilm.minilm()
    graph = capture(task.model, task.example_inputs, dynamic=task.dynamic)
    torch.set_num_threads(threads)
    steps = case.steps()
    recovers = any(isinstance(step, Distill) for step in steps)
    calibration = _spread(task.calibration, CALIBRATED)
    seen = _spread(task.training, RECOVERED) if recovers else calibration
    judge = _judge(task)
    start, small = time.perf_counter(), graph
    for place, step in enumerate(steps):
        if isinstance(step, Distill):
            left = MINUTES * CORES / threads - (time.perf_counter() - start) / 60
            step = replace(step, minutes=left - AFTERWARDS * CORES / threads * (len(steps) - 1 - place))
            small = step(small, task.training, _told())
            seen = _spread(task.training, BEHIND)
        else:
            small = Recipe(step)(small, data=seen, progress=_told())
    seconds = time.perf_counter() - start
    stored, count = sum(w.nbytes for w in weights(small)), sum(math.prod(w.shape) for w in weights(graph))
    rows = [
        {
            "name": f"planish {case.recipe}" + (f", pair_bits={case.pair_bits}" if case.pair_bits else ""),
            "ours": True,
            "bits_per_weight": 8 * stored / count,
            "macs": round(analyze(small).total.macs),
            "seconds": round(seconds, 1),
            **judge(small),
        }
    ]
    refused = {}
    for peer, make in known_peers(name) if peers else ():
        start = time.perf_counter()
        try:
            model = make([item[0] for item in calibration])
            took = time.perf_counter() - start
            rows.append({"name": peer, "ours": False, "seconds": round(took, 1), **judge(model)})
        except Exception as error:  # a peer that cannot do it is a result of its own
            refused[peer] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return {
        "case": {"name": name, **asdict(case)},
        "before": {"macs": round(analyze(graph).total.macs), "bits_per_weight": 32},
        "environment": environment(
            seed=0, command=f"python -m benchmarks.compression --case {name} --threads {threads}"
        ),
        "threads": threads,
        "rows": rows,
        "refused": refused,
    }


def _spread(data: Any, count: int) -> list[Any]:
    """Items with `count` of the rows: at equal distances, because rows come in order of length."""
    total, seen, items = sum(len(args[0]) for args, *_ in data), 0, []
    for args, kwargs, *_ in data:
        rows = [at for at in range(len(args[0])) if (seen + at) * count // total != (seen + at - 1) * count // total]
        seen += len(args[0])
        if rows:
            items.append((tuple(part[rows] for part in args), kwargs))
    return items


def _judge(task: Any) -> Callable[[Any], dict[str, Any]]:
    """Mean and worst cosine, neighbors kept, and what the task itself measures."""
    exact = _embeddings(task.model, task)

    def judge(model: Any) -> dict[str, Any]:
        mine = _embeddings(model, task)
        cosines = torch.nn.functional.cosine_similarity(mine, exact)
        near, wanted = _neighbors(mine), _neighbors(exact)
        overlap = [len(set(a) & set(b)) / NEIGHBORS for a, b in zip(near, wanted, strict=True)]
        rows = task.judge(model)
        measured = {row.name: row.value for row in rows if row.name != "mean_cosine"}
        (spread,) = (row.spread for row in rows if row.name == "mean_cosine")
        return {
            "mean_cosine": float(cosines.mean()),
            "interval": spread,
            "worst_cosine": float(cosines.min()),
            "neighbor_overlap": sum(overlap) / len(overlap),
            **measured,
        }

    return judge


def _embeddings(model: Any, task: Any) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(*item[0]) for item in task.evaluation]).double()


def _neighbors(rows: Tensor) -> list[list[int]]:
    """The nearest other rows of each row, by cosine."""
    near = rows @ rows.T
    near.fill_diagonal_(-math.inf)
    return near.topk(NEIGHBORS).indices.tolist()


def _told() -> Callable[[int, int, str], None]:
    last = [""]

    def progress(_done: int, _total: int, what: str) -> None:
        if (first := what.partition(" ")[0]) != last[0]:
            last[0] = first
            print(f"  {first}", file=sys.stderr, flush=True)

    return progress


def table() -> str:
    """All results, as Markdown."""
    lines = [
        "| case | bar | | bits a weight | MACs | mean cosine | worst | neighbors | Lee | sentiment | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in CASES:
        file = RESULTS / f"{name}.json"
        if not file.exists():
            continue
        result = json.loads(file.read_text())
        for place, row in enumerate(result["rows"]):
            bits = f"{row['bits_per_weight']:.2f}" if "bits_per_weight" in row else ""
            macs = f"{row['macs'] / result['before']['macs']:.2f}×" if "macs" in row else ""
            figures = [row["mean_cosine"], row["worst_cosine"], row["neighbor_overlap"], row["lee_pearson"]]
            shown = " | ".join(f"{value:.4f}" for value in figures)
            bar = f"≥ {result['case']['bar']}" if place == 0 else ""
            lines.append(
                f"| {name if place == 0 else ''} | {bar} | {row['name']} | {bits} | {macs} | {shown} "
                f"| {row['sentiment_accuracy']:.3f} | {row['seconds']:.0f} |"
            )
        lines += [f"| | | {peer} | | | {why} | | | | | |" for peer, why in result["refused"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
