"""`planish models | passes | recipes | targets`: what there is to name in a command or a recipe."""

from __future__ import annotations

import dataclasses
import inspect

from planish.cli.console import console, suggest, table


def models() -> None:
    """List the models that have a name, with their data and metric."""
    from planish.models import cards
    from planish.models import models as known

    rows = []
    for name, home in known.table.items():
        card = cards.get(name)
        told = [f"{card.parameters / 1e6:.2f} M", card.family, card.data, card.metric] if card else ["", home, "", ""]
        rows.append([name, *told])
    console.print(table(["model", "parameters", "family", "data", "metric"], rows, right={1}))
    suggest("planish compress minilm")


def passes() -> None:
    """List the passes of a recipe, with their options."""
    from planish.recipe import passes as known

    rows = []
    for name in known:
        kind = known[name]
        options = ", ".join(f"{f.name}={_default(f)}" for f in dataclasses.fields(kind) if f.init)
        rows.append([name, (inspect.getdoc(kind) or "").partition("\n")[0], options])
    console.print(table(["pass", "what it does", "options"], rows))
    suggest("planish compress MODEL --recipe recipe.toml, with [[step]] tables: pass = 'quantize', weights = 'int8'")


def recipes() -> None:
    """List the recipes that come with Planish, and what each was measured to reach."""
    from planish.recipe import Recipe, name_of, ready

    rows = []
    for name in ready():
        recipe = Recipe.ready(name)
        rows.append([name, recipe.about, " → ".join(map(name_of, recipe.steps))])
    console.print(table(["recipe", "what it does", "passes"], rows))
    suggest("planish compress MODEL --recipe w8a8, or --recipe mine.toml; --dry-run says what it would touch")


def strategies() -> None:
    """List the strategies of planish search."""
    from planish.automl.relaxed import relaxations
    from planish.automl.strategies import strategies as known

    rows = [
        [name, kind, (inspect.getdoc(table_[name]) or "").partition("\n")[0]]
        for kind, table_ in (("tries points", known), ("shares weights", relaxations))
        for name in table_
    ]
    console.print(table(["strategy", "kind", "what it does"], rows))
    suggest("planish search SPACE --model MODEL --strategy auto")


def targets() -> None:
    """List the targets."""
    from planish.targets import targets as known

    rows = [[name, (inspect.getdoc(known[name]) or "").partition("\n")[0]] for name in known]
    console.print(table(["target", "what it is"], rows))
    suggest("planish compress MODEL --target cpu")


def _default(field: dataclasses.Field[object]) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default) if isinstance(field.default, str) else str(field.default)
    return "..." if field.default_factory is dataclasses.MISSING else str(field.default_factory())
