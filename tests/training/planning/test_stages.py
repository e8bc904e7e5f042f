from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.errors import OptionError
from planish.training.planning.stages import cut


def slowest(times: list[float], borders: tuple[int, ...]) -> float:
    limits = [0, *borders, len(times)]
    return max(sum(times[start:stop]) for start, stop in itertools.pairwise(limits))


@given(st.lists(st.integers(1, 20), min_size=4, max_size=9), st.integers(2, 4))
def test_no_cut_has_a_faster_slowest_stage(times: list[int], count: int) -> None:
    found = cut([float(each) for each in times], [True] * len(times), count)
    assert found is not None
    best = min(slowest(times, each) for each in itertools.combinations(range(1, len(times)), count - 1))
    assert slowest(times, tuple(found)) == best


def test_stages_begin_where_they_may() -> None:
    assert cut([1, 1, 1, 1, 1, 1], [True, False, False, True, False, False], 2) == [3]
    assert cut([5, 1, 1, 1], [False, False, True, True], 2) == [2]


def test_memory_moves_a_border() -> None:
    times = [1.0] * 6
    held = [[2.0] * 6, [1.0] * 6]  # the first stage holds two microbatches
    assert cut(times, [True] * 6, 2) == [3]
    assert cut(times, [True] * 6, 2, held, 4.0) == [2]
    assert cut(times, [True] * 6, 2, held, 3.0) is None
    assert cut(times, [True] * 6, 2, held, np.inf) == [3]


def test_more_stages_than_blocks() -> None:
    with pytest.raises(OptionError, match="5 stages, and the model has 4 blocks"):
        cut([1.0] * 4, [True] * 4, 5)
