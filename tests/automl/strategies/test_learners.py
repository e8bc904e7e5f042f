"""What strategies do beyond the contract."""

from __future__ import annotations

from functools import cache

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import planish.automl
from planish.automl.strategies import sampler, strategies
from planish.automl.strategies.controller import Policy
from planish.automl.strategies.domain import Domain
from planish.errors import OptionError, PlanishError, UnknownName
from tests.automl.strategies.contract import LARGE, ask, cost

optuna.logging.set_verbosity(optuna.logging.ERROR)


def best(name: str, seed: int, trials: int, **options: object) -> float:
    study = optuna.create_study(sampler=sampler(name, seed, LARGE, **options))
    study.optimize(lambda trial: cost(ask(trial, LARGE)), n_trials=trials)
    return study.best_value


LEARNERS = {"auto": 30, "hamming": 30, "local": 50, "pareto": 50, "evolution": 60, "reinforce": 80, "ppo": 80}


@cache
def drawn(trials: int) -> float:
    return float(np.mean([best("random", seed, trials) for seed in range(6)]))


@pytest.mark.parametrize(("name", "trials"), LEARNERS.items())
def test_learning_helps(name: str, trials: int) -> None:
    share = 0.5 if trials == 30 else 0.8
    assert np.mean([best(name, seed, trials) for seed in range(2)]) <= share * drawn(trials)


def test_a_prior_chooses_the_start() -> None:
    study = optuna.create_study(sampler=sampler("auto", 0, LARGE, prior=lambda point: -cost(point)))
    study.optimize(lambda trial: cost(ask(trial, LARGE)), n_trials=4)
    chosen = [trial.value for trial in study.trials[1::2]]  # uniform points are in turn
    assert max(chosen) < drawn(6)


def test_uniform_points_are_given_up_where_they_are_bad() -> None:
    space = {f"d{i}": CategoricalDistribution(list("abcdefghi")) for i in range(6)}

    def objective(trial: optuna.Trial) -> float:
        return -float(len(set(ask(trial, space).values())))  # the same everywhere is worst

    study = optuna.create_study(sampler=sampler("auto", 0, space))
    study.optimize(objective, n_trials=25)
    uniform = [trial for trial in study.trials if len(set(trial.params.values())) == 1]
    assert len(uniform) <= 3
    assert study.best_value <= -5


def test_policy_gradients_are_torchs() -> None:
    domain = Domain.of(
        {"a": CategoricalDistribution("xyz"), "n": IntDistribution(1, 100), "x": FloatDistribution(0, 1)}
    )
    rng = np.random.default_rng(0)
    policy = Policy(domain)
    policy.logits = rng.normal(size=policy.logits.shape)
    points = domain.draw(rng, 6)
    points[2, 1] = np.nan
    actions, weights = policy.actions(points), rng.normal(size=(6, 3))
    logits = torch.tensor(policy.logits, requires_grad=True)
    logs = torch.cat([part.log_softmax(0) for part in logits.split(policy.counts.tolist())])
    asked = torch.tensor(actions >= 0)
    (torch.tensor(weights) * logs[torch.tensor(actions).clamp(0)] * asked).sum().backward()
    assert policy.slope(actions, weights, policy.probabilities()) == pytest.approx(logits.grad.numpy())
    logits.grad = None
    logs = torch.cat([part.log_softmax(0) for part in logits.split(policy.counts.tolist())])
    (-(logs.exp() * logs).sum()).backward()
    assert policy.entropy_slope(policy.probabilities()) == pytest.approx(logits.grad.numpy())


@pytest.mark.parametrize("brackets", [1, 2])
def test_halving_spends_more_on_the_better(brackets: int) -> None:
    space = {"x": FloatDistribution(0, 1), "epochs": IntDistribution(1, 27)}
    study = optuna.create_study(sampler=sampler("halving", 0, space, resource="epochs", brackets=brackets))

    def objective(trial: optuna.Trial) -> float:
        point = ask(trial, space)
        return abs(point["x"] - 0.3) + 1 / point["epochs"]

    study.optimize(objective, n_trials=60)
    rungs = {epochs: [t.params["x"] for t in study.trials if t.params["epochs"] == epochs] for epochs in (1, 3, 9, 27)}
    counts = [len(found) for found in rungs.values()]
    assert sum(counts) == 60
    assert counts[0] >= counts[2] >= counts[3] >= 1
    if brackets == 1:
        assert counts[0] > counts[1] > counts[2]
        assert min(rungs[1], key=lambda x: abs(x - 0.3)) in rungs[3]  # the best of the lowest rung was promoted
        assert abs(rungs[27][0] - 0.3) < 0.1


def test_a_grid_is_in_order() -> None:
    space = {"a": CategoricalDistribution("xy"), "n": IntDistribution(1, 3)}
    study = optuna.create_study(sampler=sampler("grid", 0, space))
    study.optimize(lambda trial: cost(ask(trial, space)), n_trials=10)
    assert [tuple(t.params.values()) for t in study.trials] == [(a, n) for a in "xy" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sampler("bayes"), "unknown strategy 'bayes'"),
        (lambda: sampler("evolution", populaton=3), "did you mean 'population'"),
        (lambda: sampler("tpe", n_startup=3), "did you mean 'n_startup_trials'"),
        (lambda: sampler("halving"), "the option 'resource' is missing"),
        (lambda: sampler("halving", 0, LARGE, resource="widht"), "did you mean 'width'"),
        (lambda: sampler("evolution", population=0), "population is a whole number from 1 up, not 0"),
        (lambda: sampler("ppo", rate=-1.0), "rate is a number from 0 up"),
        (lambda: sampler("auto", seed=-1), "a seed is a whole number"),
        (lambda: sampler("grid", 0, {"x": FloatDistribution(0, 1)}), "without steps has no grid"),
    ],
)
def test_errors(call: object, words: str) -> None:
    with pytest.raises(PlanishError, match=words) as caught:
        call()  # type: ignore[operator]
    assert isinstance(caught.value, OptionError | UnknownName)


def test_names() -> None:
    assert {"auto", "hamming", "evolution", "pareto", "local", "halving", "reinforce", "ppo"} < set(strategies)
    assert {"grid", "random", "qmc", "tpe", "gp", "cmaes", "nsga2", "nsga3"} < set(strategies)


def test_public_name() -> None:
    assert planish.automl.sampler is sampler
