from __future__ import annotations

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.study._multi_objective import _fast_non_domination_rank

from planish.automl.strategies.history import History, fronts, losses


def history(points: object, values: object, violation: object = None, running: object = None) -> History:
    points, values = np.array(points, float), np.array(values, float)
    values = values if values.ndim == 2 else values[:, None]
    violation = np.zeros(len(points)) if violation is None else np.array(violation, float)
    running = np.zeros(len(points), bool) if running is None else np.array(running, bool)
    return History(points, values, violation, running, [""] * len(points), len(points))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=25))
def test_fronts_are_optunas(rows: list[tuple[int, int, int]]) -> None:
    values = np.array(rows, float)
    assert fronts(values).tolist() == _fast_non_domination_rank(values).tolist()


def test_feasible_trials_come_first() -> None:
    known = history([[0], [1], [2], [3]], [1.0, 5.0, 3.0, 0.0], violation=[2, 0, 0, 1])
    assert known.ranks.tolist() == [3, 1, 0, 2]
    assert known.front.tolist() == [False, False, True, False]


def test_without_a_feasible_trial_the_least_violation_leads() -> None:
    assert history([[0], [1]], [1.0, 5.0], violation=[2, 1]).front.tolist() == [False, True]


def test_a_front_is_ordered_by_room() -> None:
    known = history([[i] for i in range(5)], [[0, 4], [1, 2.9], [1.1, 2.8], [4, 0], [5, 5]])
    assert set(known.ranks[[0, 3]]) == {0, 1}  # the ends have most
    assert known.ranks[4] == 4
    assert known.front.tolist() == [True, True, True, True, False]


def test_decisions_that_were_not_asked_for_do_not_count() -> None:
    known = history([[0, np.nan], [1, 2]], [0.0, 1.0])
    assert known.seen(np.array([[0, 0], [0, 5], [1, 2], [1, 3]], float)).tolist() == [True, True, True, False]


def test_conditions_are_learned() -> None:
    nan = np.nan
    rows = [[0, nan, nan, 1], [1, 0, nan, 2], [1, 1, 3, 1], [0, nan, nan, 2], [1, 1, 4, 2]]
    known = history(rows, range(5))
    found = known.canonical(np.array([[0, 1, 3, 1], [1, 0, 3, 1], [1, 1, 3, 2]], float))
    assert np.array_equal(found, np.array([[0, nan, nan, 1], [1, 0, nan, 1], [1, 1, 3, 2]]), equal_nan=True)


def test_values_are_turned_to_losses() -> None:
    directions = [optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE]
    trial = optuna.trial.create_trial(values=[2.0, 3.0])
    assert losses(trial, directions) == [-2.0, 3.0]
    assert np.isfinite(losses(optuna.trial.create_trial(values=[float("inf"), 1.0]), directions)).all()
    assert np.isnan(losses(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL), directions)).all()
    pruned = optuna.trial.create_trial(
        state=optuna.trial.TrialState.PRUNED, value=None, intermediate_values={0: 5.0, 3: 4.0}
    )
    assert losses(pruned, directions[1:]) == [4.0]


def test_running_trials_have_no_losses() -> None:
    known = history([[0], [1], [2]], [np.nan, 1.0, np.nan], running=[True, False, False])
    assert known.known.tolist() == [False, True, False]
    assert known.failed.tolist() == [False, False, True]
    assert known.finished.points.tolist() == [[1.0]]
    assert known.seen(np.array([[0.0], [2.0], [3.0]])).tolist() == [True, True, False]


def test_empty() -> None:
    known = history(np.empty((0, 2)), np.empty((0, 1)))
    assert len(known) == len(known.ranks) == 0
    assert not known.seen(np.zeros((1, 2))).any()
    assert known.canonical(np.zeros((1, 2))) == pytest.approx(np.zeros((1, 2)))
