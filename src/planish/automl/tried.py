"""Trials as they are read afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from planish.automl.decision import Point
from planish.automl.pareto import front
from planish.record import Measurement

ATTRIBUTE = "planish"
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class Tried:
    """One trial.

    Attributes:
        number: In the order in which they began.
        state: "complete", "stopped" (it could not become one of the best), "failed", "running" or "waiting".
        point: What was decided.
        id: Short name of the point.
        losses: One for each objective, less is better; none unless complete.
        rows: What was measured, by the names of objectives and bounds.
        violations: By how much each constraint is missed, as a share of its limit; 0 or less where it holds.
        began: Unix time, s.
        seconds: How long it took.
        worker: The process that did it.
        same_as: Number of an earlier trial of an equal recipe, whose numbers these are.
        error: Of a failed trial: kind, message and traceback.
    """

    number: int
    state: str
    point: Point = field(default_factory=dict)
    id: str = ""
    losses: tuple[float, ...] = ()
    rows: Mapping[str, Measurement] = field(default_factory=dict)
    violations: Mapping[str, float] = field(default_factory=dict)
    began: float = 0.0
    seconds: float = 0.0
    worker: str = ""
    same_as: int | None = None
    error: str = ""

    @property
    def is_feasible(self) -> bool:
        """Whether it is complete and holds all constraints."""
        return self.state == "complete" and all(value <= 0 for value in self.violations.values())

    @property
    def missed(self) -> float:
        """How far it is from holding all constraints."""
        return sum(max(value, 0.0) for value in self.violations.values())

    def to_data(self) -> dict[str, Any]:
        """As one line of `trials.jsonl`; what is empty is left out."""
        data = {**asdict(self), "rows": {name: plain_row(row) for name, row in self.rows.items()}}
        return {key: value for key, value in data.items() if value not in (None, "", (), {}, [])}


def tried(trial: FrozenTrial, signs: Sequence[int]) -> Tried:
    """A trial of a study.

    Args:
        trial: As Optuna has it.
        signs: For each objective 1 if less is better, else -1.
    """
    kept = trial.user_attrs.get(ATTRIBUTE, {})
    began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    values = trial.values or ()
    return Tried(
        number=trial.number,
        state=STATES[trial.state],
        point=kept.get("point", {}),
        id=kept.get("id", ""),
        losses=tuple(sign * value for sign, value in zip(signs, values, strict=False)),
        rows={name: Measurement(**_tupled(row)) for name, row in kept.get("rows", {}).items()},
        violations=kept.get("violations", {}),
        began=began,
        seconds=trial.duration.total_seconds() if trial.duration else 0.0,
        worker=trial.user_attrs.get("worker", "").rpartition(":")[0],
        same_as=kept.get("same_as"),
        error=kept.get("error", ""),
    )


def best_first(trials: Sequence[Tried]) -> list[Tried]:
    """The feasible trials that no other dominates, best in the first objective first."""
    fit = [trial for trial in trials if trial.is_feasible]
    return sorted((fit[place] for place in front([trial.losses for trial in fit])), key=lambda trial: trial.losses)


def nearest(trials: Sequence[Tried]) -> Tried | None:
    """The trial that misses the constraints by least; None if none was judged by them."""
    judged = [trial for trial in trials if trial.violations and trial.state in ("complete", "stopped")]
    return min(judged, key=lambda trial: (trial.missed, trial.losses), default=None)


def plain_row(row: Measurement) -> dict[str, Any]:
    """A measurement as JSON can hold it; what is empty is left out."""
    return {key: value for key, value in asdict(row).items() if value not in (None, "", {})}


def _tupled(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "spread": tuple(row["spread"])} if row.get("spread") else dict(row)
