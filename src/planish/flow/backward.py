"""`planish analyze --training`: a training step of a model, as predicted and as measured."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from planish.flow.batch import call_of
from planish.flow.source import Source
from planish.graph import Progress
from planish.record import Run, environment
from planish.training.backward import StepCost, peak_memory, step_cost
from planish.training.batches import regroup

STAGE = "training step"
BATCH = 8
"""Rows, where the user says none: one row has no statistics for a batch norm."""


def analyze(run: Run, source: Source, progress: Progress) -> tuple[StepCost, int]:
    """The cost of a step, and the peak memory that two real steps had, in bytes; both go into the run folder.

    The step is that of `planish train`: on the task's own data and classes by cross entropy, if it has such; by the
    mean square of the output otherwise.

    Raises:
        ModelError: The model cannot train; says why.
    """
    if source.graph.training_refusal is not None:
        raise source.graph.training_refusal  # type: ignore[misc]
    item, batch, loss = _item(source)
    progress(0, 0, "following a training step")
    cost = step_cost(source.graph, item, batch, loss)
    progress(0, 0, "measuring two training steps")
    measured = peak_memory(source.graph, item, loss)
    run.write("environment.json", json.dumps(environment(), indent=2) + "\n")
    run.drop(STAGE)
    run.add(cost.measurements(measured), STAGE)
    return cost, measured


def _item(source: Source) -> tuple[tuple[Any, ...], int, str]:
    """An item to train on, its rows, and the loss."""
    graph, batch = source.graph, source.batch or BATCH
    given = next(iter(source.task.training), ()) if source.task else ()
    if len(given) == 3 and _is_classes(given[2]):
        items = [tuple(item) for item in source.task.training] if source.task else []
        first = regroup(graph, items, batch)[0]  # type: ignore[arg-type]  # triples
        own = pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, tuple(first))
        return own, len(first[2]), "cross_entropy"  # type: ignore[misc]
    varies = call_of(graph).sizes
    call = call_of(graph, batch if varies or source.batch else None)
    leaf = next(value for value in (*call.args, *call.kwargs.values()) if isinstance(value, Tensor) and value.dim())
    return (call.args, call.kwargs, None), len(leaf), "mse"


def _is_classes(target: Any) -> bool:
    return isinstance(target, Tensor) and target.dim() > 0 and not target.is_floating_point()
