"""Whether plans that are predicted to be faster are: measured and predicted step times on processes of this machine.

    python -m benchmarks.training.ranking       # writes results/training/ranking.json

Ten plans for four processes train the same transformer on gloo; steps of all plans are timed after a warm-up, the
median counts. Where there are fewer cores than processes, these share them, which the prediction does not know.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from tests.training.parallel.networks import GPT, TOKENS, WORDS
from tests.training.parallel.pool import Pool

import planish
from planish.graph import Graph
from planish.record import Run, environment
from planish.training import Moment, Training
from planish.training.loop import Loop
from planish.training.losses import cross_entropy
from planish.training.parallel import Plan
from planish.training.parallel.spread import Spread
from planish.training.parallel.world import is_first
from planish.training.planning import Cluster, predict
from planish.training.start import OfTarget

RESULTS = Path("benchmarks/results/training")
ROWS, STEPS, WARM, ROUNDS = 64, 8, 2, 2
PLANS = [
    Plan(dp=4),
    Plan(fsdp=4),
    Plan(dp=2, fsdp=2),
    Plan(tp=4),
    Plan(dp=2, tp=2),
    Plan(fsdp=2, tp=2),
    Plan(pp=4, microbatches=4),
    Plan(dp=2, pp=2, microbatches=4),
    Plan(tp=2, pp=2, microbatches=2),
    Plan(dp=4, recompute="blocks.*"),
    Plan(dp=4, microbatches=4),
]


class Times:
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_step(self, moment: Moment) -> None:
        self.at.append(time.perf_counter())

    def on_epoch(self, moment: Moment) -> None:
        pass

    def on_end(self, moment: Moment) -> None:
        pass


def model() -> tuple[Graph, list[Any]]:
    torch.manual_seed(0)
    ids = [torch.randint(0, WORDS, (ROWS, TOKENS)) for _ in range(4)]
    graph = planish.capture(GPT(width=384, heads=8, layers=4), (ids[0],), dynamic={"ids": {0: "batch"}})
    return graph, [((each,), {}, each) for each in ids]


def steps(plan: Plan) -> list[float] | None:
    """Seconds of each step but the first ones."""
    graph, data = model()
    watch, net = Times(), graph.module(hierarchical=True).train()

    def engine(*given: Any) -> Spread:
        return Spread(*given, plan, graph)

    Loop(net, data, OfTarget(cross_entropy), Training(steps=STEPS), [watch], engine=engine).run()
    return (
        [later - earlier for earlier, later in zip(watch.at[WARM:-1], watch.at[WARM + 1 :], strict=True)]
        if is_first()
        else None
    )


def main() -> None:
    graph, _ = model()
    cluster, pool = Cluster.of("cpu", devices=4), Pool()
    measured: dict[str, list[float]] = {str(plan): [] for plan in PLANS}
    for _ in range(ROUNDS):  # in turn, so that a busy minute does not fall on one plan
        for plan in PLANS:
            measured[str(plan)] += pool.run(steps, plan, processes=4)[0]
    pool.end()
    rows = []
    for plan in PLANS:
        own = measured[str(plan)]
        rows.append(
            {
                "plan": str(plan),
                "measured": statistics.median(own),
                "predicted": predict(graph, plan, cluster, ROWS).seconds,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    rank = spearmanr([row["measured"] for row in rows], [row["predicted"] for row in rows]).statistic
    print(f"Spearman's rank correlation over {len(rows)} plans: {rank:.3f}")
    found = {"plans": rows, "spearman": rank, "unit": "s", "environment": environment(0)}
    Run(RESULTS).write("ranking.json", json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
