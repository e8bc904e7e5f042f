"""What a study knows, as the strategies of our own read it: numbers to minimize."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from planish.automl.strategies.domain import Points, distinct, keys


@dataclass(frozen=True)
class History:
    """The trials before one, in the order of their numbers.

    Attributes:
        points: Codes `(trials, decisions)`; NaN is a decision that a trial did not ask for.
        losses: To be minimized, `(trials, objectives)`; NaN where a trial failed or still runs.
        violation: By how much a trial's constraints are violated in sum, `(trials,)`; 0 is feasible.
        running: Whether a trial still runs, `(trials,)`.
        by: The strategy that proposed a trial, where it said so.
        number: Of the trial that is proposed now.
    """

    points: Points
    losses: Points
    violation: Points
    running: NDArray[np.bool_]
    by: Sequence[str]
    number: int

    def __len__(self) -> int:
        return len(self.points)

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Which trials have losses, `(trials,)`."""
        return np.logical_not(np.isnan(self.losses).any(1))

    @cached_property
    def failed(self) -> NDArray[np.bool_]:
        """Which trials ended without, `(trials,)`."""
        return ~self.known & ~self.running

    @cached_property
    def finished(self) -> History:
        """The trials that have losses."""
        return self.only(self.known)

    @cached_property
    def front(self) -> NDArray[np.bool_]:
        """Which of the trials that have losses are the best, `(known trials,)`: feasible and dominated by no other."""
        done = self.finished
        if (done.violation > 0).all():
            return done.violation == done.violation.min(initial=np.inf)
        return (done.violation == 0) & (fronts(np.where(done.violation[:, None] > 0, np.inf, done.losses)) == 0)

    def only(self, rows: Any) -> History:
        """Some of the trials."""
        by = [self.by[int(place)] for place in np.arange(len(self))[rows]]
        parts = (self.points[rows], self.losses[rows], self.violation[rows], self.running[rows])
        return History(*parts, by, self.number)

    def joined(self, others: History) -> History:
        """These trials and others."""
        return History(
            np.r_[self.points, others.points],
            np.r_[self.losses, others.losses],
            np.r_[self.violation, others.violation],
            np.r_[self.running, others.running],
            [*self.by, *others.by],
            self.number,
        )

    def seen(self, candidates: Points) -> NDArray[np.bool_]:
        """Which candidates, `(candidates, decisions)`, were proposed.

        A past point is one that agrees with all that its trial asked for.
        """
        whole, partly = self._tried
        found = np.isin(keys(candidates), whole)
        for point in partly:
            found |= ((candidates == point) | np.isnan(point)).all(1)
        return found

    @cached_property
    def _tried(self) -> tuple[NDArray[np.uint64], Points]:
        lacking = np.isnan(self.points).any(1)
        return keys(self.points[~lacking]), distinct(self.points[lacking])

    @cached_property
    def conditions(self) -> list[tuple[int, int, Points]]:
        """What the trials say of conditions: a decision, the one it hangs on, and the codes of it that switch it off.

        A decision hangs on the first other one whose codes in the trials that asked for it are never those in the
        trials that did not. A code that no trial had is taken to leave it on.
        """
        codes = np.where(np.isnan(self.points), -1, self.points)
        found = []
        for child in np.flatnonzero((codes < 0).any(0)):
            off = codes[:, child] < 0
            for parent in range(codes.shape[1]):
                stops = np.unique(codes[off, parent])
                if parent != child and not np.isin(codes[~off, parent], stops).any() and len(stops) < len(codes):
                    found.append((int(child), parent, stops))
                    break
        return found

    def canonical(self, points: Points) -> Points:
        """Points `(rows, decisions)` with NaN for each decision that `conditions` switch off."""
        points = points.copy()
        for _ in self.conditions:  # what hangs on a decision that is off is off, too
            for child, parent, stops in self.conditions:
                points[np.isin(np.where(np.isnan(points[:, parent]), -1, points[:, parent]), stops), child] = np.nan
        return points

    @cached_property
    def ranks(self) -> NDArray[np.int_]:
        """How good each trial that has losses is, `(known trials,)`: 0 is the best.

        Feasible trials come first (Deb, "An efficient constraint handling method for genetic algorithms", 2000), by
        fronts of nondominated trials and, within a front, by their distance from each other; then the others
        by violation.
        """
        done = self.finished
        if self.losses.shape[1] == 1:
            order = np.lexsort((np.arange(len(done)), done.losses[:, 0], done.violation))
        else:
            feasible = done.violation == 0
            layer, alone = np.zeros(len(done), int), np.zeros(len(done))
            layer[feasible] = fronts(done.losses[feasible])
            for place in range(layer.max(initial=0) + 1):
                rows = np.flatnonzero((layer == place) & feasible)
                alone[rows] = crowding(done.losses[rows])
            order = np.lexsort((np.arange(len(done)), -alone, layer, done.violation))
        ranks = np.empty(len(done), int)
        ranks[order] = np.arange(len(done))
        return ranks


def fronts(losses: Points) -> NDArray[np.int_]:
    """The number of the front that each row of `(rows, objectives)` is in: 0 is dominated by no other."""
    no_worse = (losses[:, None] <= losses[None]).all(2)
    dominated = (no_worse & ~no_worse.T).T  # [i, j]: j dominates i
    layer, left, place = np.full(len(losses), -1), np.ones(len(losses), bool), 0
    while left.any():
        front = left & ~(dominated & left).any(1)
        layer[front], place = place, place + 1
        left &= ~front
    return layer


def crowding(losses: Points) -> Points:
    """How far each row of a front, `(rows, objectives)`, stands from its neighbors: the crowding distance.

    Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002, III-B; infinite at the ends.
    """
    distance = np.zeros(len(losses))
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        sorted_ = column[order]
        span = sorted_[-1] - sorted_[0] if len(column) else 0.0
        gaps = np.full(len(column), np.inf)
        if len(column) > 2:
            gaps[1:-1] = (sorted_[2:] - sorted_[:-2]) / span if span else 0.0
        distance[order] += gaps
    return distance


FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def losses(trial: FrozenTrial, directions: Sequence[StudyDirection]) -> list[float]:
    """A trial's values, to be minimized; NaN where it has none. A pruned trial has its last intermediate value."""
    values = trial.values
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        values = [trial.intermediate_values[max(trial.intermediate_values)]]
    if trial.state not in FINISHED or values is None or len(values) != len(directions):
        return [float("nan")] * len(directions)
    signs = [-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions]
    large = np.finfo(float).max / 1e6
    return [float(np.clip(sign * value, -large, large)) for sign, value in zip(signs, values, strict=True)]
