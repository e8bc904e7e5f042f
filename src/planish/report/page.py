"""The page: one HTML file that needs nothing else, written into the run folder it tells of."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from planish.errors import MissingExtra, UserError
from planish.record import Run
from planish.report import search, step
from planish.report.kind import environment
from planish.report.kinds import kind_of
from planish.report.numbers import percent, quantity
from planish.report.rows import Row

_MARKS = {"measured": "●", "simulated": "◐", "synthesized": "◆", "modeled": "○", "exact": "■"}


def write(run_path: str | os.PathLike[str]) -> Path:
    """Write `report.html` into a run folder and return its path.

    The folder may be incomplete: the page then says what is missing.

    Raises:
        MissingExtra: plotly or jinja2 is not installed.
        UserError: There is no run at `run_path`, or the page cannot be written.
    """
    folder = Path(run_path)
    if not any((folder / name).is_file() for name in ("measurements.jsonl", search.TRIALS)):
        raise UserError("this is not a run folder: it has no measurements.jsonl", str(run_path), "planish demo")
    run = Run(run_path)
    return run.write("report.html", render(run))


def render(run: Run) -> str:
    """The page of a run as text; where a training step was analyzed in the same folder, with that below."""
    kind = kind_of(run)
    view = kind.read(run)
    also = step.read(run) if kind is not step.KIND and step.KIND.fits(run) else None
    figures = {**view.figures, **(also.figures if also else {})}
    found = environment(run)
    return _laid_out(
        kind.template,
        view=view,
        step=also,
        name=run.path.resolve().name,
        environment=found,
        command=str(found.get("command", "")),
        data=_script_json(figures) if figures else "",
    )


def _laid_out(template: str, **values: Any) -> str:
    for library in ("jinja2", "plotly"):
        if importlib.util.find_spec(library) is None:
            raise MissingExtra(library, "report", "the report page")
    import jinja2
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("planish.report", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(source=_source, marks=_MARKS)
    environment.filters.update(percent=percent, quantity=quantity, title=_title, breakable=_breakable)
    plotly = _packed(get_plotlyjs()) if values["data"] else ""
    return environment.get_template(template).render(plotly=plotly, **values)


def _source(name: str) -> str:
    """A style sheet or a script of ours, as it is."""
    return (files("planish.report") / "page" / name).read_text(encoding="utf-8")


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in, nor start another."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def _packed(script: str) -> str:
    """gzip and base64: a third of plotly.js's size; the page unpacks it with the browser's own DecompressionStream."""
    return base64.b64encode(gzip.compress(script.encode(), 9, mtime=0)).decode()


def _breakable(text: str) -> Any:
    """Text in which a long module path may break after a dot."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[^\W\d]\.)(?=\w)|(?<=\d\.)(?=[^\W\d])", text))


def _title(row: Row, command: str) -> str:
    """What a number says when pointed at: exactly how much, of what, from where, and how to get it again."""
    m = row.m
    spread = f", {'25 to 75 % of calls' if m.name == 'latency' else 'spread'} {row.interval}" if m.spread else ""
    return "\n".join(
        filter(
            None,
            [
                f"{m.value!r} {m.unit}, {m.source}{spread}",
                " · ".join(filter(None, [m.name, m.subject, m.where])),
                command,
            ],
        )
    )
