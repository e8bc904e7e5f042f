"""Strategies that see a search from outside: they propose points, and are told what these were worth.

Each is an `optuna.samplers.BaseSampler`, for anybody's study. `planish.automl.sampler` makes one by its name.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler

from planish.errors import OptionError, UnknownName
from planish.registry import Registry

__all__ = ["sampler", "strategies"]

_HERE = "planish.automl.strategies"
strategies: Registry = Registry(
    "strategy",
    {
        "auto": f"{_HERE}.portfolio:Portfolio",
        "cmaes": f"{_HERE}.borrowed:cmaes",
        "evolution": f"{_HERE}.evolution:Evolution",
        "gp": f"{_HERE}.borrowed:gp",
        "grid": f"{_HERE}.unlearned:Grid",
        "halving": f"{_HERE}.halving:Halving",
        "hamming": f"{_HERE}.hamming:Hamming",
        "local": f"{_HERE}.local:Local",
        "nsga2": f"{_HERE}.borrowed:nsga2",
        "nsga3": f"{_HERE}.borrowed:nsga3",
        "pareto": f"{_HERE}.evolution:Pareto",
        "ppo": f"{_HERE}.controller:PPO",
        "qmc": f"{_HERE}.unlearned:Quasi",
        "random": f"{_HERE}.unlearned:Random",
        "reinforce": f"{_HERE}.controller:Reinforce",
        "tpe": f"{_HERE}.borrowed:tpe",
    },
)


def sampler(
    name: str, seed: int = 0, space: Mapping[str, BaseDistribution] | None = None, **options: Any
) -> BaseSampler:
    """A strategy, as Optuna takes it: `optuna.create_study(sampler=planish.automl.sampler("auto", seed=0))`.

    A study that is run by one process, stopped anywhere between two trials and continued with a sampler of the same
    name, seed, space and options, proposes what it would have proposed.

    Args:
        name: One of `strategies`.
        seed: With a trial's number, decides everything random about it.
        space: All decisions and their values. None learns them from the study's trials, so that the first is random.
        **options: Of the strategy.

    Raises:
        UnknownName: There is no such strategy, or it has no such option.
        OptionError: An option is not valid, or is missing.
    """
    make = strategies[name]
    if not isinstance(seed, int) or seed < 0:
        raise OptionError(f"a seed is a whole number from 0 up, not {seed!r}", "seed")
    parameters = inspect.signature(make).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        known = set(parameters) - {"seed", "space"}
        for option in options:
            if option not in known:
                raise UnknownName("option", option, known, f"strategy {name!r}")
        for option in known:
            if parameters[option].default is inspect.Parameter.empty and option not in options:
                raise OptionError(f"the option {option!r} is missing", f"strategy {name!r}")
    return make(seed, space, **options)
