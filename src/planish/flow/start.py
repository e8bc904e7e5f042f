"""The first answer of the artifact, of the best fp32 engine and of eager PyTorch, each in a fresh process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from planish import bench
from planish.bench.race import EAGER
from planish.flow import stages
from planish.flow.batch import Call
from planish.flow.judge import judged
from planish.graph import Graph
from planish.measure import Progress
from planish.models.task import Task
from planish.record import Measurement, Run
from planish.targets import Target
from planish.targets.cpu import Cpu

_SAME = 1e-3  # a baseline whose answers differ by more from the graph's is fp32 in name only, and is judged, too


def starts(
    run: Run, task: Task | None, original: Graph, target: Target, call: Call, progress: Progress
) -> Iterator[Sequence[Measurement]]:
    """`cold_start` and `peak_memory` of each, and what else is known of the best fp32 engine once it is built again."""
    roles = {row.details.get("role"): row for row in run.measurements() if row.name == "latency"}
    with tempfile.TemporaryDirectory() as place:
        models = {roles["chosen"].subject: run.path / stages.ARTIFACT}
        if "baseline" in roles and isinstance(target, Cpu):
            label, engine = roles["baseline"].subject, str(roles["baseline"].details["engine"])
            progress(0, 0, f"building {label} to start it")
            alike = replace(target, engine=engine, precision="float32", seconds=0.0, timed_on="example")
            built = alike.build(original, folder=Path(place, "baseline"))
            models[label] = Path(place, "baseline")
            yield [Measurement("size", built.nbytes, "B", "exact", subject=label)]
            if task and task.evaluation and _differ(built, original, call):
                progress(0, 0, f"judging {label}")
                yield judged(task, built, "baseline")
        if (run.path / stages.CAPTURED).is_file():
            models[EAGER] = run.path / stages.CAPTURED
        yield from first_answers(models, call, 1, progress)


def first_answers(
    models: dict[str, Path], call: Call, times: int, progress: Progress
) -> Iterator[Sequence[Measurement]]:
    """`cold_start` and `peak_memory` of each model; nothing where the inputs are no plain tensors."""
    if call.tensors is None:
        return
    found = bench.start(models, *call.tensors, times=times)
    for done, label in enumerate(models):
        progress(done, len(models), f"starting {label} in a fresh process")
        yield next(found)


def _differ(model: Callable[..., Any], graph: Graph, call: Call) -> bool:
    given, wanted = (pytree.tree_leaves(each(*call.args, **call.kwargs)) for each in (model, graph))
    pairs = [(one.double(), other.double()) for one, other in zip(given, wanted, strict=True) if torch.is_tensor(other)]
    norm = torch.linalg.vector_norm
    return any(norm(one - other) > _SAME * norm(other) for one, other in pairs)
