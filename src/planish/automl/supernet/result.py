"""What a search in a supernet gives, and how it goes on a step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from planish.automl.supernet.network import Item, Loss, Supernet, weights_of
from planish.errors import DataError, OptionError
from planish.holes import Label

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Result:
    """The end of a search in a supernet.

    Attributes:
        point: What it chose.
        ranking: Points that were judged with shared weights, the best first, with their losses.
        history: What was told on the way.
        note: What there is to say against it; "" if nothing is.
    """

    point: dict[str, Label]
    ranking: tuple[tuple[dict[str, Label], float], ...] = ()
    history: tuple[dict[str, float], ...] = ()
    note: str = ""

    @property
    def collapsed(self) -> bool:
        """Whether the search says that it collapsed."""
        return self.note.startswith("collapsed")


class Diary:
    """Losses on the way, a hundred of them at most, and the progress that a caller is told.

    Args:
        total: Steps.
        progress: Called with (done, total, what).
    """

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self._progress = total, progress
        self.rows: list[dict[str, float]] = []

    def write(self, step: int, **values: float) -> None:
        """After a step."""
        if self._progress is not None:
            said = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
            self._progress(step + 1, self.total, said)
        if (step + 1) % max(1, self.total // 100) == 0 or step + 1 == self.total:
            self.rows.append({"step": float(step + 1), **values})


@dataclass
class Weights:
    """The optimizer of shared weights: AdamW, its rate rising and falling once.

    Attributes:
        parameters: What learns.
        rate: The highest learning rate.
        decay: Of weights.
        steps: As many will be taken.
    """

    parameters: list[nn.Parameter]
    rate: float
    decay: float
    steps: int
    _optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        cpu = all(each.device.type == "cpu" for each in self.parameters)
        self._optimizer = torch.optim.AdamW(self.parameters, lr=self.rate, weight_decay=self.decay, fused=cpu or None)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._optimizer, self.rate, total_steps=self.steps)

    @classmethod
    def of(cls, net: Supernet, rate: float, decay: float, steps: int) -> Weights:
        """For the weights of a supernet."""
        return cls(list(weights_of(net)), rate, decay, steps)

    @property
    def now(self) -> float:
        """The learning rate of the next step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def step(self, loss: Tensor) -> float:
        """One step down a loss.

        Raises:
            DataError: It is NaN or infinite.
        """
        self.clear()
        loss.backward()
        return self.move(float(loss.detach()))

    def clear(self) -> None:
        """Forget the gradients."""
        self._optimizer.zero_grad()

    def move(self, loss: float) -> float:
        """One step along the gradients that are there."""
        if not loss == loss or loss in (float("inf"), -float("inf")):
            raise DataError(f"the supernet's loss is {loss}", hint="a lower learning_rate")
        self._optimizer.step()
        self._schedule.step()
        return loss


def endless(items: Sequence[Item], chance: random.Random) -> Iterator[Item]:
    """Items again and again, in a new order each time.

    Raises:
        DataError: There are none.
    """
    if not items:
        raise DataError("there is no data to train on", "data", "yield at least one item")
    while True:
        yield from chance.sample(items, len(items))


def fair(counts: Sequence[int], chance: random.Random) -> Iterator[list[int]]:
    """Paths in which every option of a decision comes equally often: of each run of `n` paths, `n` the number of a
    decision's options, each option is in one (strict fairness, Chu et al., arXiv 1907.01845)."""
    orders: list[list[int]] = [[] for _ in counts]
    while True:
        path = []
        for order, count in zip(orders, counts, strict=True):
            if not order:
                order.extend(chance.sample(range(count), count))
            path.append(order.pop())
        yield path


def as_list(data: Any, what: str) -> list[Item]:
    """Data as a list.

    Raises:
        DataError: There is none.
    """
    items = list(data)
    if not items:
        raise DataError(f"there is no {what} data", what, "yield at least one item")
    return items


def check_positive(**values: float) -> None:
    """Refuse options that are not above 0.

    Raises:
        OptionError: Names the first.
    """
    for name, value in values.items():
        if not value > 0:
            raise OptionError(f"{name} is above 0, not {value}", name)


__all__ = ["Diary", "Loss", "Progress", "Result", "Weights", "as_list", "check_positive", "endless", "fair"]
