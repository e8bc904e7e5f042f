"""What every strategy of our own shares: Optuna's side of it.

A strategy is a `Proposer` with one method, `propose`. It sees the trials before as numbers to minimize, and answers
with a point. All else is here: which decisions there are, what was proposed before, and randomness that depends on
nothing but the seed and the trial's number, so that a study that is stopped and continued is the one that was not.
"""

from __future__ import annotations

import contextlib
import json
import logging
import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from planish.automl.strategies.domain import Axis, Domain, Points
from planish.automl.strategies.history import History, losses

PROPOSAL = "planish:proposal"  # of a trial's system attributes: what it will ask for, and by whom
Row: TypeAlias = tuple[Points, list[float], float, str]
log = logging.getLogger(__name__)


class Proposer(BaseSampler):
    """A sampler that proposes whole points, and none of them twice.

    A point is a past one if it agrees with everything that a trial asked for: a decision that conditions switched off
    does not count. Points of running trials (of any worker) and of failed ones are past, too. After the last point of a
    countable space the study is stopped.

    Args:
        seed: With the number of a trial, decides everything that is random about it.
        space: All decisions. None learns them from the trials of the study, so that its first is random.
    """

    def __init__(self, seed: int = 0, space: Mapping[str, BaseDistribution] | None = None) -> None:
        self.seed = seed
        self.space = space
        self._read: dict[Domain, dict[Any, Row]] = {}  # of finished trials, which do not change

    @abstractmethod
    def propose(self, history: History, domain: Domain, rng: np.random.Generator) -> Points:
        """The next point, `(decisions,)`; NaN is filled in, and if it is a past one, one near it is taken.

        Must depend on nothing but its arguments and the options of the strategy.
        """

    def proposal(self, history: History, domain: Domain, rng: np.random.Generator) -> tuple[Points, str]:
        """The next point, and which part of the strategy says so: `History.by` of later trials."""
        return self.propose(history, domain, rng), ""

    @override
    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        space: dict[str, BaseDistribution] = {}
        if self.space is not None:
            space.update(self.space)
        else:
            for past in study.get_trials(deepcopy=False):
                space.update(past.distributions)
        return {name: distribution for name, distribution in space.items() if not distribution.single()}

    @override
    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        domain = domain_of(tuple(search_space.items()))
        past = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        history = self._history(study, past, domain, trial.number)
        rng = np.random.default_rng([self.seed, trial.number])
        point, by = self.proposal(history, domain, rng)
        point = np.where(np.isnan(point), domain.draw(rng, 1)[0], point)  # what conditions may switch on after all
        if history.seen(point[None])[0]:
            point = self._other(point, study, history, domain, rng)
        announce(study, trial, domain.decode(point), by)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        others = self._history(study, [o for o in running if o.number != trial.number], domain, trial.number)
        if others.seen(point[None])[0]:  # a worker chose it at the same moment: whoever sees the other moves
            point = self._other(point, study, history.joined(others), domain, rng)
            announce(study, trial, domain.decode(point), by)
        return domain.decode(point)

    def _other(self, point: Points, study: Study, history: History, domain: Domain, rng: np.random.Generator) -> Points:
        found = unseen(point, history, domain, rng)
        if found is None:
            self._stop(study, "every point of the space has been proposed; this one is proposed again")
        return point if found is None else found

    @override
    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        axis = Axis(param_name, param_distribution)
        rng = np.random.default_rng([self.seed, trial.number, zlib.crc32(param_name.encode())])
        return axis.value(float(axis.draw(rng, 1)[0]))

    @override
    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        space = self.infer_relative_search_space(study, trial)
        if not space or not (domain := domain_of(tuple(space.items()))).size:
            return
        ended = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() or t.number == trial.number]
        history = self._history(study, ended, domain, trial.number)
        probe = domain.draw(np.random.default_rng([self.seed, trial.number]), 64)
        if history.seen(probe).all() and all(history.seen(part).all() for part in domain.every()):
            self._stop(study, "every point of the space has been tried")

    def _history(self, study: Study, trials: Sequence[FrozenTrial], domain: Domain, number: int) -> History:
        kept = self._read.setdefault(domain, {})
        rows = []
        for trial in trials:
            key = trial._trial_id, trial.datetime_start
            row = kept.get(key)
            if row is None:
                row = read(trial, domain, study.directions, ends=trial.number == number)
                if trial.state.is_finished():
                    kept[key] = row
            rows.append(row)
        points = np.array([row[0] for row in rows]).reshape(len(rows), len(domain))
        values = np.array([row[1] for row in rows]).reshape(len(rows), len(study.directions))
        violation, by = np.array([row[2] for row in rows]), [row[3] for row in rows]
        running = np.array([not trial.state.is_finished() for trial in trials], bool)
        asked = ~np.isnan(points).all(1)  # others are of another space, or still ask for nothing
        return History(points, values, violation, running, by, number).only(asked)

    def _stop(self, study: Study, why: str) -> None:
        log.warning(why)
        with contextlib.suppress(RuntimeError):  # `ask` and `tell`: the loop is the caller's
            study.stop()


def read(trial: FrozenTrial, domain: Domain, directions: Sequence[StudyDirection], ends: bool) -> Row:
    """A trial's codes, losses, violation, and who proposed it.

    Args:
        trial: It counts with all that it will ask for if it runs.
        domain: The decisions.
        directions: Of the objectives.
        ends: Whether it has asked for all already, though it is not marked as finished.
    """
    note = json.loads(trial.system_attrs.get(PROPOSAL, "{}"))
    waits = not trial.state.is_finished() and not ends
    point = domain.encode({**note.get("point", {}), **trial.params} if waits else trial.params)
    violation = sum(max(0.0, excess) for excess in trial.constraints.values())
    return point, losses(trial, directions), violation, note.get("by", "")


def announce(study: Study, trial: FrozenTrial, params: Mapping[str, Any], by: str) -> None:
    """Tell other workers what a trial will ask for."""
    study._storage.set_trial_system_attr(trial._trial_id, PROPOSAL, json.dumps({"by": by, "point": params}))


@lru_cache(maxsize=8)
def domain_of(items: tuple[tuple[str, BaseDistribution], ...]) -> Domain:
    """A domain, made once."""
    return Domain.of(dict(items))


def unseen(point: Points, history: History, domain: Domain, rng: np.random.Generator) -> Points | None:
    """A point that was not proposed, as near as it can be found without much work; None if there is none."""
    near = domain.neighbors(point)
    for candidates in (rng.permutation(near), domain.draw(rng, 256)):
        fresh = candidates[~history.seen(candidates)]
        if len(fresh):
            return fresh[0]
    for candidates in domain.every() if domain.size else ():
        fresh = candidates[~history.seen(candidates)]
        if len(fresh):
            return rng.choice(fresh)
    return None
