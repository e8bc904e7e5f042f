"""Weight sharing by nested options: the sandwich rule, and Once-for-All's progressive shrinking."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from planish.analysis import analyze
from planish.automl.supernet.network import Item, Loss, Supernet
from planish.automl.supernet.rank import MOST, rank, some_points
from planish.automl.supernet.result import Diary, Progress, Result, Weights, as_list, check_positive, endless
from planish.errors import OptionError
from planish.graph import Graph
from planish.training import randomness
from planish.training.losses import divergence, of_outputs


@dataclass(frozen=True)
class Sandwich:
    """Train the largest, the smallest and some random points together, all but the first by what the largest says.

    Yu and Huang, "Universally Slimmable Networks" (arXiv 1903.05134): sandwich rule and in-place distillation. Smaller
    options become available little by little, as in Once-for-All (Cai et al., arXiv 1908.09791). For decisions whose
    options are parts of one another: widths, depths, kernels, heads, bits.

    Attributes:
        steps: Of training.
        learning_rate: The highest; it rises and falls once.
        weight_decay: Of AdamW.
        middle: Random points a step, besides the largest and the smallest.
        shrink: The share of the steps after which all options are available; 0 begins with all.
        most: As many points are ranked, drawn at random where there are more.
    """

    steps: int = 300
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    middle: int = 2
    shrink: float = 0.5
    most: int = MOST

    def __post_init__(self) -> None:
        check_positive(steps=self.steps, learning_rate=self.learning_rate, most=self.most)
        if self.middle < 0 or not 0 <= self.shrink < 1:
            raise OptionError("0 or more random points, and a share of the steps below 1", "middle, shrink")

    def run(
        self, net: Supernet, training: Any, validation: Any, loss: Loss, seed: int = 0, progress: Progress | None = None
    ) -> Result:
        """Search.

        Args:
            net: Is trained.
            training: Items that weights learn from.
            validation: Items that points are judged on.
            loss: `(module, item)` to a scalar.
            seed: Of paths and the order of data.
            progress: Called with (done, total, what).
        """
        train, judged = as_list(training, "training"), as_list(validation, "validation")
        diary, chance, orders = Diary(self.steps, progress), random.Random(seed), by_size(net)
        with randomness.seeded(seed):
            weights, data = Weights.of(net, self.learning_rate, self.weight_decay, self.steps), endless(train, chance)
            net.train()
            for step in range(self.steps):
                open_ = [order[: self._count(len(order), step)] for order in orders]
                diary.write(step, loss=self._step(net, weights, next(data), loss, open_, chance))
            net.eval()
        ranking = rank(net, some_points(net, self.most, seed), judged, loss)
        return Result(dict(ranking[0][0]), ranking, tuple(diary.rows))

    def _count(self, options: int, step: int) -> int:
        """How many of a decision's options are available by then."""
        done = 1.0 if not self.shrink else step / (self.steps * self.shrink)
        return min(options, 1 + int(done * options))

    def _step(
        self,
        net: Supernet,
        weights: Weights,
        item: Item,
        loss: Loss,
        options: Sequence[Sequence[int]],
        chance: random.Random,
    ) -> float:
        """Gradients of all points of a step, and one move."""
        args, kwargs = tuple(item[0]), dict(item[1])
        largest, smallest = [each[0] for each in options], [each[-1] for each in options]
        paths = [smallest, *([chance.choice(each) for each in options] for _ in range(self.middle))]
        net.choice = list(largest)
        weights.clear()
        value = loss(net, item)
        value.backward()
        with torch.no_grad():
            teacher = net(*args, **kwargs)
        for path in paths if smallest != largest else ():
            net.choice = list(path)
            of_outputs(divergence, net(*args, **kwargs), teacher).backward()
        return weights.move(float(value.detach()))


def by_size(net: Supernet) -> list[list[int]]:
    """Of each decision its options, the one with the most multiply-accumulates, parameters and bits first."""

    def size(graph: Graph) -> tuple[float, float, float]:
        total = analyze(graph).total
        return float(total.macs), float(total.parameters), float(total.weight_bytes)

    orders = []
    for slot in net.slots:
        sizes = [size(net.graph if variant is None else variant.draft(net.graph)) for variant in slot.variants]
        orders.append(sorted(range(len(sizes)), key=lambda option: sizes[option], reverse=True))
    return orders
