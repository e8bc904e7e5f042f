"""Optuna's own samplers, each made anew for every trial.

A sampler of Optuna draws from a generator that goes on from trial to trial, and some keep a model between trials: a
study that is stopped and continued is then another one. A sampler that is made for one trial, from the seed and its
number, knows nothing but the study.
"""

from __future__ import annotations

import inspect
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from optuna import samplers
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from planish.errors import MissingExtra, UnknownName

KEPT = 64  # trials that may run at once in one process


class Borrowed(BaseSampler):
    """A sampler of Optuna that depends on nothing but the study, the seed and the trial's number.

    Args:
        make: The sampler of a seed.
        seed: Of the search.
        name: What texts call it.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int, name: str) -> None:
        self.make, self.seed, self.name = make, seed, name
        self._made: OrderedDict[int, BaseSampler] = OrderedDict()

    @override
    def __str__(self) -> str:
        return self.name

    def of(self, trial: FrozenTrial) -> BaseSampler:
        """The sampler of a trial."""
        if trial.number not in self._made:
            words = np.random.SeedSequence([self.seed, trial.number]).generate_state(1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self._made[trial.number] = self.make(int(words[0]) % 2**31)
            while len(self._made) > KEPT:
                self._made.popitem(last=False)
        return self._made[trial.number]

    @override
    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.of(trial).before_trial(study, trial)

    @override
    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.of(trial).infer_relative_search_space(study, trial)

    @override
    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.of(trial).sample_relative(study, trial, search_space)

    @override
    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.of(trial).sample_independent(study, trial, param_name, param_distribution)

    @override
    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.of(trial).after_trial(study, trial, state, values)
        self._made.pop(trial.number, None)


Factory = Callable[..., BaseSampler]


def borrowed(kind: type[BaseSampler], name: str, needs: str = "") -> Factory:
    """A strategy that is one of Optuna's samplers; options are those of its constructor.

    Args:
        kind: The sampler.
        name: Of the strategy.
        needs: A library that Optuna imports for it.
    """
    known = set(inspect.signature(kind.__init__).parameters) - {"self", "seed"}

    def factory(seed: int = 0, space: Mapping[str, BaseDistribution] | None = None, **options: Any) -> BaseSampler:
        if needs and find_spec(needs) is None:
            raise MissingExtra(needs, "search", f"strategy {name!r}")
        for option in options:
            if option not in known:
                raise UnknownName("option", option, known, f"strategy {name!r}")
        return Borrowed(lambda own: kind(**{"seed": own, **options}), seed, f"{name} (Optuna)")

    factory.__doc__ = f"`optuna.samplers.{kind.__name__}`, with its options."
    return factory


tpe = borrowed(samplers.TPESampler, "tpe")
gp = borrowed(samplers.GPSampler, "gp")
cmaes = borrowed(samplers.CmaEsSampler, "cmaes", needs="cmaes")
nsga2 = borrowed(samplers.NSGAIISampler, "nsga2")
nsga3 = borrowed(samplers.NSGAIIISampler, "nsga3")
