"""Local search."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from optuna.distributions import BaseDistribution
from typing_extensions import override

from planish.automl.strategies.domain import Domain, Points
from planish.automl.strategies.history import History
from planish.automl.strategies.options import whole
from planish.automl.strategies.proposer import Proposer


class Local(Proposer):
    """Hill climbing: a neighbor of the best trial that still has some.

    White et al., "Local search is state of the art for neural architecture search benchmarks", 2021. Where the best
    trial has no neighbor left, the second best is climbed from, and so on, which is what a restart would lead to.

    Args:
        seed: Decides everything random.
        space: All decisions, or None to learn them.
        starts: Trials before climbing, a Latin hypercube of the options.
        uniform: Whether the points with the same choice everywhere come first.
    """

    def __init__(
        self,
        seed: int = 0,
        space: Mapping[str, BaseDistribution] | None = None,
        *,
        starts: int = 6,
        uniform: bool = False,
    ) -> None:
        super().__init__(seed, space)
        self.starts, self.uniform = whole("starts", starts, 1), uniform

    @override
    def propose(self, history: History, domain: Domain, rng: np.random.Generator) -> Points:
        design = domain.design(self.seed, self.starts, uniform=self.uniform)
        if len(history) < len(design):
            return design[len(history)]
        for place in np.argsort(history.ranks):
            near = history.canonical(domain.neighbors(history.finished.points[place]))
            fresh = near[~history.seen(near)]
            if len(fresh):
                return rng.choice(fresh)
        return domain.draw(rng, 1)[0]
