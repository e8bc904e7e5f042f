"""Bayesian optimization with a Gaussian process over decisions, for one objective or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from optuna.distributions import BaseDistribution
from scipy.special import ndtr
from typing_extensions import override

from planish.automl.strategies.domain import Domain, Points, distinct
from planish.automl.strategies.gaussian import Gaussian, scores
from planish.automl.strategies.history import History, fronts
from planish.automl.strategies.proposer import Proposer

Acquisition = Callable[[Points], Points]
DRAWN, PARENTS, CLIMBERS, ROUNDS = 256, 5, 4, 10  # how the acquisition is searched


class Hamming(Proposer):
    """Expected improvement under a Gaussian process whose kernel compares decision by decision.

    With two objectives it is the expected hypervolume improvement (Emmerich et al., 2006), with more the improvement of
    a random scalarization (Knowles, "ParEGO", 2006). Constraints order the trials: feasible ones first. Running trials
    are believed to turn out as predicted (Ginsbourger et al., "Kriging is well-suited to parallelize optimization",
    2010); failed ones count as the worst.

    Args:
        seed: Decides everything random.
        space: All decisions, or None to learn them.
        starts: Trials before the first model, a Latin hypercube of the options.
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
        self.starts, self.uniform = starts, uniform

    @override
    def propose(self, history: History, domain: Domain, rng: np.random.Generator) -> Points:
        design = domain.spread(np.random.default_rng(self.seed))[: self.starts]
        if self.uniform:
            design = np.r_[domain.uniform, design]
        if len(history) < len(design):
            return design[len(history)]
        return improve(history, domain, rng)


def improve(history: History, domain: Domain, rng: np.random.Generator) -> Points:
    """The point that promises most.

    Args:
        history: At least one trial with losses; without any, the point is random.
        domain: The decisions.
        rng: Draws candidates.
    """
    if not history.known.any():
        return domain.draw(rng, 1)[0]
    return climb(acquisition(history, domain, rng), history, domain, rng)


def acquisition(history: History, domain: Domain, rng: np.random.Generator) -> Acquisition:
    """The expected improvement, as a function of `(candidates, decisions)`."""
    done, targets = history.finished, standardized(history)
    if targets.shape[1] > 2:
        weights = rng.dirichlet(np.ones(targets.shape[1]))
        level = targets - targets.min(0)
        targets = scores((level * weights).max(1) + 0.05 * level @ weights)[:, None]
    points = np.r_[done.points, history.points[history.failed]]
    worst = np.repeat(targets.max(0, keepdims=True), history.failed.sum(), 0)
    models = [Gaussian.fit(domain, points, column) for column in np.r_[targets, worst].T]
    if history.running.any():
        waiting = history.points[history.running]
        models = [model.given(waiting, model.predict(waiting)[0]) for model in models]
    best = targets[fronts(targets) == 0]
    if len(models) == 1:
        return lambda candidates: gain(float(best.min()), *models[0].predict(candidates))
    best = best[np.argsort(best[:, 0])]
    edge = targets.max(0) + 0.1
    firsts, seconds = np.r_[best[:, 0], edge[0]], np.r_[edge[1], best[:, 1]]

    def volume(candidates: Points) -> Points:
        """Σ over strips of the first objective: the part of the strip that is gained, times the gain below its edge."""
        predicted = [model.predict(candidates) for model in models]
        first = np.stack([gain(float(at), *predicted[0]) for at in firsts])
        second = np.stack([gain(float(at), *predicted[1]) for at in seconds])
        return (np.diff(first, axis=0, prepend=0) * second).sum(0)

    return volume


def standardized(history: History) -> Points:
    """Losses as normal scores, `(known trials, objectives)`, infeasible ones after all others by their violation."""
    done = history.finished
    columns = []
    for column in done.losses.T:
        level = np.unique(
            np.stack([done.violation, np.where(done.violation > 0, 0, column)], 1), axis=0, return_inverse=True
        )[1]
        columns.append(scores(level.ravel()))
    return np.stack(columns, 1)


def gain(best: float, mean: Points, deviation: Points) -> Points:
    """E[max(best - Y, 0)] of normal Y."""
    z = (best - mean) / deviation
    return deviation * (z * ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi))


def climb(function: Acquisition, history: History, domain: Domain, rng: np.random.Generator) -> Points:
    """The unproposed point where a function is largest, as far as hill climbing finds it.

    From random points, the uniform ones and neighbors of the best trials, the most promising climb by one decision at a
    time.
    """
    parents = history.finished.points[np.argsort(history.ranks)[:PARENTS]]
    absent = np.isnan(parents)
    parents[absent] = domain.draw(rng, len(parents))[absent]
    pool = np.concatenate([domain.draw(rng, DRAWN), domain.uniform, *(domain.neighbors(parent) for parent in parents)])
    top, values = np.empty((0, len(domain))), np.empty(0)
    for _ in range(ROUNDS):
        pool = distinct(np.r_[top, history.canonical(pool)])[len(top) :]
        fresh = pool[~history.seen(pool)]
        merged, merits = np.r_[top, fresh], np.r_[values, function(fresh) if len(fresh) else []]
        if not len(merged):
            return domain.draw(rng, 1)[0]
        order = np.argsort(-merits, kind="stable")[:CLIMBERS]
        if np.array_equal(merged[order], top):
            break
        top, values = merged[order], merits[order]
        pool = np.concatenate([domain.neighbors(point) for point in top])
    return top[0]
