"""Evolution: by age, and by Pareto archive."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from optuna.distributions import BaseDistribution
from typing_extensions import override

from planish.automl.strategies.domain import Domain, Points
from planish.automl.strategies.history import History
from planish.automl.strategies.options import whole
from planish.automl.strategies.proposer import Proposer, unseen


class Evolution(Proposer):
    """Regularized evolution: the best of a sample of the youngest trials gets one change.

    Real et al., "Regularized evolution for image classifier architecture search", AAAI 2019: the oldest dies, not the
    worst. With several objectives the sample is ordered by fronts and crowding.

    Args:
        seed: Decides everything random.
        space: All decisions, or None to learn them.
        population: Trials that are alive; the first so many are random.
        sample: Of them, how many compete to be the parent.
    """

    def __init__(
        self,
        seed: int = 0,
        space: Mapping[str, BaseDistribution] | None = None,
        *,
        population: int = 20,
        sample: int = 5,
    ) -> None:
        super().__init__(seed, space)
        self.population, self.sample = whole("population", population, 1), whole("sample", sample, 1)

    @override
    def propose(self, history: History, domain: Domain, rng: np.random.Generator) -> Points:
        alive = np.flatnonzero(history.known)[-self.population :]
        if len(history) < self.population or not len(alive):
            return domain.draw(rng, 1)[0]
        young = history.only(alive)
        chosen = rng.choice(len(young), min(self.sample, len(young)), replace=False)
        return child(young.points[chosen[np.argmin(young.ranks[chosen])]], history, domain, rng)


class Pareto(Proposer):
    """Pareto-archive evolution: a nondominated trial, one that stands alone rather than in a crowd, gets one change.

    After Knowles and Corne, "Approximating the nondominated front using the Pareto archived evolution strategy", 2000,
    with the crowding distance in place of their grid. The archive is the front of all trials.

    Args:
        seed: Decides everything random.
        space: All decisions, or None to learn them.
        starts: Trials before the first change, a Latin hypercube of the options.
        uniform: Whether the points with the same choice everywhere come first.
        changes: The mean number of decisions that change at once, at least 1.
    """

    def __init__(
        self,
        seed: int = 0,
        space: Mapping[str, BaseDistribution] | None = None,
        *,
        starts: int = 6,
        uniform: bool = True,
        changes: float = 1.3,
    ) -> None:
        super().__init__(seed, space)
        self.starts, self.uniform, self.changes = whole("starts", starts, 1), uniform, changes

    @override
    def propose(self, history: History, domain: Domain, rng: np.random.Generator) -> Points:
        design = domain.design(self.seed, self.starts, uniform=self.uniform)
        if len(history) < len(design):
            return design[len(history)]
        if not history.known.any():
            return domain.draw(rng, 1)[0]
        done = history.finished
        archive = np.flatnonzero(history.front)
        two = rng.choice(archive, 2)  # the better placed of two: ranks order a front by its crowding
        parent = done.points[two[np.argmin(history.ranks[two])]]
        return child(parent, history, domain, rng, 1 + rng.poisson(max(0.0, self.changes - 1)))


def child(parent: Points, history: History, domain: Domain, rng: np.random.Generator, changes: int = 1) -> Points:
    """A point that was not proposed, with some decisions changed; one more each time all such are known.

    Args:
        parent: `(decisions,)`.
        history: What was proposed.
        domain: The decisions.
        rng: Chooses the change.
        changes: How many decisions change.
    """
    point = parent
    for step in range(len(domain)):
        near = history.canonical(domain.neighbors(point))
        if not len(near):
            break
        if step + 1 >= changes:
            fresh = near[~history.seen(near)]
            if len(fresh):
                return rng.choice(fresh)
        point = rng.choice(near)
    found = unseen(point, history, domain, rng)
    return parent if found is None else found
