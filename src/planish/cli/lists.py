"""`planish models | formats | passes | targets`: what there is to name in a command or a recipe."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection

from planish.cli.console import console, escape


def models() -> None:
    """List the models that have a name, with their data and metric."""
    from planish.models import cards
    from planish.models import models as known

    rows = []
    for name, home in known.table.items():
        card = cards.get(name)
        told = [f"{card.parameters / 1e6:.2f} M", card.family, card.data, card.metric] if card else ["", home, "", ""]
        rows.append([name, *told])
    _print(["model", "parameters", "family", "data", "metric"], rows, right={1})
    _try("planish compress minilm")


def formats() -> None:
    """List the number formats that have a name.

    Any text form works as well.
    """
    from planish.formats import FORMATS, SOURCES

    rows = [[name, str(FORMATS[name]), f"{FORMATS[name].bits}", SOURCES.get(name, "")] for name in FORMATS]
    _print(["format", "text form", "bits", "defined by"], rows, right={2})
    _try('planish.formats.get("int4@g32")')


def passes() -> None:
    """List the passes of a recipe, with their options."""
    from planish.recipe import passes as known

    rows = []
    for name in known:
        kind = known[name]
        options = ", ".join(f"{f.name}={_default(f)}" for f in dataclasses.fields(kind) if f.init)
        rows.append([name, (inspect.getdoc(kind) or "").partition("\n")[0], options])
    _print(["pass", "what it does", "options"], rows)
    _try("planish compress MODEL --recipe recipe.toml, with [[step]] tables: pass = 'quantize', weights = 'int8'")


def targets() -> None:
    """List the targets."""
    from planish.targets import targets as known

    rows = [[name, (inspect.getdoc(known[name]) or "").partition("\n")[0]] for name in known]
    _print(["target", "what it is"], rows)
    _try("planish compress MODEL --target cpu")


def _default(field: dataclasses.Field[object]) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default) if isinstance(field.default, str) else str(field.default)
    return "..." if field.default_factory is dataclasses.MISSING else str(field.default_factory())


def _print(headings: list[str], rows: list[list[str]], right: Collection[int] = ()) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place in right else "left", no_wrap=place == 0)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def _try(command: str) -> None:
    console.print(f"\n[dim]{escape(command)}[/]")
