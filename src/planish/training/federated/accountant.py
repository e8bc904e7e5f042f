"""What Gaussian noise on clipped updates promises: (epsilon, delta) of the subsampled Gaussian mechanism.

Each round adds noise of `noise * clip` to a sum in which one client counts for `clip` at most; clients are drawn
independently, each with the same chance. Rényi divergences add up over rounds (Mironov, Talwar and Zhang, "Rényi
Differential Privacy of the Sampled Gaussian Mechanism", arXiv 1908.10530, section 3.3, whole orders) and are turned
into an epsilon by proposition 12 of Canonne, Kamath and Steinke (arXiv 2004.00010).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

ORDERS = (*range(2, 65), *range(68, 257, 4), 320, 512, 1024)


def renyi(share: float, noise: float, order: int) -> float:
    """Rényi divergence of a whole order of one round.

    Args:
        share: The chance that a client takes part.
        noise: Standard deviation of the noise over the largest length of a client's update.
        order: 2 or more.
    """
    if not noise:
        return math.inf
    if share == 1:
        return order / (2 * noise**2)
    terms = [
        math.lgamma(order + 1) - math.lgamma(k + 1) - math.lgamma(order - k + 1)
        + (order - k) * math.log1p(-share) + k * math.log(share)
        + (k * k - k) / (2 * noise**2)
        for k in range(order + 1)
    ]  # fmt: skip
    top = max(terms)
    return (top + math.log(sum(math.exp(term - top) for term in terms))) / (order - 1)


def epsilon(share: float, noise: float, rounds: int, delta: float, orders: Sequence[int] = ORDERS) -> float:
    """The epsilon that goes with `delta` after some rounds; infinite without noise."""
    if not rounds:
        return 0.0
    found = math.inf
    for order in orders:
        spent = rounds * renyi(share, noise, order)
        bound = spent + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
        found = min(found, bound)
    return max(found, 0.0)
