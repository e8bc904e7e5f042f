"""`Distill`: recover what compression has lost, by learning from the model as it was. No labels are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from planish.errors import OptionError
from planish.formats.learning import Gradient
from planish.graph import Data, Graph, Pass, Progress, Selector, Step, parse_selector
from planish.training import network
from planish.training.callbacks import Callback
from planish.training.checkpoint import Checkpoints
from planish.training.losses import distances
from planish.training.options import Precision, Training
from planish.training.recovery import Recovery

OutputLoss = Literal["relative", "cosine", "kl"]


@dataclass(frozen=True)
class Distill(Pass):
    """Train the parameters such that the graph answers as the graph that the recipe started from (`graph.origin`).

    The loss compares outputs, and what each block gives out (FitNets, arXiv 1412.6550) where teacher and student have
    that value in one shape and basis. The model is in evaluation mode: no dropout, and batch norms keep their
    statistics. Masks, casts and what does not ask for a gradient stay; only values of tensors change.

    Attributes:
        minutes: The most wall-clock time.
        epochs: The most passes over the data; None is ended by `minutes`.
        learning_rate: Of AdamW, at the peak of a cosine schedule with warmup.
        batch_size: Rows of a step, where the batch of the graph is dynamic; otherwise items are used as they are.
        loss: How outputs are compared: "relative" squared error, one less the "cosine" along the last axis, or "kl"
            divergence of scores along it.
        features: Weight of the relative squared error of what blocks give out, beside the outputs' 1; 0 leaves it out.
        where: The operations whose parameters train.
        gradient: What stands in for the gradient of rounding; by "lsq" and "pact" stored scales learn too.
        weight_decay: Of matrices.
        precision: What products are computed in; "auto" is bf16 where the processor has it.
        average: Decay of a moving average of the parameters to end with; None ends with the last ones.
        seed: Of the order of the data.
    """

    learns: ClassVar[bool] = True

    minutes: float | None = 10.0
    epochs: int | None = None
    learning_rate: float = 2e-4
    batch_size: int = 16
    loss: OutputLoss = "relative"
    features: float = 1.0
    where: Selector | str = "any & ~embedding"
    gradient: Gradient = "straight-through"
    weight_decay: float = 0.0
    precision: Precision = "fp32"
    average: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))
        for name, kind in (("loss", OutputLoss), ("gradient", Gradient)):
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(map(repr, get_args(kind)))
                raise OptionError(f"unknown {name} {getattr(self, name)!r}", name, f"one of {known}")
        if self.batch_size < 1:
            raise OptionError(f"a batch has one row or more, not {self.batch_size}", "batch_size")
        if not self.features >= 0:
            raise OptionError(f"a weight is 0 or more, not {self.features}", "features", "features=1.0")
        _ = self.training  # which checks the others

    @property
    def training(self) -> Training:
        """The options of the loop."""
        return Training.of(self)

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each parameter that trains."""
        return network.steps_of(graph, parse_selector(self.where))

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The trained graph."""
        return self.run(graph, data, progress)

    def run(
        self,
        graph: Graph,
        data: Data | None,
        progress: Progress | None = None,
        callbacks: Sequence[Callback] = (),
        checkpoints: Checkpoints | None = None,
    ) -> Graph:
        """As the pass, watched by callbacks and continued from checkpoints.

        Raises:
            OptionError: The graph does not know what it was.
            DataError: There is no data.
            Diverged: The loss became NaN or infinite.
        """
        recovery = self.recovery(graph, data)
        recovery.run(self.training, callbacks, checkpoints, progress)
        return recovery.graph()

    def recovery(self, graph: Graph, data: Data | None) -> Recovery:
        """Student and teacher, before the training."""
        where, distance = parse_selector(self.where), distances[self.loss]
        return Recovery(graph, data, where, self.gradient, self.batch_size, distance, self.features)
