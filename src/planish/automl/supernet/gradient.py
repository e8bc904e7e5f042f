"""Architectures by gradients: DARTS, GDAS and ProxylessNAS.

Each decision has one number for each option, and their softmax says how likely the option is. In turns, weights go
down the loss on training data and these numbers down the loss on validation data.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor, nn

from planish.automl.supernet.collapse import verdict
from planish.automl.supernet.flow import flows, positive
from planish.automl.supernet.network import Item, Loss, Supernet
from planish.automl.supernet.rank import rank, with_prior
from planish.automl.supernet.result import Diary, Progress, Result, Weights, as_list, check_positive, endless
from planish.automl.supernet.run import Share
from planish.errors import OptionError
from planish.training import randomness


class Alphas:
    """The numbers that a search by gradients learns.

    Args:
        net: Whose decisions they are of.
        rate: Learning rate of Adam, with the momenta of DARTS.
    """

    def __init__(self, net: Supernet, rate: float) -> None:
        self.values = [nn.Parameter(torch.zeros(len(slot.labels))) for slot in net.slots]
        self._optimizer = torch.optim.Adam(self.values, lr=rate, betas=(0.5, 0.999))

    def step(self, loss: Tensor) -> float:
        """One step down a loss."""
        gradients = torch.autograd.grad(loss, self.values, allow_unused=True)
        self.move(gradients)
        return float(loss.detach())

    def move(self, gradients: Sequence[Tensor | None]) -> None:
        """One step along these gradients."""
        for value, gradient in zip(self.values, gradients, strict=True):
            value.grad = gradient
        self._optimizer.step()

    @property
    def probabilities(self) -> list[Tensor]:
        """Of each decision's options."""
        return [value.detach().softmax(0) for value in self.values]

    @property
    def soft(self) -> list[Share]:
        """All options by their probabilities, which pass gradients on."""
        return [list(enumerate(value.softmax(0))) for value in self.values]

    @property
    def entropy(self) -> float:
        """Mean over the decisions, 1 for one that knows nothing."""
        each = [float(-(p * p.clamp_min(1e-30).log()).sum()) / math.log(len(p)) for p in self.probabilities]
        return sum(each) / len(each)


@dataclass(frozen=True)
class _ByGradient(ABC):
    """What the three have in common.

    Attributes:
        steps: Of the weights, and as many of the architecture.
        warmup: The share of the steps in which only weights learn.
        learning_rate: Of weights, the highest.
        weight_decay: Of weights.
        alpha_rate: Learning rate of the architecture.
        finalists: The most likely points, so many, are judged with the shared weights, and the best of them is chosen;
            1 takes the most likely.
        prior: "synflow" judges them by the sum of two places, that by the loss and that by the synaptic flow of the
            untrained supernet; None by the loss alone.
    """

    steps: int = 300
    warmup: float = 0.2
    learning_rate: float = 1e-2
    weight_decay: float = 1e-2
    alpha_rate: float = 3e-2
    finalists: int = 32
    prior: Literal["synflow"] | None = "synflow"

    def __post_init__(self) -> None:
        check_positive(steps=self.steps, learning_rate=self.learning_rate, finalists=self.finalists)

    def run(
        self, net: Supernet, training: Any, validation: Any, loss: Loss, seed: int = 0, progress: Progress | None = None
    ) -> Result:
        """Search.

        Args:
            net: Is trained.
            training: Items that weights learn from.
            validation: Items that the architecture learns from, and that finalists are judged on.
            loss: `(module, item)` to a scalar.
            seed: Of what is drawn and the order of data.
            progress: Called with (done, total, what).
        """
        train, judged = as_list(training, "training"), as_list(validation, "validation")
        alphas, diary, chance = Alphas(net, self.alpha_rate), Diary(self.steps, progress), random.Random(seed)
        before = positive(net)
        with randomness.seeded(seed):
            weights = Weights.of(net, self.learning_rate, self.weight_decay, self.steps)
            for step, (item, other) in enumerate(zip(endless(train, chance), endless(judged, chance), strict=False)):
                if step == self.steps:
                    break
                done = step / self.steps
                net.train()
                said = dict[str, float]()
                if done >= self.warmup:
                    said["validation"] = self.learn(net, alphas, weights, item, other, loss, done)
                net.choice = self.path(alphas, done)
                said["loss"] = weights.step(loss(net, item))
                diary.write(step, **said, entropy=alphas.entropy)
        net.eval()
        likely = likeliest(alphas.probabilities, self.finalists)
        points = sorted((net.point(each) for each in likely), key=str)
        ranking = rank(net, points, judged, loss)
        if self.prior:
            ranking = with_prior(ranking, points, flows(before, points))
        chosen = net.point(likely[0]) if self.finalists == 1 else dict(ranking[0][0])
        note = verdict(net, chosen, judged, loss, seed)
        return Result(chosen, ranking, tuple(diary.rows), note)

    @abstractmethod
    def path(self, alphas: Alphas, done: float) -> list[Share]:
        """What runs while weights learn."""

    @abstractmethod
    def learn(
        self, net: Supernet, alphas: Alphas, weights: Weights, item: Item, other: Item, loss: Loss, done: float
    ) -> float:
        """One step of the architecture on `other`; its loss."""


@dataclass(frozen=True)
class Darts(_ByGradient):
    """Every option at once, weighted by the softmax of its number (Liu et al., arXiv 1806.09055).

    Known to collapse onto options without parameters; the result's `note` says so where it happened. The paper takes
    the most likely point (`finalists=1`); judging the 32 likeliest repairs most of what mixing gets wrong.

    Attributes:
        order: 1 takes the weights as they are for the best ones; 2 those after one more step, the second derivative by
            finite differences (equations 7 and 8).
    """

    order: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (1, 2):
            raise OptionError(f"the architecture's gradient is of order 1 or 2, not {self.order}", "order", "order=1")

    def path(self, alphas: Alphas, done: float) -> list[Share]:
        """All options."""
        return [list(enumerate(p)) for p in alphas.probabilities]

    def learn(
        self, net: Supernet, alphas: Alphas, weights: Weights, item: Item, other: Item, loss: Loss, done: float
    ) -> float:
        """One step down the validation loss."""
        net.choice = alphas.soft
        if self.order == 1:
            return alphas.step(loss(net, other))
        return self._second(net, alphas, weights, item, other, loss)

    def _second(self, net: Supernet, alphas: Alphas, weights: Weights, item: Item, other: Item, loss: Loss) -> float:
        parameters, rate = weights.parameters, weights.now
        start = [each.detach().clone() for each in parameters]

        def put(values: Sequence[Tensor], by: Sequence[Tensor | None], factor: float) -> None:
            with torch.no_grad():
                for parameter, value, change in zip(parameters, values, by, strict=True):
                    parameter.copy_(value if change is None else value + factor * change)

        def gradients(of: Item, what: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            net.choice = alphas.soft
            value = loss(net, of)
            return value, torch.autograd.grad(value, what, allow_unused=True)

        _, descent = gradients(item, parameters)
        put(start, descent, -rate)
        value, both = gradients(other, [*alphas.values, *parameters])
        outer, inner = both[: len(alphas.values)], both[len(alphas.values) :]
        length = float(torch.stack([each.norm() for each in inner if each is not None]).norm())
        small = 0.01 / max(length, 1e-12)
        put(start, inner, small)
        _, above = gradients(item, alphas.values)
        put(start, inner, -small)
        _, below = gradients(item, alphas.values)
        put(start, inner, 0.0)
        moved = [
            _or_zero(o) - rate * (_or_zero(a) - _or_zero(b)) / (2 * small)
            for o, a, b in zip(outer, above, below, strict=True)
        ]
        alphas.move(moved)
        return float(value.detach())


@dataclass(frozen=True)
class Gdas(_ByGradient):
    """One option at a time, drawn by Gumbel noise, with the gradient of the soft choice (Dong and Yang, 1910.04465).

    Attributes:
        hot: Temperature at the start.
        cold: At the end.
    """

    hot: float = 10.0
    cold: float = 0.1

    def path(self, alphas: Alphas, done: float) -> list[Share]:
        """One option."""
        return [share[0][0] for share in self._drawn(alphas, done)]

    def _drawn(self, alphas: Alphas, done: float) -> list[list[tuple[int, Tensor]]]:
        """The option that was drawn, times 1 with the gradient of its soft share."""
        temperature = self.hot + (self.cold - self.hot) * done
        shares = []
        for value in alphas.values:
            noise = -torch.empty_like(value).exponential_().log()
            soft = ((value.log_softmax(0) + noise) / temperature).softmax(0)
            drawn = int(soft.argmax())
            shares.append([(drawn, 1 + soft[drawn] - soft[drawn].detach())])
        return shares

    def learn(
        self, net: Supernet, alphas: Alphas, weights: Weights, item: Item, other: Item, loss: Loss, done: float
    ) -> float:
        """One step down the validation loss."""
        net.choice = list(self._drawn(alphas, done))
        return alphas.step(loss(net, other))


@dataclass(frozen=True)
class Proxyless(_ByGradient):
    """Two options at a time, of which one runs (Cai et al., "ProxylessNAS", arXiv 1812.00332, section 3.2).

    Weights learn with one option, drawn by its probability. For the architecture two are drawn; both are computed, one
    passes on, and the gradient of the binary gates moves their two numbers, the probability of all others staying.
    """

    def path(self, alphas: Alphas, done: float) -> list[Share]:
        """One option."""
        return [int(torch.multinomial(p, 1)) for p in alphas.probabilities]

    def learn(
        self, net: Supernet, alphas: Alphas, weights: Weights, item: Item, other: Item, loss: Loss, done: float
    ) -> float:
        """One step down the validation loss."""
        shares: list[Share] = []
        pairs: list[list[int]] = []
        for value, probability in zip(alphas.values, alphas.probabilities, strict=True):
            pair = torch.multinomial(probability, 2).tolist()
            share = value[pair].softmax(0)
            gate = torch.zeros(2)
            gate[int(torch.multinomial(share.detach(), 1))] = 1
            gates = gate + share - share.detach()
            shares.append(list(zip(pair, gates, strict=True)))
            pairs.append(pair)
        net.choice = shares
        before = [value.detach().clone() for value in alphas.values]
        result = alphas.step(loss(net, other))
        with torch.no_grad():
            for value, old, pair in zip(alphas.values, before, pairs, strict=True):
                others = [place for place in range(len(value)) if place not in pair]
                value[others] = old[others]  # Adam's momentum moves them too
                value[pair] += old[pair].logsumexp(0) - value[pair].logsumexp(0)
        return result


def likeliest(probabilities: Sequence[Tensor], count: int) -> list[tuple[int, ...]]:
    """The options of the `count` most likely points, the likeliest first."""
    logs = [p.clamp_min(1e-30).log().tolist() for p in probabilities]
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for each in logs:
        grown = (
            (total + log, (*options, option)) for (total, options), (option, log) in product(best, enumerate(each))
        )
        best = sorted(grown, key=lambda pair: (-pair[0], pair[1]))[:count]
    return [options for _, options in best]


def _or_zero(value: Tensor | None) -> Tensor:
    return torch.zeros(()) if value is None else value
