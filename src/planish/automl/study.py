"""What is searched, for what, and how: and the study of Optuna's that it becomes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage

from planish.automl.decision import Decision
from planish.automl.objective import Constraint, Objective, Subject, check_together
from planish.automl.relaxed import relaxations, slots
from planish.automl.space import Space
from planish.automl.storage import StorageError, speaking
from planish.automl.strategies import sampler
from planish.errors import OptionError

NAME = "planish"


@dataclass
class Search:
    """What is searched, for what, and how.

    Attributes:
        space: Of points.
        subject: What they need to be made and judged.
        objectives: What counts; the first is what "best" means.
        constraints: What must hold.
        strategy: Name of one (`planish.automl.strategies`, `relaxations`), or a sampler of Optuna's.
        seed: Of the strategy, and with a trial's number of all that is random in it.
        storage: A URL; None keeps trials in memory.
        options: Of the strategy.
    """

    space: Space
    subject: Subject
    objectives: Sequence[Objective]
    constraints: Sequence[Constraint] = ()
    strategy: str | optuna.samplers.BaseSampler = "auto"
    seed: int = 0
    storage: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.objectives:
            raise OptionError("there is nothing to look for", "maximize, minimize", "maximize='accuracy'")
        names = [objective.name for objective in self.objectives]
        if len(set(names)) < len(names):
            raise OptionError(f"an objective is named twice: {', '.join(names)}", "maximize, minimize")
        check_together(self.constraints)
        if self.is_relaxed:
            slots(self.space)  # what does not relax is said now

    @property
    def signs(self) -> list[int]:
        """1 for each objective of which less is better, else -1."""
        return [1 if objective.direction == "minimize" else -1 for objective in self.objectives]

    @property
    def is_relaxed(self) -> bool:
        """Whether the strategy searches a supernet."""
        return isinstance(self.strategy, str) and self.strategy in relaxations

    def to_data(self) -> dict[str, Any]:
        """What makes two searches the same: space, objectives and constraints."""
        return {
            "space": self.space.to_data(),
            "objectives": [[objective.name, objective.direction] for objective in self.objectives],
            "constraints": [constraint.text for constraint in self.constraints],
        }

    def study(self, storage: BaseStorage) -> optuna.Study:
        """Optuna's study of the search in a storage, made or continued.

        Raises:
            StorageError: It belongs to another search; says how they differ.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        given = self.strategy
        if self.is_relaxed:
            given = sampler("random", seed=self.seed, space=distributions(self.space.decisions))
        if isinstance(given, str):
            given = sampler(given, seed=self.seed, space=distributions(self.space.decisions), **self.options)
        with speaking(self.storage), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(
                storage=storage,
                study_name=NAME,
                sampler=given,
                directions=["minimize" if sign > 0 else "maximize" for sign in self.signs],
                load_if_exists=True,
            )
            known = study.user_attrs.get("search")
            if known is None:
                study.set_user_attr("search", self.to_data())
                study.set_metric_names([objective.name for objective in self.objectives])
            elif known != json.loads(json.dumps(self.to_data())):
                raise StorageError(
                    f"the storage is of another search: {_difference(known, self.to_data())}",
                    self.storage or "",
                    "another --run or --storage",
                )
        return study


def distributions(decisions: Sequence[Decision]) -> dict[str, BaseDistribution]:
    """Optuna's words for decisions."""
    return {decision.name: distribution(decision) for decision in decisions}


def distribution(decision: Decision) -> BaseDistribution:
    """Optuna's word for a decision."""
    between = decision.between
    if between is None:
        return CategoricalDistribution(decision.options)
    if between.whole:
        low, high = int(between.low), int(between.high)
        return IntDistribution(low, high, between.log, int(between.step or 1))
    return FloatDistribution(between.low, between.high, between.log, between.step)


def _difference(known: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    for part in ("objectives", "constraints"):
        if known.get(part) != json.loads(json.dumps(now[part])):
            return f"its {part} are {known.get(part)}, not {now[part]}"
    then = {decision["name"]: decision["answers"] for decision in known.get("space", [])}
    here = {decision["name"]: decision["answers"] for decision in now["space"]}
    if gone := [name for name in then if name not in here]:
        return f"it also decides {', '.join(gone[:4])}"
    if new := [name for name in here if name not in then]:
        return f"it does not decide {', '.join(new[:4])}"
    name = next((name for name in here if here[name] != then[name]), "")
    return f"{name} is there one of {then.get(name)}, here of {here.get(name)}" if name else "the order of decisions"
