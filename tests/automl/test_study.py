import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from planish import Recipe
from planish.automl import Space, choose, each
from planish.automl import storage as storage_module
from planish.automl.budget import Budget
from planish.automl.search import join, make, search
from planish.automl.storage import StorageError, open_storage, opened
from planish.automl.tried import tried
from planish.automl.worker import Worker
from planish.compress import Quantize
from planish.errors import EngineError, OptionError
from planish.models import models
from planish.record import Measurement
from tests.automl import toy
from tests.support import require

HERE = Path(__file__).parents[2]
POSTGRES = os.environ.get("PLANISH_POSTGRES", "postgresql://planish:planish@127.0.0.1/planish")


def points(found):
    return [(trial.number, trial.state, trial.point, trial.losses) for trial in found.trials]


@pytest.mark.long
def test_it_finds_the_front_of_a_small_space():
    found = toy.run(200, strategy="grid")
    assert len({trial.id for trial in found.trials}) == 125
    everything = [trial.losses for trial in found.trials]
    for trial in found.front:
        assert not any(
            all(a <= b for a, b in zip(o, trial.losses, strict=True)) and o != trial.losses for o in everything
        )
    assert found.recipe(found.front[0]) == found.best
    assert found.graph(found.front[0]).tensors.keys() >= toy.graph().tensors.keys()


LONG = [pytest.param(strategy, marks=pytest.mark.long) for strategy in ("tpe", "evolution", "reinforce", "pareto")]


@pytest.mark.parametrize("strategy", ["auto", "random", *LONG])
def test_a_search_that_was_stopped_is_the_same_search(tmp_path, strategy):
    whole = toy.run(16, strategy=strategy)
    calls = 0

    def stopped(model):
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return toy.fidelity(model)

    stopped.__name__ = "fidelity"
    first = toy.run(16, strategy=strategy, run=tmp_path / "parts", maximize=stopped)
    assert first.trials[-1].state == "running"
    again = toy.run(16, strategy=strategy, run=tmp_path / "parts")
    assert points(again) == points(whole)


def test_equal_recipes_are_judged_once():
    calls = []

    def counted(model):
        calls.append(model)
        return 0.5

    bits = choose("int8", "int4", name="bits")
    recipe = Recipe(Quantize(weights=bits, percentile=choose(99.9, 99.99, name="percentile", when=bits.among("int4"))))
    found = search(recipe, toy.graph(), maximize=counted, budget=12, strategy=optuna.samplers.RandomSampler(seed=0))
    assert len(calls) == len({trial.id for trial in found.trials}) == 3
    assert sum(trial.same_as is not None for trial in found.trials) == 9


def test_what_may_not_be_is_not_judged():
    judged = []

    def quality(model):
        judged.append(model)
        return toy.fidelity(model)

    found = toy.run(40, maximize=quality, subject_to="bits < 12")
    assert 0 < len(judged) == sum(trial.state == "complete" for trial in found.trials) < 40
    assert all(trial.rows["bits"].value < 12 for trial in found.front)
    assert {trial.state for trial in found.trials} == {"complete", "stopped"}


@pytest.mark.long
def test_a_hopeless_trial_is_not_judged_to_its_end():
    def share(model, data):
        right = [float(toy.fidelity(model) > 0.9) for _ in data]
        value = sum(right) / len(right)
        half = 2 * (value * (1 - value) / len(right)) ** 0.5
        return Measurement("share", value, "1", "measured", (value - half, value + half))

    told = {"maximize": share, "minimize": "bits", "strategy": "random", "validation": list(range(40))}
    found = search(toy.recipe(), toy.graph(), budget=30, **told)
    stopped = [trial for trial in found.trials if trial.state == "stopped"]
    assert stopped
    for trial in stopped:  # one before it is no larger
        before = [other for other in found.trials[: trial.number] if other.state == "complete"]
        assert any(other.losses[1] <= trial.rows["bits"].value for other in before)
    few = search(toy.recipe(), toy.graph(), budget=30, **{**told, "validation": [1]})
    assert {trial.losses for trial in few.front} == {trial.losses for trial in found.front}


def test_nothing_feasible_tells_what_came_nearest():
    found = toy.run(12, subject_to="bits < 1")
    assert found.front == []
    with pytest.raises(OptionError, match=r"nothing holds all constraints(.|\n)*misses bits < 1 by"):
        _ = found.best


def test_one_trial_that_fails_does_not_end_the_search():
    calls = 0

    def sometimes(model):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("out of luck")
        return float("nan") if calls == 5 else toy.fidelity(model)

    found = toy.run(12, maximize=sometimes)
    failed = [trial for trial in found.trials if trial.state == "failed"]
    assert len(failed) == 2
    assert "out of luck" in failed[0].error
    assert "in sometimes" in failed[0].error  # the user's own line
    assert "NaN" in failed[1].error


def test_a_metric_that_always_fails_ends_it_with_the_reason():
    def broken(model):
        raise ValueError("no such file")

    with pytest.raises(EngineError, match=r"first 10 trials failed: ValueError: no such file"):
        toy.run(100, maximize=broken)


def test_another_search_is_refused(tmp_path):
    toy.run(2, run=tmp_path)
    with pytest.raises(StorageError, match=r"its objectives are .*bits.*, not .*bytes"):
        toy.run(2, run=tmp_path, minimize="bytes")
    with pytest.raises(StorageError, match=r"quantize.weights\[0\] is there one of int2.*, here of int4, int8"):
        search(
            Recipe(Quantize(weights=each("int4", "int8"))),
            toy.graph(),
            maximize=toy.fidelity,
            minimize="bits",
            run=tmp_path,
        )


def test_a_locked_storage_says_so(tmp_path, monkeypatch):
    toy.run(2, run=tmp_path)
    lock = sqlite3.connect(tmp_path / "search.db")
    lock.execute("BEGIN EXCLUSIVE")
    try:  # in the other runs a heartbeat may wait longer than that for a busy processor
        with monkeypatch.context() as short:
            short.setattr(storage_module, "PATIENCE", 0.2)
            with pytest.raises(StorageError, match="locked by another program"):
                toy.run(4, run=tmp_path)
    finally:
        lock.close()
    assert len(toy.run(4, run=tmp_path).trials) == 4


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:////no/such/folder/a.db", "no such folder"),
        ("nonsense", "no storage"),
        ("postgresql://a:b@127.0.0.1:1/none", "gone"),
    ],
)
def test_a_storage_that_is_not_there(url, said):
    with pytest.raises(StorageError, match=said):
        open_storage(url)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"minimize": "weight"}, "unknown objective 'weight'"),
        ({"subject_to": "bits << 3"}, "cannot read the constraint"),
        ({"subject_to": "bits < 3 parsecs"}, "cannot read 3 parsecs"),
        ({"subject_to": ["bits < 3", "bits > 4"]}, "contradict each other"),
        ({"budget": "soon"}, "cannot read the budget"),
        ({"strategy": "magic"}, "unknown strategy 'magic'"),
        ({"workers": 2}, "a place to meet"),
        ({"minimize": ["bits", "bits"]}, "named twice"),
    ],
)
def test_what_cannot_be_is_refused_before_it_begins(more, said):
    with pytest.raises(OptionError, match=said):
        toy.run(**{"budget": 2, **more})


@pytest.mark.parametrize(
    ("text", "trials", "seconds"),
    [("20min", None, 1200), ("200 trials", 200, None), ("1h, 50 trials", 50, 3600), ("90s", None, 90), (7, 7, None)],
)
def test_budgets(text, trials, seconds):
    assert Budget.parse(text) == Budget(trials, seconds)


@pytest.mark.long
def test_workers_share_a_search(tmp_path):
    found = toy.run(30, run=tmp_path, workers=2, maximize=toy.slow)
    ended = [trial for trial in found.trials if trial.state == "complete"]
    assert 30 <= len(ended) <= 31
    assert all(trial.state == "complete" for trial in found.trials)
    assert (tmp_path / "recipe.toml").read_text() == found.best.to_toml()
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) == len(found.trials)


def kill_and_check(folder: Path, instants: list[float], trials: int) -> None:
    """Start a worker, kill it after so many seconds of work, and look at what it left; at last let one finish."""
    told: list[tuple] = []
    for instant in instants:
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.automl.toy", str(folder), str(trials)], cwd=HERE, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while not (folder / "search.db").exists() and worker.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(instant)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        told = _still_there(folder, told)
    found = toy.run(trials, maximize=toy.slow, run=folder)
    assert [trial.state for trial in found.trials] == ["complete"] * trials
    assert _still_there(folder, told)


def _still_there(folder: Path, told: list[tuple]) -> list[tuple]:
    """All trials that were finished before are finished now, with the numbers they had."""
    if not (folder / "search.db").exists():
        return told
    try:
        study = optuna.load_study(study_name="planish", storage=f"sqlite:///{folder / 'search.db'}")
    except KeyError:  # killed before the study was made
        assert not told
        return told
    ended = [(t.number, t.values, t.params) for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    assert all(each_ in ended for each_ in told)
    assert sum(t.state == optuna.trial.TrialState.RUNNING for t in study.trials) <= 1
    return ended


@pytest.mark.long
def test_a_worker_may_be_killed(tmp_path):
    kill_and_check(tmp_path, [0.7], 12)
    alone = toy.run(12, maximize=toy.slow)
    assert points(alone) == points(toy.run(12, maximize=toy.slow, run=tmp_path))


@pytest.fixture
def database():
    """An empty PostgreSQL database."""
    driver = require("psycopg")
    try:
        server = driver.connect(POSTGRES, autocommit=True)
    except driver.OperationalError as error:
        if os.environ.get("PLANISH_REQUIRE"):
            pytest.fail(f"no PostgreSQL answers: {error}")
        pytest.skip(f"no PostgreSQL answers at {POSTGRES}")
    name = f"search_{os.getpid()}"
    with server.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    yield f"{POSTGRES.rpartition('/')[0]}/{name}"
    with server.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    server.close()


@pytest.mark.long
def test_many_workers_join_through_postgresql(database, tmp_path, monkeypatch):
    (tmp_path / "meeting").mkdir()
    monkeypatch.setenv("TOY_MEETING", str(tmp_path / "meeting"))
    found = toy.run(40, storage=database, run=tmp_path / "run", workers=3, maximize=toy.met)
    assert all(trial.state == "complete" for trial in found.trials)
    assert 40 <= len(found.trials) <= 42
    assert len({trial.worker for trial in found.trials}) >= 2
    told = make(toy.recipe(), toy.graph(), maximize=toy.met, minimize="bits", strategy="random")
    seen = []
    join(lambda: told, Budget(trials=50), database, seen.append)
    assert len(seen) >= 8


@pytest.mark.long
def test_what_a_killed_worker_left_is_taken_up_by_the_others(database, monkeypatch):
    told = make(toy.recipe(), toy.graph(), maximize=toy.fidelity, minimize="bits", strategy="random")
    monkeypatch.setattr(storage_module, "HEARTBEAT", 1)
    monkeypatch.setattr(storage_module, "GRACE", 2)
    with opened(database) as kept:
        study = told.study(kept)
        with pytest.warns(UserWarning, match="Heartbeat"):
            orphan = study.ask()
        orphan.set_user_attr("worker", "another-machine:1:1:0")
        kept.record_heartbeat(orphan._trial_id)
        time.sleep(3.5)
        Worker(told, study, kept).work(Budget(trials=5))
        trials = [tried(trial, told.signs) for trial in study.trials]
    assert [trial.state for trial in trials].count("running") == 0
    assert sum(trial.state == "complete" for trial in trials) == 5
    assert trials[0].state == "failed"


def test_a_space_knows_its_graph_only():
    with pytest.raises(OptionError, match="a graph, or a function"):
        Space(toy.recipe())


def test_quality_is_the_tasks_own(tmp_path):
    task = models["mlp"]()
    found = search(Recipe(Quantize(weights=each("int3", "int8"))), task=task, budget=4, strategy="grid", run=tmp_path)
    assert [objective.name for objective in found.search.objectives] == ["quality", "bytes"]
    assert found.original()["quality"].value > 0.9
