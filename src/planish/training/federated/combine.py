"""How updates become one: Flower's own strategies, made from a `Federation`."""

from __future__ import annotations

from typing import Any

from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    Strategy,
)

from planish.training.federated.flower import quiet
from planish.training.federated.options import Federation, Privacy, strategies

_ALL = {"fraction_train": 1.0, "fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
"""Whom to ask is decided before a strategy is asked; no client evaluates."""


def make(federation: Federation) -> Strategy:
    """The strategy that a federation names."""
    with quiet():
        return strategies[federation.strategy](federation)


def fed_avg(federation: Federation) -> Strategy:
    """The mean, weighted by rows (McMahan et al., arXiv 1602.05629)."""
    return FedAvg(**_ALL)


def fed_prox(federation: Federation) -> Strategy:
    """The mean of clients that are held near the round's start (Li et al., arXiv 1812.06127)."""
    return FedProx(**_ALL, proximal_mu=federation.proximal)


def fed_adam(federation: Federation) -> Strategy:
    """Adam along the mean (Reddi et al., arXiv 2003.00295)."""
    return FedAdam(**_ALL, eta=federation.server_rate)


def fed_yogi(federation: Federation) -> Strategy:
    """Yogi along the mean (Reddi et al., arXiv 2003.00295)."""
    return FedYogi(**_ALL, eta=federation.server_rate)


def krum(federation: Federation) -> Strategy:
    """The one update that lies nearest to the others (Blanchard et al., arXiv 1703.02757)."""
    return Krum(**_ALL, num_malicious_nodes=federation.faulty)


def trimmed_mean(federation: Federation) -> Strategy:
    """The mean of each number without its lowest and highest values (Yin et al., arXiv 1803.01498)."""
    return FedTrimmedAvg(**_ALL, beta=federation.trim)


def clipping(strategy: Strategy, privacy: Privacy, replies: int) -> Strategy:
    """A strategy behind Flower's clipping and noise, for a round with so many replies."""
    return DifferentialPrivacyServerSideFixedClipping(strategy, privacy.noise, privacy.clip, replies)


def moments(strategy: Any) -> dict[str, Any]:
    """What an adaptive strategy remembers from round to round; empty for others."""
    return {name: getattr(strategy, name) for name in ("m_t", "v_t") if getattr(strategy, name, None)}
