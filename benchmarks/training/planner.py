"""How long the planner takes, and how far folding is from the program without it.

python -m benchmarks.training.planner       # writes results/training/planner.json
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.training.planning.models import large

from planish.training.planning import Cluster, plan
from planish.training.planning.fold import fold, unfolded
from planish.training.planning.hardware import Hardware
from planish.training.planning.operations import Operations
from planish.training.planning.program import Program
from planish.training.planning.setting import Setting
from planish.training.planning.steptime import Model

RESULTS = Path(__file__).parents[1] / "results" / "training" / "planner.json"


def main() -> None:
    found: dict[str, object] = {}
    model = Model(Hardware.named("h100-sxm"), Setting(tp=8, precision="bf16"))
    gaps = []
    for layers in (4, 8, 16, 96):
        operations = Operations(large(layers))
        row: dict[str, float] = {"layers": layers}
        for name, folded in (("folded", fold(operations.graph)), ("unfolded", unfolded(operations.graph))):
            start = time.process_time()
            solution = Program(operations, model, 2, folded).solve()
            row[f"{name} seconds"] = time.process_time() - start
            row[f"{name} objective"] = solution.seconds
        row["gap"] = row["folded objective"] / row["unfolded objective"] - 1
        gaps.append(row)
        print(row)
    found["program"] = gaps
    searches = []
    deep = large(96, 12288, 2048)
    for mesh in ((16, 8), (16, 8, 8), (256,)):
        start, wall = time.process_time(), time.perf_counter()
        planned = plan(deep, Cluster.of("h100-sxm", mesh=mesh), batch=1024)
        row = {
            "mesh": "x".join(map(str, mesh)),
            "cpu seconds": time.process_time() - start,
            "seconds": time.perf_counter() - wall,
            "plan": str(planned.plan),
            "step": planned.best.estimate.seconds,
        }
        searches.append(row)
        print(row)
    found["planner, 96 layers, 174 billion parameters"] = searches
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
