"""Figures over epochs or rounds, as `page/charts.js` draws them: plain JSON, each number with its text and its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planish.report.rows import Row


@dataclass(frozen=True)
class Chart:
    """One figure.

    Attributes:
        id: Of its element on the page.
        across: The detail that says where a row stands ("epoch", "round").
        lines: Rows by the name of their line.
        bars: Draw bars, from zero.
    """

    id: str
    across: str
    lines: Mapping[str, Sequence[Row]]
    bars: bool = False

    @property
    def data(self) -> dict[str, Any]:
        """The figure for its script."""
        rows = [row for line in self.lines.values() for row in line]
        return {
            "id": self.id,
            "across": self.across,
            "unit": rows[0].m.unit if rows else "1",
            "bars": self.bars,
            "lines": [{"name": name, **self._line(line)} for name, line in self.lines.items()],
        }

    def _line(self, rows: Sequence[Row]) -> dict[str, list[Any]]:
        return {
            "x": [row.m.details.get(self.across) for row in rows],
            "y": [row.m.value for row in rows],
            "texts": [row.text + (f" ({row.interval})" if row.interval else "") for row in rows],
            "spread": [row.m.spread for row in rows],
            "rows": [row.index for row in rows],
        }


def trend(rows: Sequence[Row], noun: str, across: str) -> str:
    """What a figure shows in a sentence: `Loss falls from 0.0187 after epoch 1 to 0.0137 after epoch 3.`"""
    if not rows:
        return ""
    first, last = rows[0].m.value, rows[-1].m.value
    at = rows[0].m.details.get(across)
    if len(rows) == 1:
        return f"{noun} is {rows[0].text} after {across} {at}."
    verb = "falls" if last < first else "rises" if last > first else "stays"
    return (
        f"{noun} {verb} from {rows[0].text} after {across} {at} to {rows[-1].text} after {across} "
        f"{rows[-1].m.details.get(across)}."
    )
