"""Successive halving: many points cheaply, the best of them more thoroughly."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from typing_extensions import override

from planish.automl.strategies.domain import Axis, Domain, Points
from planish.automl.strategies.history import History
from planish.automl.strategies.options import whole
from planish.automl.strategies.proposer import Proposer
from planish.errors import OptionError, UnknownName


class Halving(Proposer):
    """Asynchronous successive halving, and Hyperband, over a decision that says how thorough a trial is.

    Epochs, rows of data, a cheap or a dear metric: whatever the decision means, its values are ordered, cheap first. A
    trial at a rung that is among its best `1 / reduction` is tried again at the next one; where none is, a new random
    point starts at the lowest. Trials are compared within their rung. Li et al., "A system for massively parallel
    hyperparameter tuning", 2020 (algorithm 2); with several brackets, of which every other trial belongs to another and
    each starts a rung higher, it is the asynchronous Hyperband of its section 4.

    Args:
        seed: Decides everything random.
        space: All decisions, or None to learn them.
        resource: The name of the decision.
        reduction: How many trials of a rung lead to one of the next.
        brackets: 1 for successive halving, more for Hyperband.
    """

    def __init__(
        self,
        seed: int = 0,
        space: Mapping[str, BaseDistribution] | None = None,
        *,
        resource: str,
        reduction: int = 3,
        brackets: int = 1,
    ) -> None:
        super().__init__(seed, space)
        if space is not None and resource not in space:
            raise UnknownName("decision", resource, space, "resource")
        self.resource, self.reduction = resource, whole("reduction", reduction, 2)
        self.brackets = whole("brackets", brackets, 1)

    @override
    def propose(self, history: History, domain: Domain, rng: np.random.Generator) -> Points:
        place = next((p for p, axis in enumerate(domain.axes) if axis.name == self.resource), None)
        if place is None:
            raise UnknownName("decision", self.resource, [axis.name for axis in domain.axes], "resource")
        rungs = levels(domain.axes[place], self.reduction)
        if self.brackets > len(rungs):
            raise OptionError(f"{self.brackets} brackets need as many rungs", "brackets", f"at most {len(rungs)}")
        rung = np.abs(history.points[:, place, None] - rungs).argmin(1) if len(history) else np.empty(0, int)
        for level in range(len(rungs) - 2, -1, -1):
            found = self._promoted(history, place, rung, level)
            if found is not None:
                found[place] = rungs[level + 1]
                return found
        fresh = domain.draw(rng, 64)
        new = (p for p in fresh if not np.delete(_same(p, history.points), place, 1).all(1).any())
        point = next(new, fresh[0])
        point[place] = rungs[history.number % self.brackets]
        return point

    def _promoted(self, history: History, place: int, rung: NDArray[np.int_], level: int) -> Points | None:
        here, above = history.only(rung == level), history.points[rung > level]
        ranks, points = here.ranks, here.finished.points
        for row in np.argsort(ranks)[: len(ranks) // self.reduction]:
            if not np.delete(_same(points[row], above), place, 1).all(1).any():
                return points[row].copy()
        return None


def _same(point: Points, others: Points) -> NDArray[np.bool_]:
    return (point == others) | (np.isnan(point) & np.isnan(others))


def levels(axis: Axis, reduction: int) -> Points:
    """The codes of a resource's rungs, ascending: all options of a category, a geometric series of a number."""
    if isinstance(axis.distribution, CategoricalDistribution):
        return np.arange(axis.count, dtype=float)
    value, found = float(axis.distribution.high), []  # pyright: ignore[reportAttributeAccessIssue]
    while value >= max(axis.distribution.low, 1e-12) and len(found) < 20:  # pyright: ignore[reportAttributeAccessIssue]
        found.append(axis.code(value))
        value /= reduction
    return np.unique(found)
