"""`Fit`: train on data with targets, as a stage of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from planish.errors import DataError, OptionError, PlanishError
from planish.formats.learning import Gradient
from planish.graph import Data, Graph, Pass, Progress, Selector, Step, parse_selector
from planish.training import batches, learned, network
from planish.training.loop import Loop
from planish.training.losses import losses, of_outputs, relative
from planish.training.options import Precision, Training


@dataclass(frozen=True)
class Fit(Pass):
    """Train the parameters on targets: before a compression, or through its casts and masks after it.

    The model is in training mode: dropout is on, and batch norms collect statistics. Unlike `Distill` it needs data
    `(args, kwargs, target)`, and the model need not have been trained before.

    Attributes:
        epochs: The most passes over the data.
        minutes: The most wall-clock time.
        learning_rate: Of AdamW, at the peak of a cosine schedule with warmup.
        batch_size: Rows of a step, where the batch of the graph is dynamic; otherwise items are used as they are.
        loss: Of outputs and targets: "cross_entropy" or "mse".
        distillation: Weight of the relative squared error to the outputs of the graph that the recipe started from.
        where: The operations whose parameters train.
        gradient: What stands in for the gradient of rounding; by "lsq" and "pact" stored scales learn too.
        weight_decay: Of matrices.
        precision: What products are computed in; "auto" is bf16 where the processor has it.
        average: Decay of a moving average of the parameters to end with; None ends with the last ones.
        seed: Of the order of the data, and of what is random in the model.
    """

    learns: ClassVar[bool] = True

    epochs: int | None = 5
    minutes: float | None = None
    learning_rate: float = 1e-3
    batch_size: int = 32
    loss: str = "cross_entropy"
    distillation: float = 0.0
    where: Selector | str = "any"
    gradient: Gradient = "straight-through"
    weight_decay: float = 0.01
    precision: Precision = "fp32"
    average: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))
        _ = losses[self.loss]
        if self.batch_size < 1:
            raise OptionError(f"a batch has one row or more, not {self.batch_size}", "batch_size")
        if not self.distillation >= 0:
            raise OptionError(f"a weight is 0 or more, not {self.distillation}", "distillation", "distillation=1.0")
        _ = self.training  # which checks the others

    @property
    def training(self) -> Training:
        """The options of the loop."""
        return Training.of(self)

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each parameter that trains."""
        return network.steps_of(graph, parse_selector(self.where))

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The trained graph.

        Raises:
            ModelError: The graph was captured for evaluation only.
            DataError: There is no data, or an item has no target.
            Diverged: The loss became NaN or infinite.
        """
        if isinstance(graph.training_refusal, PlanishError):
            raise graph.training_refusal
        items = batches.regroup(graph, _with_targets(data), self.batch_size)  # type: ignore[arg-type]  # triples
        trains = network.parameters_of(graph, parse_selector(self.where))
        student = learned.with_gradient(graph, self.gradient)
        powers = student.parameter_names - graph.parameter_names
        net, chosen, teacher = student.module(), losses[self.loss], graph.origin if self.distillation else None
        for name, parameter in net.named_parameters(remove_duplicate=False):
            parameter.requires_grad_(name in trains | powers)

        def of_item(module: nn.Module, item: tuple[Any, ...]) -> Tensor:
            args, kwargs, target = item
            output = module(*args, **kwargs)
            loss = chosen(output, target)
            if teacher is None:
                return loss
            with torch.no_grad():
                wanted = teacher(*args, **kwargs)
            return loss + self.distillation * of_outputs(relative, output, wanted)

        net.train()
        Loop(net, items, of_item, self.training, progress=progress).run()
        net.eval()
        result = network.trained(graph, net, trains | (graph.buffers & {name for name, _ in net.named_buffers()}))
        return network.moved(result, learned.scales(network.trained(student, net))) if powers else result


def _with_targets(data: Data | None) -> list[tuple[Any, ...]]:
    items = [] if data is None else list(data)
    if not items:
        raise DataError("there is no data to train on", "training", "Task(..., training=[(args, kwargs, target), ...])")
    for place, item in enumerate(items):
        if not isinstance(item, tuple | list) or len(item) != 3:
            raise DataError("an item to train on is (args, kwargs, target)", f"data[{place}]", "((x,), {}, y)")
    return [(tuple(args), dict(kwargs), target) for args, kwargs, target in items]
