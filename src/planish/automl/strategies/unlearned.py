"""Strategies that do not learn: grid, random, quasi-random."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from optuna.distributions import BaseDistribution
from scipy.stats.qmc import Sobol
from typing_extensions import override

from planish.automl.strategies.domain import Domain, Points
from planish.automl.strategies.history import History
from planish.automl.strategies.proposer import Proposer
from planish.errors import OptionError


class Random(Proposer):
    """Points drawn evenly, none twice."""

    @override
    def propose(self, history: History, domain: Domain, rng: np.random.Generator) -> Points:
        fresh = domain.draw(rng, 64)
        return fresh[np.argmin(history.seen(fresh))]


class Grid(Proposer):
    """All points, in the order of the options, the last decision fastest.

    Raises:
        OptionError: A decision has no grid.
    """

    def __init__(self, seed: int = 0, space: Mapping[str, BaseDistribution] | None = None) -> None:
        super().__init__(seed, space)
        if space is not None:
            refuse_numbers_without_grid(Domain.of(space))

    @override
    def propose(self, history: History, domain: Domain, rng: np.random.Generator) -> Points:
        refuse_numbers_without_grid(domain)
        last = domain.size - 1
        for place in range(min(history.number, last), min(history.number + 64, last) + 1):
            point = domain.at(np.array([place]))
            if not history.seen(point)[0]:
                return point[0]
        for points in domain.every():
            fresh = points[~history.seen(points)]
            if len(fresh):
                return fresh[0]
        return domain.draw(rng, 1)[0]


def refuse_numbers_without_grid(domain: Domain) -> None:
    """An OptionError that names the first of them."""
    for axis in domain.axes:
        if not axis.count:
            raise OptionError("a number without steps has no grid", axis.name, "give it a step, or use random or qmc")


class Quasi(Proposer):
    """Scrambled Sobol points, more even than random ones.

    Owen, "Scrambling Sobol' and Niederreiter-Xing points", 1998.
    """

    @override
    def propose(self, history: History, domain: Domain, rng: np.random.Generator) -> Points:
        sequence = Sobol(len(domain), rng=self.seed)
        place = sequence.fast_forward(history.number).random(1)[0] if history.number else sequence.random(1)[0]
        return np.array([axis.at(part) for axis, part in zip(domain.axes, place.tolist(), strict=True)])
