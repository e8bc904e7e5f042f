from __future__ import annotations

import math

import mpmath
import pytest

from planish.training.federated.accountant import epsilon, renyi

# dp-accounting 0.6.0, RdpAccountant(orders=range(2, 257)) on PoissonSampledDpEvent(share, GaussianDpEvent(noise))
PUBLISHED = [
    (0.1, 1.0, 100, 1e-5, 7.972921510380539),
    (1.0, 4.0, 20, 1e-5, 5.377728336819822),
    (0.01, 1.1, 1000, 1e-5, 1.7252908180449444),
    (0.5, 0.8, 10, 1e-3, 12.162162512077984),
]
DIVERGENCES = [(0.1, 1.0, 100, 2, 1.7036863236176605), (0.1, 1.0, 100, 64, 2966.086593727589)]


@pytest.mark.parametrize(("share", "noise", "rounds", "delta", "wanted"), PUBLISHED)
def test_epsilon_is_dp_accountings(share: float, noise: float, rounds: int, delta: float, wanted: float) -> None:
    assert epsilon(share, noise, rounds, delta, range(2, 257)) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(("share", "noise", "rounds", "order", "wanted"), DIVERGENCES)
def test_divergence_is_dp_accountings(share: float, noise: float, rounds: int, order: int, wanted: float) -> None:
    assert rounds * renyi(share, noise, order) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("order", [2, 5, 12])
def test_divergence_is_the_integral_that_defines_it(order: int) -> None:
    share, noise = 0.2, 1.3  # Mironov, Talwar and Zhang, equation (2)

    def integrand(x: mpmath.mpf) -> mpmath.mpf:
        ratio = 1 - share + share * mpmath.exp((2 * x - 1) / (2 * noise**2))
        return mpmath.npdf(x, 0, noise) * ratio**order

    whole = mpmath.quad(integrand, [-30, -5, 0, 5, 10, 20, 60])
    assert renyi(share, noise, order) == pytest.approx(float(mpmath.log(whole) / (order - 1)), rel=1e-6)


def test_more_costs_more() -> None:
    assert epsilon(0.1, 1.0, 10, 1e-5) < epsilon(0.1, 1.0, 20, 1e-5) < epsilon(0.2, 1.0, 20, 1e-5)
    assert epsilon(0.1, 2.0, 10, 1e-5) < epsilon(0.1, 1.0, 10, 1e-5) < epsilon(0.1, 1.0, 10, 1e-7)
    assert epsilon(0.1, 1.0, 0, 1e-5) == 0
    assert math.isinf(epsilon(0.1, 0.0, 1, 1e-5))
