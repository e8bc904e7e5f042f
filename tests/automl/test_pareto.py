import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planish.automl.pareto import dominates, front, hypervolume
from tests.support import require

POINTS = st.integers(1, 4).flatmap(
    lambda size: st.lists(st.lists(st.integers(0, 9).map(float), min_size=size, max_size=size), min_size=1, max_size=12)
)


@settings(max_examples=200)
@given(POINTS)
def test_the_volume_is_optunas(points):
    compute = require("optuna._hypervolume").compute_hypervolume
    reference = [8.0] * len(points[0])
    inside = np.array([point for point in points if max(point) < 8] or [reference])
    assert hypervolume(points, reference) == pytest.approx(compute(inside, np.array(reference)))


@given(POINTS)
def test_the_front_is_what_nothing_dominates(points):
    kept = front(points)
    for point in points:
        beaten = any(dominates(other, point) for other in points)
        assert beaten == (point not in [points[each] for each in kept])
    assert len({tuple(points[each]) for each in kept}) == len(kept)
