"""One process at work on a search: asks for points, makes and judges them, and keeps what comes out."""

from __future__ import annotations

import json
import math
import random
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import torch
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from planish.automl.budget import Budget
from planish.automl.decision import Decision
from planish.automl.filling import Filled
from planish.automl.objective import JUDGED, Made, Objective
from planish.automl.pareto import dominates
from planish.automl.storage import RELEASED, WORKER, beating, claim, orphans, reap, speaking
from planish.automl.study import Search
from planish.automl.tried import ATTRIBUTE, Tried, plain_row, tried
from planish.errors import EngineError, OptionError
from planish.holes import Label
from planish.record import Measurement

FAILURES = 10
"""So many trials that fail from the beginning end a search."""
PART = 0.25
"""Share of the validation data that tells whether the rest is worth judging."""
ENDED = (TrialState.COMPLETE,)
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class Interrupted(BaseException):
    """Somebody stopped the search; the trial under way stays as it is, and the next run goes on with it."""


class Worker:
    """One process that does trials of a search.

    Args:
        search: What to do.
        study: Where.
        storage: Of the study.
    """

    def __init__(self, search: Search, study: optuna.Study, storage: BaseStorage) -> None:
        self.search, self.study, self.storage = search, study, storage
        self._stages = sorted({each.level for each in (*search.objectives, *self._bounds)})
        self._known: dict[str, int] = {}
        self._read = 0

    @property
    def _bounds(self) -> list[Objective]:
        return [constraint.objective for constraint in self.search.constraints]

    def work(self, budget: Budget, watch: Callable[[Tried], None] | None = None, adopt: bool = False) -> None:
        """Do trials until the budget is spent, or all points have been tried.

        Args:
            budget: Of trials of the whole study, and of seconds from now.
            watch: Told each trial that has ended.
            adopt: Begin with the trials of processes of this machine that are gone.

        Raises:
            EngineError: All of the first trials failed; says how.
            StorageError: The storage is gone or locked.
        """
        began = time.monotonic()

        def after(study: optuna.Study, trial: FrozenTrial) -> None:
            if watch:
                watch(tried(trial, self.search.signs))
            self._check_failures()
            reap(study)
            if self._is_over(budget, time.monotonic() - began):
                study.stop()

        with speaking(self.search.storage), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            for trial in orphans(self.study) if adopt else []:
                self._take_up(trial)
            if not self._is_over(budget, 0.0):
                self.study.optimize(self._judged, timeout=budget.seconds, catch=(Exception,), callbacks=[after])

    def _take_up(self, trial: Trial) -> None:
        """Do the trial of a process that is gone, under its own number."""
        with beating(self.storage, trial):
            try:
                values, state = self._judged(trial), TrialState.COMPLETE
            except optuna.TrialPruned:
                values, state = None, TrialState.PRUNED
            except Exception:  # as `optimize` takes it
                values, state = None, TrialState.FAIL
        self.study.tell(trial, values, state)

    def _is_over(self, budget: Budget, seconds: float) -> bool:
        if budget.seconds is not None and seconds >= budget.seconds:
            return True
        if budget.trials is None:
            return False
        trials = self.study.get_trials(deepcopy=False)
        return sum(trial.state in FINISHED and not _was_taken_up(trial) for trial in trials) >= budget.trials

    def _judged(self, trial: Trial) -> list[float]:
        """The objectives of one trial; whatever happens is kept with it."""
        kept: dict[str, Any] = {}
        claim(self.storage, trial)
        try:
            return self._values(trial, kept)
        except KeyboardInterrupt as error:
            kept.clear()
            trial.set_user_attr(WORKER, RELEASED)
            raise Interrupted from error
        except optuna.TrialPruned:
            raise
        except Exception as error:  # of the user's metric, of an engine, of a pass: the search goes on
            kept["error"] = "".join(traceback.format_exception(error))
            kept["message"] = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise
        finally:
            if kept:
                trial.set_user_attr(ATTRIBUTE, kept)

    def _values(self, trial: Trial, kept: dict[str, Any]) -> list[float]:
        search = self.search
        _reseed(search.seed, trial.number)
        filled = search.space.made(lambda decision: _suggested(trial, decision))
        kept |= {"point": filled.point, "id": filled.id, "key": _key(filled)}
        earlier = self._earlier(kept["key"])
        if earlier is not None:
            before = earlier.user_attrs[ATTRIBUTE]
            kept |= {"same_as": earlier.number, "rows": before["rows"], "violations": before["violations"]}
            self._constrain(trial, before["violations"])
            if earlier.state == TrialState.PRUNED:
                raise optuna.TrialPruned
            return list(earlier.values)
        made = Made(filled, search.subject)
        rows: dict[str, Measurement] = {}
        violations: dict[str, float] = {}
        kept |= {"rows": {}, "violations": violations}
        for stage in self._stages:
            if stage == JUDGED and self._is_hopeless(made, rows):
                self._constrain(trial, violations)
                raise optuna.TrialPruned
            for objective in (*search.objectives, *self._bounds):
                if objective.level == stage and objective.name not in rows:
                    rows[objective.name] = row = _number(objective.measure(made), objective.name)
                    kept["rows"][objective.name] = plain_row(row)
            for constraint in search.constraints:
                if constraint.objective.level == stage:
                    violations[constraint.text] = constraint.violation(rows[constraint.objective.name].value)
            if any(value > 0 for value in violations.values()) and stage != self._stages[-1]:
                self._constrain(trial, violations)
                raise optuna.TrialPruned  # what is dearer is not asked of a point that may not be
        self._constrain(trial, violations)
        return [rows[objective.name].value for objective in search.objectives]

    def _is_hopeless(self, made: Made, rows: Mapping[str, Measurement]) -> bool:
        """Whether a part of the validation data tells that a trial before is better in everything.

        Of a metric's 95 % interval on the part the better end counts. Only where every objective is known by then.
        """
        objectives = self.search.objectives
        asked = [objective for objective in objectives if objective.name not in rows]
        if not asked or not all(each.by_items for each in asked) or (part := made.partly(PART)) is None:
            return False
        done = [tried(trial, self.search.signs) for trial in self.study.get_trials(deepcopy=False, states=ENDED)]
        rivals = [trial.losses for trial in done if trial.is_feasible]
        known = [None if each in asked else each.loss(rows[each.name].value) for each in objectives]
        if not any(all(k is None or r <= k for r, k in zip(rival, known, strict=True)) for rival in rivals):
            return False  # nothing could dominate it: the part would be judged for nothing
        hoped = [
            each.at_best(each.measure(part)) if loss is None else loss
            for each, loss in zip(objectives, known, strict=True)
        ]
        return any(dominates(rival, hoped) for rival in rivals)

    def _constrain(self, trial: Trial, violations: Mapping[str, float]) -> None:
        for constraint in self.search.constraints:
            # what was not measured is told as missed: a sampler needs a number for each
            trial.set_constraint(constraint.text, violations.get(constraint.text, 1.0))

    def _earlier(self, key: str) -> FrozenTrial | None:
        """The first ended trial of an equal recipe."""
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        if len(trials) != self._read:
            self._known = {}
            for place, trial in enumerate(trials):
                known = trial.user_attrs.get(ATTRIBUTE, {}).get("key")
                if known:
                    self._known.setdefault(known, place)
            self._read = len(trials)
        return trials[self._known[key]] if key in self._known else None

    def _check_failures(self) -> None:
        trials = self.study.get_trials(deepcopy=False)
        if len(trials) < FAILURES or any(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials):
            return
        last = next((t for t in reversed(trials) if t.user_attrs.get(ATTRIBUTE, {}).get("message")), None)
        if last is not None and sum(trial.state == TrialState.FAIL for trial in trials) >= FAILURES:
            raise EngineError(
                f"each of the first {FAILURES} trials failed: {last.user_attrs[ATTRIBUTE]['message']}",
                f"trial {last.number}",
                "the traceback is with the trial; mend the metric or the space, and run again in a new folder",
            )


def _was_taken_up(trial: FrozenTrial) -> bool:
    """Whether it failed with its worker, and another trial does its point."""
    return trial.state == TrialState.FAIL and ATTRIBUTE not in trial.user_attrs


def _suggested(trial: Trial, decision: Decision) -> Label:
    between = decision.between
    if between is None:
        return decision.check(trial.suggest_categorical(decision.name, decision.options))  # type: ignore[arg-type]
    if between.whole:
        low, high = int(between.low), int(between.high)
        return trial.suggest_int(decision.name, low, high, step=int(between.step or 1), log=between.log)
    return trial.suggest_float(decision.name, between.low, between.high, step=between.step, log=between.log)


def _reseed(seed: int, number: int) -> None:
    both = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    random.seed(both)
    np.random.seed(both)
    torch.manual_seed(both)


def _number(row: Measurement, name: str) -> Measurement:
    if math.isnan(row.value):
        raise OptionError("it is NaN", name, "a metric gives a number for every model")
    return row


def _key(filled: Filled) -> str:
    data = filled.recipe.to_data()
    return json.dumps(
        [data.get("step"), data.get("target"), [str(answer) for answer in filled.made_by]], sort_keys=True
    )
