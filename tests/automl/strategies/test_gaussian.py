from __future__ import annotations

import numpy as np
import pytest
from optuna._hypervolume import compute_hypervolume
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.optimize import approx_fprime
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from planish.automl.strategies import hamming
from planish.automl.strategies.domain import Domain
from planish.automl.strategies.gaussian import SCALE, SHAPE, Gaussian, features_of, scores, unlikelihood
from planish.automl.strategies.history import History

BITS = CategoricalDistribution([2, 3, 4, 6, 8])
RATE, SHARE = FloatDistribution(0, 1), IntDistribution(1, 1000, log=True)
MIXED = Domain.of({"a": BITS, "b": BITS, "n": SHARE, "m": IntDistribution(1, 9), "x": RATE})


def test_gradient_of_the_likelihood() -> None:
    rng = np.random.default_rng(0)
    points = MIXED.draw(rng, 12)
    points[3, 1] = points[5, 4] = np.nan
    flat = features_of(MIXED).apart(points, points).reshape(len(MIXED), -1)
    targets, theta = rng.normal(size=12), rng.normal(size=len(MIXED) + 2) * 0.5
    theta[-1] = np.log(0.05)
    sums = np.exp(-flat)
    numeric = approx_fprime(theta, lambda t: unlikelihood(t, flat, sums, targets)[0], 1e-6)
    assert unlikelihood(theta, flat, sums, targets)[1] == pytest.approx(numeric, abs=1e-4)


def test_posterior_is_sklearns() -> None:
    domain = Domain.of({"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)})
    rng = np.random.default_rng(1)
    points, targets, queries = rng.random((15, 2)), rng.normal(size=15), rng.random((7, 2))
    weights, noise = np.array([2.0, 0.5]), 0.03
    model = Gaussian(features_of(domain), points, targets, weights, share=0.0, noise=noise)
    lengths = 0.5 / np.sqrt(2 * weights)  # exp(-w (Δ / .5)²)
    peer = GaussianProcessRegressor(RBF(lengths, "fixed"), alpha=noise, optimizer=None).fit(points, targets)
    mean, deviation = model.predict(queries)
    theirs, spread = peer.predict(queries, return_std=True)
    solution = np.linalg.solve(peer.kernel_(points) + noise * np.eye(15), targets)
    variance = (targets @ solution + SCALE) / (15 + SHAPE)
    assert mean == pytest.approx(theirs)
    assert deviation == pytest.approx(np.sqrt((spread**2 + noise) * variance))


def test_one_kernel_for_all_kinds_of_decisions() -> None:
    """The fast way, by one-hot products, equals the definition."""
    rng = np.random.default_rng(2)
    points = MIXED.draw(rng, 20)
    points[rng.random(points.shape) < 0.1] = np.nan
    weights, share = rng.random(len(MIXED)) * 2, 0.4
    model = Gaussian(features_of(MIXED), points[:12], np.zeros(12), weights, share, noise=0.1)
    apart = features_of(MIXED).apart(points, points[:12])
    product = np.exp(-np.tensordot(weights, apart, 1))
    total = np.tensordot(weights, np.exp(-apart), 1) / weights.sum()
    assert model.kernel(points) == pytest.approx((1 - share) * product + share * total)
    assert np.linalg.eigvalsh(model.kernel(points[:12])).min() > -1e-9


def test_scores_depend_on_order_alone() -> None:
    values = np.array([3.0, 1.0, 2.0, 1.0])
    assert scores(values) == pytest.approx(scores(np.exp(values) * 1e6))
    assert scores(values)[1] == scores(values)[3] == scores(values).min()


def test_gain_is_the_mean_improvement() -> None:
    rng = np.random.default_rng(0)
    for best, mean, deviation in [(0.0, 0.3, 1.0), (-1.0, 0.5, 0.4), (0.5, -0.2, 0.1)]:
        drawn = np.maximum(best - rng.normal(mean, deviation, 400_000), 0).mean()
        assert hamming.gain(best, np.array([mean]), np.array([deviation]))[0] == pytest.approx(drawn, abs=4e-3)


def test_two_objectives_gain_hypervolume() -> None:
    """The closed form against draws, whose hypervolume Optuna computes."""
    domain, rng = Domain.of({"a": BITS, "b": BITS, "c": BITS}), np.random.default_rng(3)
    points = domain.draw(rng, 12)
    values = np.stack([points.sum(1) + rng.normal(size=12), -points[:, 0] + rng.normal(size=12)], 1)
    known = History(points, values, np.zeros(12), np.zeros(12, bool), [""] * 12, 12)
    queries = domain.draw(rng, 3)
    found = hamming.acquisition(known, domain, rng)(queries)
    targets = hamming.standardized(known)
    edge = targets.max(0) + 0.1
    before = compute_hypervolume(targets, edge)
    predicted = [Gaussian.fit(domain, points, column).predict(queries) for column in targets.T]
    for place in range(3):
        drawn = np.stack([rng.normal(mean[place], deviation[place], 1000) for mean, deviation in predicted], 1)
        grown = [
            compute_hypervolume(np.r_[targets, one[None]], edge) - before if (one < edge).all() else 0 for one in drawn
        ]
        assert found[place] == pytest.approx(np.mean(grown), rel=0.15, abs=0.02)
