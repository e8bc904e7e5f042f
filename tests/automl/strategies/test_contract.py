"""Every registered strategy keeps the contract, and the contract refuses samplers that do not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler

from planish.automl.strategies import sampler, strategies
from planish.automl.strategies.domain import Domain, Points
from planish.automl.strategies.history import History
from planish.automl.strategies.proposer import Proposer
from tests.automl.strategies import contract
from tests.automl.strategies.contract import Make, Space
from tests.support import require

OPTIONS = {
    "gp": {"n_startup_trials": 4},
    "halving": {"resource": "width"},
    "nsga2": {"population_size": 5},
    "nsga3": {"population_size": 5},
    "tpe": {"n_startup_trials": 4},
}
OPTUNA = ("cmaes", "gp", "nsga2", "nsga3", "tpe")  # may repeat points
OURS = sorted(set(strategies) - set(OPTUNA))
SLOW = {"gp": 6}  # trials


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def maker(name: str, resource: str = "width") -> Make:
    if name == "cmaes":
        require("cmaes")
    options = {"resource": resource} if name == "halving" else OPTIONS.get(name, {})
    return lambda seed, space: sampler(name, seed, space, **options)


@pytest.mark.parametrize("name", [n for n in sorted(strategies) if n != "grid"])  # it has an order, tested by itself
def test_continued_is_the_same(name: str) -> None:
    contract.resumes(maker(name), SLOW.get(name, 18))


@pytest.mark.parametrize("name", [n for n in sorted(strategies) if n not in ("cmaes", "grid")])
def test_continued_is_the_same_with_two_objectives(name: str) -> None:
    contract.resumes(maker(name), SLOW.get(name, 18), objectives=2)


@pytest.mark.parametrize("name", [n for n in OURS if n != "halving"])
def test_no_point_twice_and_an_end(name: str) -> None:
    contract.never_repeats(maker(name))


@pytest.mark.parametrize("name", [n for n in OURS if n != "halving"])
def test_conditions(name: str) -> None:
    contract.knows_conditions(maker(name))


@pytest.mark.parametrize("name", [n for n in sorted(strategies) if n != "cmaes"])  # Optuna's refuses constraints
def test_constraints(name: str) -> None:
    contract.heeds_constraints(maker(name), SLOW.get(name, 30))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", [n for n in sorted(strategies) if n != "cmaes"])
def test_objectives(name: str, count: int) -> None:
    contract.takes_objectives(maker(name), count, SLOW.get(name, 25))


@pytest.mark.parametrize("name", OURS)
def test_running_and_failed_trials(name: str) -> None:
    contract.counts_running(maker(name, "c"))


@pytest.mark.parametrize("name", [n for n in sorted(strategies) if n not in ("grid", "halving")])
def test_plain_studies(name: str) -> None:
    contract.serves_plain_studies(maker(name), SLOW.get(name, 15))


def test_workers_that_choose_at_the_same_moment() -> None:
    """Another worker begins and ends its choice while this one makes the same."""

    class Slow(Proposer):
        def propose(self, history: History, domain: Domain, rng: np.random.Generator) -> Points:
            if history.number == 0:
                other.append(study.ask(contract.SMALL))
            return np.zeros(len(domain))

    other: list[optuna.Trial] = []
    study = optuna.create_study(sampler=Slow(0, contract.SMALL))
    trial = study.ask(contract.SMALL)
    assert trial.params != other[0].params


class Forgetful(Proposer):
    """Draws from a generator that goes on from trial to trial."""

    def __init__(self, seed: int, space: Space | None) -> None:
        super().__init__(seed, space)
        self.rng = np.random.default_rng(seed)

    def propose(self, history: History, domain: Domain, rng: np.random.Generator) -> Points:
        return domain.draw(self.rng, 1)[0]


class Stubborn(Proposer):
    """Ignores the seed."""

    def propose(self, history: History, domain: Domain, rng: np.random.Generator) -> Points:
        return domain.draw(np.random.default_rng(history.number), 1)[0]


def repeating(seed: int, space: Space | None) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


@pytest.mark.parametrize(
    ("check", "make"),
    [
        (contract.resumes, Forgetful),
        (contract.resumes, Stubborn),
        (contract.resumes, lambda seed, space: optuna.samplers.TPESampler(seed=seed)),
        (contract.never_repeats, repeating),
        (contract.knows_conditions, repeating),
        (contract.counts_running, repeating),
        (partial(contract.takes_objectives, count=2), lambda seed, space: optuna.samplers.CmaEsSampler(seed=seed)),
    ],
)
def test_contract_refuses_wrong_samplers(check: object, make: Make) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check(make)  # type: ignore[operator]
