"""A compression, an analysis, a build: the page that `view.py` fills, and its lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from planish.record import Run
from planish.report import federation, plan, step, training
from planish.report.hardware import Hardware
from planish.report.kind import Kind, grid, stages
from planish.report.numbers import NONE, quantity
from planish.report.rows import Row
from planish.report.verdict import STYLES, Verdict
from planish.report.view import Metric, View, read

OTHERS = {training.STAGE, federation.STAGE, plan.STAGE, step.STAGE}
"""Stages of the other kinds: what else has rows is part of this job."""
_METRICS = 3


def fits(run: Run) -> bool:
    """Whether a stage of this job left rows."""
    return bool(stages(run) - OTHERS)


def lines(view: View) -> Iterator[RenderableType]:
    """The verdict, its numbers, what they were measured on and what is missing."""
    yield _sentence(view.verdict)
    yield _design(view, view.hardware) if view.hardware else _table(view)
    if view.conditions:
        yield Text(" · ".join(view.conditions), style="dim")
    if view.missing and not view.only_analyzed:
        yield Text(f"not complete: missing {', '.join(view.missing)}", style="yellow")


def _sentence(verdict: Verdict) -> Text:
    return Text.assemble(*((text, STYLES[tone] if tone else "bold") for text, tone in verdict.parts))


def _table(view: View) -> Table:
    size, latency, _ = view.verdict.changes
    eager = next((engine for engine in view.engines if engine.role == "eager"), None)
    table = grid("", "original", "best fp32", "kept", "change", left=(0, 4))
    plain = next((engine.size for engine in view.engines if engine.role == "baseline"), None)
    table.add_row("size", _text(size.before), _text(plain), _text(size.after), _ratio(size.before, size.after))
    change = f"{quantity(latency.ratio.m.value, 'x')} ({latency.ratio.interval})" if latency.ratio else NONE
    best = latency.before if latency.before and latency.before.detail("role") == "baseline" else None
    table.add_row("latency", _text(eager and eager.latency), _text(best), _text(latency.after), change)
    for metric in view.metrics[:_METRICS]:
        table.add_row(
            metric.label.lower(), _text(metric.original), _text(metric.baseline), _text(metric.chosen), _change(metric)
        )
    return table


def _design(view: View, chip: Hardware) -> Table:
    """Cells, times and quality of a design on an FPGA."""
    table = grid("", "original", "kept", "of")
    for label, used, limit in chip.used:
        table.add_row(label, NONE, _text(used), _text(limit))
    times = {
        "clock": chip.fmax,
        "a sample every": chip.interval,
        "latency": chip.latency,
        "throughput": chip.throughput,
    }
    for label, row in times.items():
        table.add_row(label, NONE, _text(row), NONE)
    for metric in view.metrics[:_METRICS]:
        table.add_row(metric.label.lower(), _text(metric.original), _text(metric.chosen), NONE)
    return table


def _text(row: Row | None) -> str:
    return row.text if row else NONE


def _ratio(before: Row | None, after: Row | None) -> str:
    return quantity(before.m.value / after.m.value, "x") if before and after and after.m.value else NONE


def _change(metric: Metric) -> str:
    if not metric.chosen:
        return NONE
    if not metric.original:
        return f"({metric.chosen.interval})" if metric.chosen.interval else NONE
    return f"{metric.chosen.m.value - metric.original.m.value:+.4f}"


KIND = Kind("page.html", fits, read, lines)
