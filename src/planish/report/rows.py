"""The measurements of a run, found by what they say rather than by where they stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from planish.record import Measurement, Run
from planish.report.numbers import interval, quantity


@dataclass(frozen=True)
class Row:
    """A measurement and its place among the run's measurements, so that a figure on the page can be traced back."""

    index: int
    m: Measurement

    @property
    def text(self) -> str:
        """The number as it is shown."""
        return quantity(self.m.value, self.m.unit)

    @property
    def interval(self) -> str:
        """The spread as it is shown, or an empty text."""
        return interval(self.m)

    def detail(self, key: str) -> str:
        """A field of the details as text; empty where there is none."""
        value = self.m.details.get(key)
        return "" if value is None else str(value)


class Rows:
    """All rows of a run. A later row replaces an earlier one of the same thing, as in a run that was resumed."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        latest: dict[tuple[str, ...], Row] = {}
        for index, m in enumerate(measurements):
            row = Row(index, m)
            latest[_identity(row)] = row
        self._rows = list(latest.values())

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def all(self, name: str, subject: str | None = None, role: str | None = None) -> list[Row]:
        """The rows of the whole model with this name, and this subject and role where they are given."""
        return [
            row
            for row in self._rows
            if row.m.name == name
            and not row.m.where
            and (subject is None or row.m.subject == subject)
            and (role is None or row.detail("role") == role)
        ]

    def one(self, name: str, subject: str | None = None, role: str | None = None) -> Row | None:
        """The latest such row, or None where it was never measured."""
        return next(reversed(self.all(name, subject, role)), None)


def of_stage(run: Run, stage: str) -> list[Row]:
    """The rows of one stage, in the order in which they were written."""
    return [Row(index, m) for index, m in enumerate(run.measurements()) if m.stage == stage]


def _identity(row: Row) -> tuple[str, ...]:
    m = row.m
    return (
        m.name,
        m.subject,
        m.where,
        *(row.detail(key) for key in ("node", "format", "precision", "engine", "instance", "place")),
    )
