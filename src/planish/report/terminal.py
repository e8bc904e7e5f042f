"""The same in ten lines: a verdict, a table that fits 80 columns, the path of the page."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from planish.record import Run
from planish.report import step
from planish.report.kinds import kind_of


def summary(run: Run) -> RenderableType:
    """What a run found, as a rich renderable of about ten lines; what was not measured shows as a dash."""
    kind = kind_of(run)
    lines = list(kind.lines(kind.read(run)))
    if kind is not step.KIND and step.KIND.fits(run):
        lines.append(Text(step.read(run).sentence))
    page = run.path / "report.html"
    if page.exists():
        lines.append(Text.assemble(("page ", "dim"), str(page), overflow="fold"))
    return Group(*lines)
