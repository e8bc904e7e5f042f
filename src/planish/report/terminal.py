"""The same in ten lines: a verdict, a table that fits 80 columns, the path of the page."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planish.record import Run
from planish.report import search
from planish.report.hardware import Hardware
from planish.report.numbers import NONE, quantity
from planish.report.rows import Row
from planish.report.verdict import Tone, Verdict
from planish.report.view import Metric, View, read

_STYLES: dict[Tone, str] = {"better": "bold cyan", "same": "", "worse": "bold yellow", "missing": "dim"}
_METRICS, _FRONT = 3, 8


def summary(run: Run) -> RenderableType:
    """What a run found, as a rich renderable of about ten lines; what was not measured shows as a dash."""
    if (run.path / search.TRIALS).is_file():
        return _search(search.read(run), run)
    view = read(run)
    page = run.path / "report.html"
    tail: list[RenderableType] = [Text(" · ".join(view.conditions), style="dim")] if view.conditions else []
    if view.missing and not view.only_analyzed:
        tail.append(Text(f"not complete: missing {', '.join(view.missing)}", style="yellow"))
    if page.exists():
        tail.append(Text.assemble(("page ", "dim"), str(page), overflow="fold"))
    shown = _design(view, view.hardware) if view.hardware else _table(view)
    return Group(_sentence(view.verdict), shown, *tail)


def _search(view: search.SearchView, run: Run) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for place, heading in enumerate(["point", *view.objectives]):
        table.add_column(heading, justify="right" if place else "left", overflow="fold")
    for trial in view.front[:_FRONT]:
        table.add_row(trial.id, *map(trial.text, view.objectives))
    page = run.path / "report.html"
    tail = [Text.assemble(("page ", "dim"), str(page), overflow="fold")] if page.exists() else []
    return Group(Text(view.sentence, style="bold"), table, *tail)


def _sentence(verdict: Verdict) -> Text:
    return Text.assemble(*((text, _STYLES[tone] if tone else "bold") for text, tone in verdict.parts))


def _table(view: View) -> Table:
    size, latency, _ = view.verdict.changes
    eager = next((engine for engine in view.engines if engine.role == "eager"), None)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("", "original", "best fp32", "kept", "change"):
        table.add_column(heading, justify="left" if heading in ("", "change") else "right", overflow="fold")
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
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("", "original", "kept", "of"):
        table.add_column(heading, justify="left" if not heading else "right", overflow="fold")
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
