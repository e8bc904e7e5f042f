"""A training by a plan: on the processes that there are, or on new ones of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from inspect import signature

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from planish.errors import DataError
from planish.frontends import capture
from planish.graph import Graph, Progress
from planish.training.callbacks import Callback
from planish.training.checkpoint import Checkpoints
from planish.training.engine import Item, Loss
from planish.training.loop import Loop
from planish.training.options import Training
from planish.training.parallel.local import run
from planish.training.parallel.plan import Plan
from planish.training.parallel.spread import Spread
from planish.training.parallel.world import is_first, is_member


def train(
    model: Graph | nn.Module,
    data: Iterable[Item],
    training: Training,
    loss: Loss,
    callbacks: Sequence[Callback],
    checkpoints: Checkpoints | None,
    progress: Progress | None,
    plan: Plan,
) -> dict[str, Tensor]:
    """Train as a plan says, and return all parameters and buffers, whole, by their names; the model stays.

    Called by a process that torchrun (or `launch`) started, it is one of them. Called by any other, it starts as many
    as the plan takes on this machine, and sends them all that it was given.

    Raises:
        OptionError: The plan does not fit the model, the data or the processes; says where.
        DataError: A batch cannot be dealt out.
        Diverged: The loss became NaN or infinite.
    """
    given = (model, data, training, loss, checkpoints, plan)
    if plan.devices == 1 or is_member():
        return _member(*given, callbacks, progress)
    if progress:
        progress(0, 0, f"training on {plan.devices} processes ({plan})")
    return run(_member, *given, tuple(callbacks), None, processes=plan.devices)


def _member(
    model: Graph | nn.Module,
    data: Iterable[Item],
    training: Training,
    loss: Loss,
    checkpoints: Checkpoints | None,
    plan: Plan,
    callbacks: Sequence[Callback],
    progress: Progress | None,
) -> dict[str, Tensor]:
    graph = model if isinstance(model, Graph) else captured(model, data) if plan.tp > 1 or plan.pp > 1 else None
    net = graph.module(hierarchical=True) if graph is not None else deepcopy(model)
    assert isinstance(net, nn.Module)
    net.train()
    engines: list[Spread] = []

    def engine(module: nn.Module, loss: Loss, training: Training) -> Spread:
        engines.append(Spread(module, loss, training, plan, graph))
        return engines[0]

    told = (callbacks, progress) if is_first() else ((), None)
    try:
        Loop(net, data, loss, training, told[0], checkpoints, told[1], engine).run()
        return engines[0].gathered()
    finally:
        for each in engines:
            each.world.leave()


def first(data: Iterable[Item]) -> Item:
    """The first item.

    Raises:
        DataError: There is none.
    """
    item = next(iter(data), None)
    if item is None:
        raise DataError("there is no data to train on", "data", "yield at least one item")
    return item


def rows_of(item: Item) -> int:
    """How many rows an item has, by its target; 0 where that does not tell."""
    return next((len(leaf) for leaf in pytree.tree_leaves(item[2]) if isinstance(leaf, Tensor) and leaf.dim()), 0)


def captured(model: nn.Module, data: Iterable[Item]) -> Graph:
    """A user's module as a graph, of which tensor parallelism and pipelines need to know what belongs together.

    Raises:
        DataError: There is no data.
    """
    item = first(data)
    args, kwargs, _ = item
    rows, dynamic = rows_of(item), {}
    for name, value in [*zip(_names(model, len(args)), args, strict=True), *kwargs.items()]:
        if isinstance(value, Tensor) and value.dim() and len(value) == rows:
            dynamic[name] = {0: "batch"}
    return capture(deepcopy(model), (tuple(args), dict(kwargs)), dynamic=dynamic)


def _names(model: nn.Module, count: int) -> list[str]:
    return list(signature(model.forward).parameters)[:count]
