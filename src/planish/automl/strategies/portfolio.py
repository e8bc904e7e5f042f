"""`auto`: several strategies, of which the one that has succeeded gets the next trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from typing_extensions import override

from planish.automl.strategies.domain import Domain, Points
from planish.automl.strategies.evolution import child
from planish.automl.strategies.hamming import improve
from planish.automl.strategies.history import History
from planish.automl.strategies.options import whole
from planish.automl.strategies.proposer import Proposer

# Constants chosen on the tuning half of benchmarks/search's tables, never on the other.
SPREAD = 6  # trials of the Latin hypercube
PAIRS = 2  # uniform points that are tried whatever they turn out to be
PRIOR_POOL = 256  # points that a prior ranks
ELITE = 10  # the best trials, from which evolution draws a parent
MEMORY = 0.9  # weight of a success, a trial later
TRUST: dict[str, tuple[float, float]] = {  # successes and failures that an arm begins with
    "model": (4.0, 1.0),
    "local": (1.0, 4.0),
    "evolution": (1.0, 6.0),
    "random": (1.0, 12.0),
}


class Portfolio(Proposer):
    """A warm start, then the arm that is drawn by its successes.

    The start alternates between uniform points (the same choice everywhere) and a Latin hypercube, or the best of many
    points by a prior; the kind whose trials rank better goes on, so that uniform points are given up where they do not
    help. After it each trial belongs to one of four arms: the Gaussian process of `hamming`, local search from the
    best, evolution of the best ten, and random points. A trial succeeds if it is better than all before it (with
    several objectives: if none dominates it). Arms are drawn by Thompson sampling over recent successes.

    Args:
        seed: Decides everything random.
        space: All decisions, or None to learn them.
        prior: What a point is likely worth (larger is better), `{decision: value}` to a number: for instance a
            zero-cost proxy. It chooses the start.
        spread: Trials of the hypercube, or of the prior.
    """

    def __init__(
        self,
        seed: int = 0,
        space: Mapping[str, BaseDistribution] | None = None,
        *,
        prior: Callable[[dict[str, Any]], float] | None = None,
        spread: int = SPREAD,
    ) -> None:
        super().__init__(seed, space)
        self.prior, self.spread = prior, whole("spread", spread, 1)

    @override
    def propose(self, history: History, domain: Domain, rng: np.random.Generator) -> Points:
        return self.proposal(history, domain, rng)[0]

    @override
    def proposal(self, history: History, domain: Domain, rng: np.random.Generator) -> tuple[Points, str]:
        spread, tried = self._spread(domain), {kind: history.by.count(kind) for kind in ("uniform", "spread")}
        if tried["uniform"] < len(domain.uniform) and uniform_next(history, tried, len(spread)):
            return order(domain.uniform)[tried["uniform"]], "uniform"
        if tried["spread"] < len(spread):
            return spread[tried["spread"]], "spread"
        if not history.known.any():
            return domain.draw(rng, 1)[0], ""
        chosen = arm(history, rng)
        if chosen == "model":
            return improve(history, domain, rng), chosen
        if chosen == "random":
            return domain.draw(rng, 1)[0], chosen
        points = history.finished.points[np.argsort(history.ranks)]
        if chosen == "local":
            return child(points[0], history, domain, rng), chosen
        parent = points[rng.integers(min(ELITE, len(points)))]
        return child(parent, history, domain, rng, 1 + rng.poisson(0.5)), chosen

    def _spread(self, domain: Domain) -> Points:
        rng = np.random.default_rng(self.seed)
        if self.prior is None:
            return domain.spread(rng)[: self.spread]
        pool = np.unique(np.r_[domain.uniform, domain.draw(rng, PRIOR_POOL)], axis=0)
        worth = np.array([self.prior(domain.decode(point)) for point in pool])
        return pool[np.argsort(-worth, kind="stable")[: self.spread]]


def uniform_next(history: History, tried: Mapping[str, int], spread: int) -> bool:
    """Whether a uniform point is next: in turn with the others at first, then while they rank better on average."""
    if min(tried.values()) < min(PAIRS, spread):
        return tried["uniform"] <= tried["spread"]
    by = np.array(history.by)[history.known]
    means = [history.ranks[by == kind].mean() if (by == kind).any() else np.inf for kind in ("uniform", "spread")]
    return bool(means[0] < means[1])


def order(points: Points) -> Points:
    """Uniform points from the middle outwards by halves: the first few already span the options."""
    rows, places = len(points), [0.5, 0.0, 1.0, 0.25, 0.75]
    first = list(dict.fromkeys(round(part * (rows - 1)) for part in places)) if rows else []
    return points[[*first, *(row for row in range(rows) if row not in first)]]


def successes(history: History) -> NDArray[np.bool_]:
    """Which trials that have losses were no worse than all before them, `(known trials,)`."""
    done = history.finished
    level = np.where(done.violation[:, None] > 0, np.inf, done.losses)
    found = np.zeros(len(done), bool)
    for row in range(1, len(done)):
        found[row] = not (level[:row] <= level[row]).all(1).any() and np.isfinite(level[row]).all()
    return found


def arm(history: History, rng: np.random.Generator) -> str:
    """The arm of the next trial."""
    by, found = np.array(history.by)[history.known], successes(history)
    age = MEMORY ** np.arange(len(by))[::-1]
    drawn = {}
    for name, (good, bad) in TRUST.items():
        mine = by == name
        drawn[name] = rng.beta(good + (age * found)[mine].sum(), bad + (age * ~found)[mine].sum())
    return max(drawn, key=drawn.__getitem__)
