from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from planish.automl.strategies.domain import Axis, Domain, distinct, keys

BITS = CategoricalDistribution([2, 3, 4, 6, 8])
DISTRIBUTIONS = [
    BITS,
    CategoricalDistribution([None, True, "x", 0.5]),
    IntDistribution(-3, 12, step=5),
    IntDistribution(1, 1000, log=True),
    FloatDistribution(-1.0, 1.0),
    FloatDistribution(1e-6, 1.0, log=True),
    FloatDistribution(-1.0, 0.5, step=0.25),
]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
@given(part=st.floats(0, 1, exclude_max=True))
def test_a_code_is_a_value_and_back(distribution: BaseDistribution, part: float) -> None:
    axis = Axis("x", distribution)
    value = axis.value(axis.at(part))
    assert distribution._contains(distribution.to_internal_repr(value))
    assert axis.value(axis.code(value)) == pytest.approx(value)
    assert type(value) in (int, float, str, bool, type(None))  # no type of NumPy's


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_neighbors_differ_in_one_decision(distribution: BaseDistribution) -> None:
    domain = Domain.of({"x": distribution, "bits": BITS})
    for point in domain.draw(np.random.default_rng(0), 20):
        near = domain.neighbors(point)
        assert len(near) == len(distinct(near))
        assert ((near != point).sum(1) == 1).all()
        for params in map(domain.decode, near):
            assert distribution._contains(distribution.to_internal_repr(params["x"]))
    assert len(Domain.of({"a": BITS, "b": BITS}).neighbors(np.zeros(2))) == 8


def test_uniform_points_group_equal_domains() -> None:
    two = CategoricalDistribution(["slow", "fast"])
    domain = Domain.of({"a": BITS, "b": BITS, "c": two, "d": two, "x": FloatDistribution(0, 1)})
    found = [domain.decode(point) for point in domain.uniform]
    assert [point["a"] for point in found] == [point["b"] for point in found] == [2, 3, 4, 6, 8]
    assert [point["c"] for point in found] == [point["d"] for point in found] == ["slow"] * 3 + ["fast"] * 2
    assert [point["x"] for point in found] == [0, 0.25, 0.5, 0.75, 1]


def test_no_uniform_points_where_nothing_is_shared() -> None:
    assert len(Domain.of({"a": BITS, "b": IntDistribution(1, 5)}).uniform) == 0


def test_hypercube_has_each_option_once() -> None:
    domain = Domain.of({"a": BITS, "b": BITS, "n": IntDistribution(0, 99), "x": FloatDistribution(0, 1)})
    points = domain.spread(np.random.default_rng(0))
    assert len(points) == 12
    wide = np.sort(points[:, 2] // (100 / 12))
    assert set(points[:5, 0]) <= set(range(5))
    assert set(points[:, 0]) == set(points[:, 1]) == set(range(5))
    assert len(np.unique(wide)) == len(np.unique(np.floor(points[:, 3] * 12))) == 12


def test_every_point_of_a_countable_domain() -> None:
    domain = Domain.of({"a": BITS, "n": IntDistribution(1, 3), "b": CategoricalDistribution("xy")})
    points = np.concatenate(list(domain.every()))
    assert domain.size == len(points) == len(distinct(points)) == 30
    assert Domain.of({"x": FloatDistribution(0, 1)}).size == 0


@given(st.lists(st.lists(st.integers(0, 6), min_size=4, max_size=4), min_size=1, max_size=60))
def test_keys_tell_points_apart(rows: list[list[int]]) -> None:
    points = np.array(rows, float)
    assert len(set(keys(points).tolist())) == len({tuple(row) for row in rows})
    assert np.array_equal(distinct(points), np.array(list(dict.fromkeys(map(tuple, rows))), float))


def test_many_points_have_many_keys() -> None:
    domain = Domain.of({f"d{i}": BITS for i in range(7)})
    points = np.concatenate(list(domain.every()))
    assert len(np.unique(keys(points))) == 5**7
    assert len(np.unique(keys(np.random.default_rng(0).random((100_000, 3))))) == 100_000
