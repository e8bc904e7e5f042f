"""What every strategy promises, as checks that take any sampler: `Make` builds it from a seed and a space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState

Space = dict[str, BaseDistribution]
Make = Callable[[int, Space | None], BaseSampler]
SMALL: Space = {
    "a": CategoricalDistribution(["x", "y", "z"]),
    "b": CategoricalDistribution(["x", "y", "z"]),
    "c": IntDistribution(1, 2),
}
LARGE: Space = {
    **{f"layer {i}": CategoricalDistribution([2, 3, 4, 6, 8]) for i in range(5)},
    "width": IntDistribution(16, 256, step=16),
}


def ask(trial: Trial, space: Space) -> dict[str, Any]:
    return {name: trial._suggest(name, distribution) for name, distribution in space.items()}


def cost(point: Mapping[str, Any]) -> float:
    """Least at 4 bits everywhere and a width of 64; for `SMALL` at the last options."""
    bits = sum((value - 4) ** 2 for name, value in point.items() if name.startswith("layer"))
    return bits + abs(point.get("width", 64) - 64) / 16 + sum(value != "z" for value in point.values()) * 0.1


def points(study: optuna.Study) -> list[tuple[Any, ...]]:
    return [tuple(sorted(trial.params.items())) for trial in study.trials]


def resumes(make: Make, trials: int = 18, objectives: int = 1) -> None:
    """Stopped and continued, with a new sampler, it proposes what it would have."""

    def objective(trial: Trial) -> Any:
        point = ask(trial, LARGE)
        return cost(point) if objectives == 1 else (cost(point), -float(point["width"]))

    def study() -> optuna.Study:
        return optuna.create_study(directions=["minimize"] * objectives, sampler=make(7, LARGE))

    whole, parts = study(), study()
    whole.optimize(objective, n_trials=trials)
    for stop in range(0, trials, 5):
        parts.sampler = make(7, LARGE)
        parts.optimize(objective, n_trials=min(5, trials - stop))
    assert points(whole) == points(parts)
    other = optuna.create_study(directions=["minimize"] * objectives, sampler=make(8, LARGE))
    other.optimize(objective, n_trials=trials)
    assert points(other) != points(whole), "the seed changes nothing"


def never_repeats(make: Make) -> None:
    """All points of a small space are proposed once, and then the study ends."""
    study = optuna.create_study(sampler=make(0, SMALL))
    study.optimize(lambda trial: cost(ask(trial, SMALL)), n_trials=30)
    assert len(study.trials) == len(set(points(study))) == 18


def knows_conditions(make: Make) -> None:
    """Decisions that are not asked for make no new point; two trials never ask for the same."""
    space: Space = {
        "kind": CategoricalDistribution(["dense", "sparse"]),
        "zeros": CategoricalDistribution([0.5, 0.7, 0.9]),
        "bits": CategoricalDistribution([4, 8]),
    }

    def objective(trial: Trial) -> float:
        kind = trial.suggest_categorical("kind", ["dense", "sparse"])
        zeros = trial.suggest_categorical("zeros", [0.5, 0.7, 0.9]) if kind == "sparse" else 0.0
        return trial.suggest_categorical("bits", [4, 8]) * (1 - zeros)

    study = optuna.create_study(sampler=make(0, space))
    study.optimize(objective, n_trials=20)
    assert len(study.trials) == len(set(points(study))) == 2 * 3 + 2


def heeds_constraints(make: Make, trials: int = 40) -> None:
    """Where the best values are infeasible, at least a third of the trials are feasible all the same."""

    def objective(trial: Trial) -> float:
        point = ask(trial, LARGE)
        trial.set_constraint("size", sum(point[name] for name in point if name != "width") - 24)
        return -float(sum(point.values()))

    study = optuna.create_study(sampler=make(1, LARGE))
    study.optimize(objective, n_trials=trials)
    feasible = [trial for trial in study.trials if all(c <= 0 for c in trial.constraints.values())]
    assert len(feasible) >= trials / 3  # of random points: .62


def takes_objectives(make: Make, count: int, trials: int = 30) -> None:
    """Several objectives, in both directions."""
    directions = ["minimize", "maximize", "minimize"][:count]
    study = optuna.create_study(directions=directions, sampler=make(2, LARGE))

    def objective(trial: Trial) -> tuple[float, ...]:
        point = ask(trial, LARGE)
        bits = float(sum(value for name, value in point.items() if name.startswith("layer")))
        return (bits, bits - abs(point["width"] - 64) / 16, float(point["width"]))[:count]

    study.optimize(objective, n_trials=trials)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert study.best_trials


def counts_running(make: Make) -> None:
    """Points that other workers are trying are not proposed again, nor those that failed."""
    study = optuna.create_study(sampler=make(3, SMALL))
    open_ = [study.ask(SMALL) for _ in range(6)]
    assert len({tuple(trial.params.items()) for trial in open_}) == 6
    study.tell(open_[0], state=TrialState.FAIL)
    later = [study.ask(SMALL) for _ in range(6)]
    assert len(set(points(study))) == len(open_) + len(later)


def serves_plain_studies(make: Make, trials: int = 15) -> None:
    """In a study of somebody else's that declares nothing, with trials that it did not propose."""
    study = optuna.create_study(direction="maximize", sampler=make(4, None))
    study.enqueue_trial({"x": 0.25})

    def objective(trial: Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        n = trial.suggest_int("n", 1, 1000, log=True)
        if trial.suggest_categorical("deep", [True, False]):
            x += trial.suggest_float("rate", 1e-4, 1, log=True)
        if trial.number == 3:
            raise ValueError("this one fails")
        return x - n / 1000

    study.optimize(objective, n_trials=trials, catch=(ValueError,))
    assert sum(trial.state == TrialState.COMPLETE for trial in study.trials) == trials - 1
    study.optimize(objective, n_trials=4, n_jobs=2)
