"""`planish.train`: train a captured graph, or the user's own module, on data with targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from torch import Tensor, nn

from planish.errors import DataError, OptionError
from planish.graph import Graph, Progress
from planish.training import network
from planish.training.callbacks import Callback
from planish.training.checkpoint import Checkpoints
from planish.training.loop import Loop
from planish.training.losses import TaskLoss, losses
from planish.training.options import Training
from planish.training.parallel import start as parallel
from planish.training.parallel.plan import Plan

Model = TypeVar("Model", Graph, nn.Module)


@dataclass(frozen=True)
class OfTarget:
    """The loss of an item `(args, kwargs, target)`."""

    loss: TaskLoss

    def __call__(self, module: nn.Module, item: tuple[Any, ...]) -> Tensor:
        """Of what the module returns, and the target."""
        if not isinstance(item, tuple | list) or len(item) != 3:
            raise DataError("an item to train on is (args, kwargs, target)", "data", "((x,), {}, y)")
        args, kwargs, target = item
        return self.loss(module(*args, **kwargs), target)


def train(
    model: Model,
    data: Iterable[tuple[Any, ...]],
    training: Training = Training(epochs=3),  # noqa: B008  # frozen
    loss: str | TaskLoss = "cross_entropy",
    callbacks: Sequence[Callback] = (),
    checkpoints: Checkpoints | None = None,
    progress: Progress | None = None,
    plan: Plan | Literal["auto"] | None = None,
) -> Model:
    """Train a model in training mode (dropout on, batch norms collecting statistics), on any device it is on.

    Args:
        model: A graph, which stays as it is, or a module, which is trained in place.
        data: Re-iterable `(args, kwargs, target)`; a list is shuffled, other data comes in its own order.
        training: How long, how fast and how exactly.
        loss: A name ("cross_entropy", "mse") or `loss(output, target) -> scalar`.
        callbacks: What watches: `History()`, `tensorboard(folder)`, anything with the three methods of `Callback`.
        checkpoints: Where to save. A training that was killed goes on from there when it is started again.
        progress: Called with (done, total, what).
        plan: How it is spread over devices (`planish.training.parallel`); what comes out is the same. "auto" asks the
            planner (`planish.training.planning.automatic`).

    Returns:
        A new graph; or the module itself, in the mode it was in.

    Raises:
        ModelError: The graph was captured for evaluation only.
        OptionError: Nothing of the model may train, or the loss is unknown.
        DataError: There is no data, or an item without target.
        Diverged: The loss became NaN or infinite; the module holds what it was before that step.
    """
    if not isinstance(model, Graph | nn.Module):
        raise OptionError(f"a graph or a module can train, not {type(model).__name__}", "model", "planish.capture(...)")
    chosen = losses[loss] if isinstance(loss, str) else loss
    of_item = OfTarget(chosen)
    if plan == "auto":
        from planish.training.planning import automatic

        graph = model if isinstance(model, Graph) else parallel.captured(model, data)
        plan = automatic(graph, max(1, parallel.rows_of(parallel.first(data))))
    if plan is not None:
        values = parallel.train(model, data, training, of_item, callbacks, checkpoints, progress, plan)
        return network.with_values(model, values)
    net = model.module() if isinstance(model, Graph) else model
    before = net.training
    net.train()
    try:
        Loop(net, data, of_item, training, callbacks, checkpoints, progress).run()
    finally:
        net.train(before)
    return network.trained(model, net) if isinstance(model, Graph) else model
