"""Reinforcement learning: a controller that draws points, and learns from what they turned out to be worth.

The controller has a logit for every option of every decision; a number is drawn from equal parts of its range. The
reward of a trial is the normal score of its rank among all trials, so that objectives of any scale, several of them,
and constraints need no setting. A controller is its history: each proposal replays all updates from the start.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from typing_extensions import override

from planish.automl.strategies.domain import FEW, Domain, Points
from planish.automl.strategies.gaussian import scores
from planish.automl.strategies.history import History
from planish.automl.strategies.options import positive, whole
from planish.automl.strategies.proposer import Proposer


class Policy:
    """Independent categorical distributions over the options of each decision.

    Args:
        domain: The decisions.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.counts = np.array([axis.count if 0 < axis.count <= FEW else FEW for axis in domain.axes])
        self.starts = np.r_[0, np.cumsum(self.counts)[:-1]]
        self.logits = np.zeros(self.counts.sum())

    @cached_property
    def _spans(self) -> Points:
        return np.array([axis.count if axis.count else 1.0 for axis in self.domain.axes])

    def actions(self, points: Points) -> NDArray[np.int_]:
        """The logit that stands for each decision of `(rows, decisions)`; -1 where it was not asked for."""
        part = np.floor(np.nan_to_num(points) * self.counts / self._spans).astype(int)
        return np.where(np.isnan(points), -1, np.minimum(part, self.counts - 1) + self.starts)

    def probabilities(self) -> Points:
        """Of every option, in the order of the logits."""
        high = np.repeat(np.maximum.reduceat(self.logits, self.starts), self.counts)
        weights = np.exp(self.logits - high)
        return weights / np.repeat(np.add.reduceat(weights, self.starts), self.counts)

    def slope(self, actions: NDArray[np.int_], weights: Points, probabilities: Points) -> Points:
        """The gradient of Σ weight log π(action) by the logits.

        Args:
            actions: `(rows, decisions)`.
            weights: `(rows, decisions)`.
            probabilities: Of the policy.
        """
        asked = actions >= 0
        weights = weights * asked
        taken = np.bincount(actions[asked], weights[asked], len(self.logits))
        return taken - np.repeat(weights.sum(0), self.counts) * probabilities

    def entropy_slope(self, probabilities: Points) -> Points:
        """The gradient of the sum of entropies by the logits."""
        information = probabilities * np.log(np.maximum(probabilities, 1e-12))
        total = np.repeat(np.add.reduceat(information, self.starts), self.counts)
        return probabilities * total - information

    def draw(self, rng: np.random.Generator) -> Points:
        """A point."""
        chosen = self.probabilities()
        point = np.empty(len(self.counts))
        for place, (axis, start, count) in enumerate(zip(self.domain.axes, self.starts, self.counts, strict=True)):
            option = rng.choice(count, p=chosen[start : start + count])
            if axis.count == count:
                point[place] = option
            else:
                part = (option + rng.random()) / count
                point[place] = np.floor(part * axis.count) if axis.count else part
        return point


class Controller(Proposer):
    """What both ways to learn share.

    Args:
        seed: Decides everything random.
        space: All decisions, or None to learn them.
        rate: Of learning.
        entropy: The weight of the policy's entropy.
    """

    def __init__(self, seed: int, space: Mapping[str, BaseDistribution] | None, rate: float, entropy: float) -> None:
        super().__init__(seed, space)
        self.rate, self.entropy = positive("rate", rate), positive("entropy", entropy)

    @abstractmethod
    def learn(self, policy: Policy, actions: NDArray[np.int_], rewards: Points) -> None:
        """Change the logits by trials in order, `(trials, decisions)` and `(trials,)`."""

    @override
    def propose(self, history: History, domain: Domain, rng: np.random.Generator) -> Points:
        policy, done = Policy(domain), history.finished
        if len(done):
            self.learn(policy, policy.actions(done.points), -scores(history.ranks))
        return policy.draw(rng)


class Reinforce(Controller):
    """REINFORCE with the mean reward so far as baseline: a step after each trial.

    Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", 1992; as in
    Zoph and Le, "Neural architecture search with reinforcement learning", 2017, without the recurrent network.

    Args:
        seed: Decides everything random.
        space: All decisions, or None to learn them.
        rate: Of learning.
        entropy: The weight of the policy's entropy.
    """

    def __init__(
        self,
        seed: int = 0,
        space: Mapping[str, BaseDistribution] | None = None,
        *,
        rate: float = 0.3,
        entropy: float = 0.01,
    ) -> None:
        super().__init__(seed, space, rate, entropy)

    @override
    def learn(self, policy: Policy, actions: NDArray[np.int_], rewards: Points) -> None:
        for action, reward in zip(actions[:, None], rewards.tolist(), strict=True):
            chosen = policy.probabilities()
            slope = policy.slope(action, np.full(action.shape, reward), chosen)  # normal scores have mean zero
            policy.logits += self.rate * (slope + self.entropy * policy.entropy_slope(chosen))


class PPO(Controller):
    """Proximal policy optimization: after each batch of trials some steps, each probability ratio clipped.

    Schulman et al., "Proximal policy optimization algorithms", 2017, eq. 7, a decision being an action.

    Args:
        seed: Decides everything random.
        space: All decisions, or None to learn them.
        rate: Of learning.
        entropy: The weight of the policy's entropy.
        batch: Trials between two updates.
        epochs: Steps of an update.
        clip: How far a ratio may be from 1.
    """

    def __init__(
        self,
        seed: int = 0,
        space: Mapping[str, BaseDistribution] | None = None,
        *,
        rate: float = 0.5,
        entropy: float = 0.01,
        batch: int = 10,
        epochs: int = 6,
        clip: float = 0.2,
    ) -> None:
        super().__init__(seed, space, rate, entropy)
        self.batch, self.epochs = whole("batch", batch, 1), whole("epochs", epochs, 1)
        self.clip = positive("clip", clip)

    @override
    def learn(self, policy: Policy, actions: NDArray[np.int_], rewards: Points) -> None:
        for start in range(0, len(actions) - self.batch + 1, self.batch):
            taken = actions[start : start + self.batch]
            gained = rewards[start : start + self.batch, None]
            before = policy.probabilities()[taken]
            for _ in range(self.epochs):
                chosen = policy.probabilities()
                ratio = chosen[taken] / before
                free = np.where(gained > 0, ratio < 1 + self.clip, ratio > 1 - self.clip)
                slope = policy.slope(taken, gained * ratio * free, chosen) / self.batch
                policy.logits += self.rate * self.epochs * (slope + self.entropy * policy.entropy_slope(chosen))
