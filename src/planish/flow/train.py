"""`planish train`: a model, its data and a plan in; a trained graph and its numbers out.

The process that is asked checks everything, starts the plan's processes on this machine and waits; each of these runs
the same command again as a member, and goes on from the last checkpoint if there is one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from planish.errors import DataError, OptionError
from planish.flow.judge import judged
from planish.flow.source import Source
from planish.graph import Graph, Progress
from planish.record import Run, environment
from planish.training import Checkpoints, History, Training, train
from planish.training.batches import regroup
from planish.training.callbacks import STAGE
from planish.training.parallel import Plan
from planish.training.parallel.spread import check
from planish.training.parallel.world import is_first, is_member

CHECKPOINTS, RESULT, PLAN = "checkpoints", "trained.planish", "plan.toml"
Item = tuple[Any, ...]


def prepare(
    run: Run, source: Source, plan: Plan, batch_size: int | None, fresh: bool
) -> tuple[Graph, list[Item], list[str]]:
    """The graph, its items of data, and what the user should know: all that can be refused is refused here.

    Args:
        run: The folder; `fresh` empties it of checkpoints.
        source: A model that was captured for training.
        plan: How the training is spread.
        batch_size: Rows of a step; None takes the items as the task has them.
        fresh: Do not go on from an earlier training.

    Raises:
        ModelError: The model cannot train.
        DataError: There is no data to train on, or a batch cannot be dealt out.
        OptionError: The plan does not fit the model; says where.
    """
    if source.graph.training_refusal is not None:
        raise source.graph.training_refusal  # type: ignore[misc]
    if source.task is None or not source.task.training:
        hint = "--data file.py:function, or Task(..., training=[(args, kwargs, target), ...])"
        raise DataError("there is no data to train on", source.name, hint)
    items = [(tuple(args), dict(kwargs), target) for args, kwargs, target in _triples(source)]
    notes: list[str] = []
    if batch_size is not None:
        items = regroup(source.graph, items, batch_size)  # type: ignore[arg-type]  # triples
    parts = plan.shares * plan.microbatches
    whole = [item for item in items if _rows(item) % parts == 0]
    if not whole:
        size = -(-_rows(items[0]) // parts) * parts
        what = f"no batch of the data can be dealt out in {plan.shares} shares of {plan.microbatches} microbatches"
        raise DataError(what, source.name, f"--batch-size {size}")
    if len(whole) < len(items):
        notes.append(f"{len(items) - len(whole)} of {len(items)} batches do not divide by {parts} and are left out")
    check(plan, source.graph)
    if fresh and not is_member():
        shutil.rmtree(run.path / CHECKPOINTS, ignore_errors=True)
    return source.graph, whole, notes


def fit(
    run: Run,
    source: Source,
    graph: Graph,
    items: list[Item],
    plan: Plan,
    training: Training,
    loss: str,
    every: int,
    progress: Progress,
) -> None:
    """Train, as one of the plan's processes or as the only one; the first keeps the result and its numbers.

    Raises:
        Diverged: The loss became NaN or infinite.
        UserError: The checkpoint in the folder is of other options.
    """
    first = is_first()
    checkpoints = Checkpoints(run.path / CHECKPOINTS, every)
    if first:
        run.write("environment.json", json.dumps(environment(training.seed), indent=2) + "\n")
        plan.write(run.path / PLAN)
    history = [History(run)] if first else []
    result = train(graph, items, training, loss, history, checkpoints, progress, plan)
    if not first:
        return
    result.save(run.path / RESULT, whole=True)
    if source.task is not None and source.task.evaluation:
        progress(0, 0, "judging")
        run.add(judged(source.task, graph, "before"), STAGE)
        run.add(judged(source.task, result, "trained"), STAGE)


def _triples(source: Source) -> list[Item]:
    assert source.task is not None
    found = list(source.task.training)
    for place, item in enumerate(found):
        if len(item) != 3:
            what = "an item to train on is (args, kwargs, target), and there is no target"
            raise DataError(what, f"{source.name}, training[{place}]", "((x,), {}, y)")
    return found


def _rows(item: Item) -> int:
    leaves = [leaf for leaf in pytree.tree_leaves(item[2]) if isinstance(leaf, Tensor) and leaf.dim()]
    return len(leaves[0]) if leaves else 1


def folder_of(model: str) -> Path:
    """`runs/NAME-trained`."""
    return Path("runs") / f"{Path(model.rpartition(':')[2]).stem or 'model'}-trained"


def chosen_plan(plan: str | None, devices: int | None, hardware: str | None, source: Source, batch: int) -> Plan:
    """The plan of a file, one that the planner finds ("auto"), or replicas on so many devices.

    Raises:
        OptionError: Both a file and a number of devices are given; the file cannot be read; or no plan fits.
    """
    if plan == "auto":
        from planish.training.planning import automatic

        return automatic(source.graph, batch, devices, hardware)
    if plan is not None:
        if devices is not None:
            raise OptionError("the plan says how many devices", "--devices", "--plan auto --devices 8, or one of both")
        return Plan.read(plan)
    return Plan(dp=devices or 1)
