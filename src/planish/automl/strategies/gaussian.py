"""A Gaussian process over decisions.

The kernel is a mixture of a product and a sum over decisions, both of the same weights w:

    k(x, y) = (1 - a) exp(-Σ w_i d_i(x_i, y_i)) + a Σ w_i exp(-d_i(x_i, y_i)) / Σ w_i

where d is between 0 and 1. The product is the Hamming kernel with a relevance for each decision (Oh et al.,
"Combinatorial Bayesian optimization using the graph Cartesian product", 2019, on complete graphs); the sum says that
decisions act alone (Duvenaud et al., "Additive Gaussian processes", 2011). Two options of a category are at distance 1
for three quarters, and as far as they were listed apart for the rest, since options are often listed in order. The
scale is integrated out; w, a and the noise are at the maximum of their posterior.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import expit, ndtri
from scipy.stats import rankdata

from planish.automl.strategies.domain import Axis, Domain, Points

LISTED = 0.25  # share of a category's distance that follows the order of its options
SLOTS = 64  # a decision with more values is a number, compared by its place
REACH = 0.5  # of a number's range: where its distance is 1
HELD = 250  # trials that a process is conditioned on, so that a proposal's time has a bound
FITTED = 100  # of them, those that decide the weights
SHAPE, SCALE = 2.0, 2.0  # of the inverse gamma prior of the variance
WEIGHT, SPREAD = 0.0, 1.0  # mean and deviation of log w
SUM, TILT = 0.0, 1.5  # of logit a
NOISE, FUZZ = float(np.log(1e-2)), 1.0  # of the log of the noise's share
ITERATIONS = 15


def scores(losses: NDArray[Any]) -> Points:
    """Normal scores of `(rows,)` by rank: nothing but the order counts, so that no scale can mislead the model."""
    return ndtri((rankdata(losses) - 0.375) / (len(losses) + 0.25))


def distances(axis: Axis, a: Points, b: Points) -> Points:
    """Between codes that broadcast; NaN is at distance 1 from all but NaN."""
    if axis.is_number:
        return spans(axis.stands(a), axis.stands(b))
    far = (1 - LISTED) * (a != b) + LISTED * np.abs(a - b) / max(1, axis.count - 1)
    return lacking(a, b, far)


def spans(a: Points, b: Points) -> Points:
    """Between places from 0 to 1 that broadcast."""
    return lacking(a, b, ((a - b) / REACH) ** 2)


def lacking(a: Points, b: Points, far: Points) -> Points:
    """A distance with its NaN resolved."""
    absent = np.isnan(far)
    if absent.any():
        far = np.where(absent, (np.isnan(a) != np.isnan(b)) * 1.0, far)
    return far


class Features:
    """A domain's distances, ready for matrix products.

    Args:
        domain: The decisions.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.slotted = [place for place, axis in enumerate(domain.axes) if 0 < axis.count <= SLOTS]
        self.numbers = [place for place in range(len(domain)) if place not in self.slotted]
        codes = [np.r_[np.arange(domain.axes[place].count), np.nan] for place in self.slotted]
        self.tables = [distances(domain.axes[p], c[:, None], c[None]) for p, c in zip(self.slotted, codes, strict=True)]
        sizes = [len(table) for table in self.tables]
        self.starts = np.cumsum([0, *sizes])[:-1].astype(int)
        self.width = sum(sizes)

    def slots(self, points: Points) -> NDArray[np.int_]:
        """Which slot each slotted decision of `(rows, decisions)` is in."""
        codes = points[:, self.slotted]
        last = np.array([len(table) - 1 for table in self.tables], int)
        return np.where(np.isnan(codes), last, np.nan_to_num(codes)).astype(int) + self.starts

    def hot(self, points: Points) -> Points:
        """Those slots as zeros and ones, `(rows, slots)`."""
        rows = np.zeros((len(points), self.width))
        rows[np.arange(len(points))[:, None], self.slots(points)] = 1
        return rows

    def apart(self, a: Points, b: Points) -> Points:
        """Distances of each decision, `(decisions, rows of a, rows of b)`."""
        found = np.empty((len(self.domain), len(a), len(b)))
        for place, axis in enumerate(self.domain.axes):
            found[place] = distances(axis, a[:, place, None], b[None, :, place])
        return found


@lru_cache(maxsize=8)
def features_of(domain: Domain) -> Features:
    """A domain's features, made once."""
    return Features(domain)


@dataclass(frozen=True)
class Gaussian:
    """A process, conditioned on trials.

    Attributes:
        features: Of the domain.
        points: Of the trials, `(trials, decisions)`.
        targets: Their numbers, `(trials,)`; best standardized.
        weights: w, `(decisions,)`.
        share: a.
        noise: The variance of the noise, as a share of the process's.
    """

    features: Features
    points: Points
    targets: Points
    weights: Points
    share: float
    noise: float

    @classmethod
    def fit(cls, domain: Domain, points: Points, targets: Points) -> Gaussian:
        """The process that explains trials best; of too many (`HELD`, `FITTED`) the best and the last count.

        Args:
            domain: The decisions.
            points: `(trials, decisions)`.
            targets: `(trials,)`, standardized.
        """
        features = features_of(domain)
        held = telling(targets, HELD)
        points, targets = points[held], targets[held]
        rows = telling(targets, FITTED)
        weights, share, noise = posterior_mode(features.apart(points[rows], points[rows]), targets[rows])
        return cls(features, points, targets, weights, share, noise)

    def given(self, points: Points, targets: Points) -> Gaussian:
        """The same process, conditioned on more trials."""
        points, targets = np.r_[self.points, points], np.r_[self.targets, targets]
        return Gaussian(self.features, points, targets, self.weights, self.share, self.noise)

    @cached_property
    def _columns(self) -> tuple[Points, Points]:
        """What one-hot rows are multiplied by to get exponents and sums at the trials, `(slots, trials)`."""
        hot = self.features.hot(self.points).T
        exponents, sums = np.empty((2, self.features.width, len(self.points)))
        parts = zip(self.features.slotted, self.features.tables, self.features.starts, strict=True)
        for place, table, start in parts:
            rows = slice(start, start + len(table))
            exponents[rows] = self.weights[place] * table @ hot[rows]
            sums[rows] = self.weights[place] * np.exp(-table) @ hot[rows]
        return exponents, sums

    def kernel(self, points: Points) -> Points:
        """The kernel between `(rows, decisions)` and the trials, `(rows, trials)`."""
        hot = self.features.hot(points)
        exponent, total = (hot @ columns for columns in self._columns)
        for place in self.features.numbers:
            axis = self.features.domain.axes[place]
            far = spans(axis.stands(points[:, place])[:, None], self._stands[place])
            exponent = exponent + self.weights[place] * far
            total = total + self.weights[place] * np.exp(-far)
        return (1 - self.share) * np.exp(-exponent) + self.share * total / self.weights.sum()

    @cached_property
    def _stands(self) -> dict[int, Points]:
        return {p: self.features.domain.axes[p].stands(self.points[:, p]) for p in self.features.numbers}

    @cached_property
    def _solved(self) -> tuple[Points, Points, float]:
        kernel = self.kernel(self.points) + self.noise * np.eye(len(self.points))
        lower = cholesky(kernel)
        solution = cho_solve((lower, True), self.targets)
        variance = (self.targets @ solution + SCALE) / (len(self.targets) + SHAPE)
        return lower, solution, variance

    def predict(self, points: Points) -> tuple[Points, Points]:
        """Mean and deviation of a trial at `(rows, decisions)`: `(rows,)` each.

        The noise counts: what the kernel does not explain is a property of a point, and can make it the best.
        """
        lower, solution, variance = self._solved
        kernel = self.kernel(points)
        explained = solve_triangular(lower, kernel.T, lower=True)
        left = np.maximum(1 - np.einsum("ij,ij->j", explained, explained), 0) + self.noise
        return kernel @ solution, np.sqrt(left * variance)


def telling(targets: Points, count: int) -> NDArray[np.int_]:
    """The rows of the best and of the last trials, half each, in order; all of them if they are few."""
    rows = np.arange(len(targets))
    if len(rows) <= count:
        return rows
    best = np.argsort(targets, kind="stable")[: count // 2]
    return np.union1d(best, np.setdiff1d(rows, best)[-(count - len(best)) :])


def cholesky(kernel: Points) -> Points:
    """The lower factor, with as much added to the diagonal as it takes."""
    for jitter in (0.0, 1e-6, 1e-4, 1e-2):
        try:
            return np.asarray(np.linalg.cholesky(kernel + jitter * np.eye(len(kernel))), float)
        except np.linalg.LinAlgError:
            continue
    return np.asarray(np.linalg.cholesky(kernel + np.diag(np.abs(kernel).sum(1))), float)  # dominant


def posterior_mode(apart: Points, targets: Points) -> tuple[Points, float, float]:
    """Weights `(decisions,)`, the sum's share and the noise that are most likely.

    Args:
        apart: Distances `(decisions, trials, trials)`.
        targets: `(trials,)`.
    """
    count = len(apart)
    center = np.r_[np.full(count, WEIGHT), SUM, NOISE]
    width = np.r_[np.full(count, SPREAD), TILT, FUZZ]
    flat = apart.reshape(count, -1)
    sums = np.exp(-flat)

    def loss(theta: Points) -> tuple[float, Points]:
        value, slope = unlikelihood(theta, flat, sums, targets)
        off = (theta - center) / width
        return value + 0.5 * off @ off, slope + off / width

    bounds = np.stack([center - 4 * width, center + 4 * width], 1)
    found = minimize(loss, center, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": ITERATIONS}).x
    return np.exp(found[:count]), float(expit(found[count])), float(np.exp(found[count + 1]))


def unlikelihood(theta: Points, flat: Points, sums: Points, targets: Points) -> tuple[float, Points]:
    """Minus the log of the marginal likelihood, up to a constant, and its gradient.

    Args:
        theta: log w, logit a, log noise: `(decisions + 2,)`.
        flat: Distances `(decisions, trials * trials)`.
        sums: exp(-distances).
        targets: `(trials,)`.
    """
    count, rows = len(flat), len(targets)
    weights, share, noise = np.exp(theta[:count]), expit(theta[count]), np.exp(theta[count + 1])
    product, part = np.exp(-(weights @ flat)), weights / weights.sum()
    kernel = ((1 - share) * product + share * (part @ sums)).reshape(rows, rows)
    lower = cholesky(kernel + noise * np.eye(rows))
    inverse = cho_solve((lower, True), np.eye(rows))
    solution = inverse @ targets
    energy = targets @ solution + SCALE
    value = 0.5 * (rows + SHAPE) * np.log(energy) + np.log(np.diag(lower)).sum()
    flow = np.outer(solution, solution) * ((rows + SHAPE) / energy) - inverse  # -2 by the kernel
    own = sums @ flow.ravel()
    slope = np.empty_like(theta)
    slope[:count] = (1 - share) * weights * (flat @ (flow.ravel() * product)) - share * part * (own - part @ own)
    slope[count] = share * (1 - share) * (flow.ravel() @ product - part @ own)
    slope[count + 1] = -noise * np.trace(flow)
    return float(value), 0.5 * slope
