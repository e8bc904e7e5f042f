"""`Training`: how long, how fast and how exactly to train, as a value."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from planish.errors import OptionError
from planish.training.optimizers import Factory, optimizers
from planish.training.schedules import Schedule, schedules, warmed

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Training:
    """The options of a training. It ends at the first of the limits that are given; one is needed.

    Attributes:
        epochs: Passes over the data.
        steps: Steps of the optimizer.
        minutes: Wall-clock time. What comes out then depends on the machine; limited otherwise, a seed decides it.
        learning_rate: At the schedule's peak.
        optimizer: A name ("adamw", "sgd") or `factory(parameter groups, lr=...)`.
        weight_decay: Of parameters with two axes or more.
        schedule: A name ("constant", "linear", "cosine", "one-cycle") or a function of the share that is done.
        warmup: Share of the training over which the learning rate rises from 0.
        accumulate: Items of data in one step; their mean loss counts.
        clip: The gradient's longest length over all parameters; None leaves it.
        precision: What products are computed in (autocast); parameters stay as they are. "auto" is bf16 where the
            processor multiplies it (AVX-512 BF16, AMX, any GPU of today), else fp32.
        average: Keep a moving average of the parameters with this decay, and end with it; None does not.
        shuffle: Read data that has a length and can be indexed in a new order each epoch; other data comes as it comes.
        seed: Of the order, and of everything random in the model.
    """

    epochs: int | None = None
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 1e-3
    optimizer: str | Factory = "adamw"
    weight_decay: float = 0.01
    schedule: str | Schedule = "cosine"
    warmup: float = 0.05
    accumulate: int = 1
    clip: float | None = 1.0
    precision: Precision = "fp32"
    average: float | None = None
    shuffle: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {name: getattr(self, name) for name in ("epochs", "steps", "minutes")}
        if all(limit is None for limit in limits.values()):
            raise OptionError("a training needs an end", "Training", "epochs=3, steps=1000 or minutes=10")
        positive = {**limits, "learning_rate": self.learning_rate, "accumulate": self.accumulate, "clip": self.clip}
        for name, value in positive.items():
            if value is not None and not value > 0:
                raise OptionError(f"{name} is greater than 0, not {value!r}", name)
        if not 0 <= self.warmup < 1:
            raise OptionError(f"warmup is a share of the training, not {self.warmup!r}", "warmup", "warmup=0.05")
        if self.average is not None and not 0 < self.average < 1:
            raise OptionError(f"the decay of an average is between 0 and 1, not {self.average!r}", "average", "0.999")
        if self.precision not in get_args(Precision):
            raise OptionError(f"unknown precision {self.precision!r}", "precision", "'auto', 'fp32', 'bf16' or 'fp16'")
        _ = self.make_optimizer, self.factor  # which tell an unknown name

    @classmethod
    def of(cls, stage: object) -> Training:
        """The options that a stage of a recipe has fields for; the others by default."""
        return cls(**{each.name: getattr(stage, each.name) for each in fields(cls) if hasattr(stage, each.name)})

    @property
    def make_optimizer(self) -> Factory:
        """The optimizer's factory."""
        return optimizers[self.optimizer] if isinstance(self.optimizer, str) else self.optimizer

    @property
    def factor(self) -> Schedule:
        """The share that is done -> the factor of the learning rate, warmup included."""
        chosen = schedules[self.schedule] if isinstance(self.schedule, str) else self.schedule
        return warmed(chosen, self.warmup)
