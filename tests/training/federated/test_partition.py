from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.errors import DataError, OptionError
from planish.training.federated import Partition
from planish.training.federated.partition import by_owner, dirichlet, iid

SEEDS = st.integers(0, 2**31)


def is_exact_cover(shares: list[np.ndarray], rows: int) -> bool:
    return sorted(np.concatenate(shares).tolist()) == list(range(rows)) and all(len(share) for share in shares)


@given(rows=st.integers(20, 300), clients=st.integers(1, 20), seed=SEEDS)
def test_iid_covers_every_row_once_in_equal_shares(rows: int, clients: int, seed: int) -> None:
    shares = iid(rows, clients, seed)
    assert is_exact_cover(shares, rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(
    labels=st.lists(st.integers(0, 4), min_size=30, max_size=200),
    clients=st.integers(1, 12),
    alpha=st.sampled_from([0.01, 0.3, 1.0, 100.0]),
    seed=SEEDS,
)
def test_dirichlet_covers_every_row_once(labels: list[int], clients: int, alpha: float, seed: int) -> None:
    assert is_exact_cover(dirichlet(labels, clients, alpha, seed), len(labels))


@given(owners=st.lists(st.text("abcdefgh", min_size=1, max_size=1), min_size=10, max_size=100), seed=SEEDS)
def test_an_owner_has_one_client(owners: list[str], seed: int) -> None:
    clients = min(3, len(set(owners)))
    shares = by_owner(owners, clients, seed)
    assert is_exact_cover(shares, len(owners))
    held = [{owners[row] for row in share} for share in shares]
    assert sum(map(len, held)) == len(set(owners))


@pytest.mark.parametrize("text", ["iid", "dirichlet:0.3"])
def test_a_seed_decides(text: str) -> None:
    labels = np.random.default_rng(0).integers(10, size=200).tolist()
    first, again, other = (Partition.parse(text).split(labels, 5, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_small_alpha_makes_clients_differ() -> None:
    labels = np.repeat(np.arange(10), 500)

    def skew(alpha: float) -> float:
        shares = dirichlet(labels.tolist(), 10, alpha, 0)
        return float(np.mean([np.bincount(labels[share], minlength=10).max() / len(share) for share in shares]))

    assert skew(0.05) > skew(0.5) > skew(50.0)
    assert skew(1000.0) == pytest.approx(0.1, abs=0.02)


def test_dirichlet_shares_have_the_distributions_mean_and_variance() -> None:
    alpha, clients = 0.5, 4  # Dirichlet: mean 1/n, variance (n - 1) / (n^2 (n alpha + 1))
    sizes = np.array([[len(s) for s in dirichlet([0] * 4000, clients, alpha, seed)] for seed in range(400)]) / 4000
    assert sizes.mean(0) == pytest.approx(np.full(clients, 1 / clients), abs=0.03)
    assert sizes.var() == pytest.approx((clients - 1) / (clients**2 * (clients * alpha + 1)), rel=0.1)


@pytest.mark.parametrize("text", ["iid", "dirichlet:0.3", "dirichlet:10", "owner"])
def test_text_form(text: str) -> None:
    assert str(Partition.parse(text)) == text


@pytest.mark.parametrize("text", ["even", "dirichlet:x", "dirichlet:0", "dirichlet:-1", "iid:3"])
def test_bad_text(text: str) -> None:
    with pytest.raises(OptionError):
        Partition.parse(text)


def test_too_few_rows_or_owners() -> None:
    with pytest.raises(DataError, match="5 clients cannot share 3 rows"):
        Partition().split([0, 1, 2], 5, 0)
    with pytest.raises(DataError, match="2 owners cannot be 3 clients"):
        Partition("owner").split([0] * 4, 3, 0, ["a", "b", "a", "b"])
    with pytest.raises(DataError, match="one owner a row"):
        Partition("owner").split([0] * 4, 2, 0)
