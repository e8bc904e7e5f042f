"""The tests that Optuna publishes for samplers of other people."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase

from planish.automl.strategies import sampler

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Suite(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    name: ClassVar[str]
    options: ClassVar[dict[str, int]] = {}

    test_single_parameter_objective = None  # it asks three options for ten trials, and ours end such a study

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: sampler(self.name, **self.options)


class TestAuto(Suite):
    name = "auto"


@pytest.mark.long
class TestHamming(Suite):
    name = "hamming"


@pytest.mark.long
class TestEvolution(Suite):
    name = "evolution"


@pytest.mark.long
class TestPPO(Suite):
    name = "ppo"


@pytest.mark.long
class TestQuasi(Suite):
    name = "qmc"


@pytest.mark.long
class TestBorrowed(Suite):
    name, options = "tpe", {"n_startup_trials": 0}
