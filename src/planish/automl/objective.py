"""What a search looks for: objectives and constraints, by name.

    "accuracy", "mean_cosine", …   a metric, or the task's own ("quality"): of the compressed graph, on validation data
    "bytes", "bits", "macs", "parameters"   of the weights and of a call, exact
    "lut", "dsp", "bram", "interval", …     what the target's cost model says ("estimate:NAME" asks it explicitly)
    "latency", …                            what the artifact measures once it is built

A constraint is an objective with a bound: "latency < 2 ms", "bytes <= 1 MB", "accuracy >= 0.95", "lut < 2500".
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from planish import metrics
from planish.analysis import analyze, weights
from planish.automl.filling import Filled
from planish.automl.shared import Shared
from planish.errors import DataError, OptionError
from planish.graph import Data, Graph
from planish.holes import Template
from planish.models.task import Task
from planish.record import Measurement
from planish.targets import Artifact, Target, targets

Direction = Literal["maximize", "minimize"]
Judge = Callable[..., Any]
COUNTED, COMPRESSED, JUDGED, BUILT = range(4)
"""How dear an objective is: known from the plan, from the compressed graph, after judging, or after building."""
FEW = 8
"""Items of validation data below which nothing is judged on a part of them."""
PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9, "Ki": 2**10, "Mi": 2**20}
UNITS = ("B", "s", "J", "Hz", "MAC", "W", "")


@dataclass(frozen=True)
class Subject:
    """What is searched, beside the space: all that a point needs to be made and judged.

    Attributes:
        calibration: For passes that look at activations.
        training: For passes that learn; the calibration data if None.
        validation: `(args, kwargs, target)` that quality is judged on.
        metric: The task's own metrics, which "quality" and their names stand for.
        target: What points are built for where the recipe does not say.
        task: Whose metrics and model these are; None where there is only a graph.
    """

    calibration: Data | None = None
    training: Data | None = None
    validation: Data = ()
    target: Target | None = None
    task: Task | None = None
    shared: Shared | None = None


class Made:
    """One point, made as far as somebody asks.

    Args:
        filled: The point.
        subject: What it needs.
    """

    def __init__(self, filled: Filled, subject: Subject) -> None:
        self.filled, self.subject = filled, subject

    @cached_property
    def draft(self) -> Graph:
        """The graph as it will look, values aside; the compressed one if that is known."""
        if "small" in self.__dict__:
            return self.small
        graph = self.filled.graph
        for step in self.filled.recipe.steps:
            graph = step.draft(graph)
        return graph

    @cached_property
    def small(self) -> Graph:
        """The compressed graph."""
        recipe, subject = self.filled.recipe, self.subject
        if not recipe.steps:
            return self.filled.graph
        kept = subject.shared.prefixes(self.filled) if subject.shared else None
        return recipe(self.filled.graph, subject.calibration, None, kept, subject.training)

    @property
    def target(self) -> Target:
        """What it is built for."""
        own = self.filled.recipe.target
        assert not isinstance(own, Template), "what is filled has no holes"
        return own or self.subject.target or targets["cpu"]()

    @cached_property
    def estimate(self) -> Mapping[str, Measurement]:
        """What the target's cost model says of the whole."""
        rows = self.target.estimate(self.small)
        return {row.name: row for row in reversed(rows) if not row.where}

    @cached_property
    def artifact(self) -> Artifact:
        """Built."""
        return self.target.build(self.small, data=self.subject.calibration or None)

    @cached_property
    def built(self) -> Mapping[str, Measurement]:
        """What the artifact measured of itself as a whole."""
        rows = self.artifact.measurements
        return {row.name: row for row in reversed(rows) if not row.where and row.subject in ("", "chosen")}

    def partly(self, share: float) -> Made | None:
        """The same point with the first items of the validation data only; None where these are too few to be cut."""
        items = list(self.subject.validation)
        if len(items) < FEW:
            return None
        part = Made(self.filled, replace(self.subject, validation=items[: max(round(len(items) * share), 1)]))
        part.__dict__["small"] = self.small
        return part

    def judged(self, judge: Judge) -> Measurement:
        """A metric's verdict on the compressed graph."""
        model: Any = self.small
        if self.subject.shared is not None:
            model = self.subject.shared.runnable(self.small)
        data = self.subject.validation
        row = judge(model) if len(inspect.signature(judge).parameters) == 1 else judge(model, data)
        if isinstance(row, Measurement):
            return row
        return Measurement(getattr(judge, "__name__", "metric"), float(row), "1", "measured")


@dataclass(frozen=True)
class Objective:
    """One thing that counts.

    Attributes:
        name: Of the measurement.
        direction: Whether more is better.
        level: How dear it is.
        measure: Gives the measurement of a point.
        by_items: Whether it can be judged on a part of the validation data.
    """

    name: str
    direction: Direction
    level: int
    measure: Callable[[Made], Measurement]
    by_items: bool = False

    def at_best(self, row: Measurement) -> float:
        """The best loss that a measurement with its spread leaves possible."""
        return min(map(self.loss, row.spread or (row.value,)))

    def loss(self, value: float) -> float:
        """The value with its sign such that less is better."""
        return -value if self.direction == "maximize" else value


@dataclass(frozen=True)
class Constraint:
    """A bound on something.

    Attributes:
        text: As it was given.
        objective: What is bounded.
        limit: In the unit of the measurement.
        upper: Whether the limit is the most.
    """

    text: str
    objective: Objective
    limit: float
    upper: bool

    def violation(self, value: float) -> float:
        """By how much the value misses the limit, as a share of it; 0 or less where it holds."""
        over = value - self.limit if self.upper else self.limit - value
        return over / (abs(self.limit) or 1.0)


def objective(given: str | Judge, direction: Direction, subject: Subject) -> Objective:
    """An objective by its name, or by a function of the model and the validation data (or of the model alone).

    Raises:
        OptionError: There is nothing of that name.
        DataError: A metric has no data to be judged on.
    """
    if callable(given):
        if len(inspect.signature(given).parameters) > 1:
            _need_data(subject, getattr(given, "__name__", "metric"))
        parts = len(inspect.signature(given).parameters) > 1
        name = getattr(given, "__name__", "metric")
        return Objective(name, direction, JUDGED, lambda made: made.judged(given), parts)
    if given in COUNTS:
        return Objective(given, direction, COUNTED, COUNTS[given])
    own = subject.task.metrics if subject.task else ()
    if given == "quality" and own:
        return Objective(given, direction, JUDGED, _headline)
    if given in metrics.metrics:
        _need_data(subject, given)
        return Objective(given, direction, JUDGED, lambda made: made.judged(_with_reference(given, made)), True)
    kind, _, name = given.rpartition(":")
    if kind == "estimate" or (not kind and name in ESTIMATED):
        return Objective(given, direction, COMPRESSED, lambda made: _row(made.estimate, name, "the cost model"))
    if kind == "built" or (not kind and name in MEASURED):
        return Objective(given, direction, BUILT, lambda made: _row(made.built, name, "the artifact"))
    known = [*COUNTS, *metrics.metrics, *ESTIMATED, *MEASURED]
    raise OptionError(f"unknown objective {given!r}", direction, f"known: {', '.join(known)}, estimate:…, built:…")


def constraint(text: str, subject: Subject) -> Constraint:
    """A constraint of its text, such as "latency < 2 ms".

    Raises:
        OptionError: It cannot be read.
    """
    matched = re.fullmatch(r"\s*([\w:.-]+)\s*(<=|>=|<|>)\s*([-+.\deE]+)\s*(%|[a-zA-Zµ]*)\s*", text)
    if matched is None:
        raise OptionError(f"cannot read the constraint {text!r}", "subject_to", "'latency < 2 ms' or 'bytes < 1 MB'")
    name, sign, number, unit = matched.groups()
    upper = sign.startswith("<")
    try:
        limit = float(number) * _factor(unit)
    except (ValueError, KeyError) as error:
        raise OptionError(f"cannot read {number} {unit}", f"subject_to, {text}", "2 ms, 1 MB, 0.95, 90 %") from error
    return Constraint(text, objective(name, "minimize" if upper else "maximize", subject), limit, upper)


def check_together(constraints: Sequence[Constraint]) -> None:
    """Complain about bounds that no point can meet.

    Raises:
        OptionError: Names the two.
    """
    for low in (each for each in constraints if not each.upper):
        for high in (each for each in constraints if each.upper and each.objective.name == low.objective.name):
            if high.limit < low.limit:
                raise OptionError(f"{low.text!r} and {high.text!r} contradict each other", "subject_to")


def _factor(unit: str) -> float:
    if unit == "%":
        return 0.01
    for name in UNITS:
        if unit.endswith(name) and unit[: len(unit) - len(name)] in PREFIXES:
            return PREFIXES[unit[: len(unit) - len(name)]]
    raise KeyError(unit)


def _need_data(subject: Subject, name: str) -> None:
    if isinstance(subject.validation, Sequence) and not subject.validation:
        raise DataError(
            f"there is no data to judge {name} on", "validation", "validation=[(args, kwargs, target), ...]"
        )


def _with_reference(name: str, made: Made) -> Judge:
    metric = metrics.get(name)
    if name not in metrics.FIDELITY:
        return metric
    reference = made.filled.graph
    return lambda model, data: metric(model, metrics.with_reference(reference, data))


def _headline(made: Made) -> Measurement:
    subject = made.subject
    assert subject.task is not None
    model = subject.shared.runnable(made.small) if subject.shared else made.small
    return subject.task.judge(model, on="validation")[0]


def _row(rows: Mapping[str, Measurement], name: str, who: str) -> Measurement:
    if name not in rows:
        raise OptionError(
            f"{who} says nothing of {name!r}", "objective", f"it says: {', '.join(sorted(rows)) or 'nothing'}"
        )
    return rows[name]


def _bytes(made: Made) -> Measurement:
    return Measurement("bytes", sum(weight.nbytes for weight in weights(made.draft)), "B", "exact")


def _bits(made: Made) -> Measurement:
    found = weights(made.draft)
    total = sum(math.prod(weight.shape) for weight in found)
    return Measurement("bits", 8 * sum(weight.nbytes for weight in found) / max(total, 1), "bit", "exact")


def _macs(made: Made) -> Measurement:
    return Measurement("macs", analyze(made.draft).total.macs, "MAC", "exact")


def _parameters(made: Made) -> Measurement:
    total = sum(math.prod(weight.shape) for weight in weights(made.draft))
    return Measurement("parameters", total, "1", "exact")


COUNTS: Mapping[str, Callable[[Made], Measurement]] = {
    "bytes": _bytes,
    "bits": _bits,
    "macs": _macs,
    "parameters": _parameters,
}
ESTIMATED = ("lut", "lut4", "ff", "dsp", "bram", "interval", "throughput", "energy", "roofline_time")
MEASURED = ("latency", "peak_memory", "clock", "latency cycles")
