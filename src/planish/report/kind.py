"""A kind of run folder, as one value: how it is known, and how it is read, drawn and told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from rich.console import RenderableType
from rich.table import Table

from planish.record import Run


class View(Protocol):
    """What a kind of run makes of a folder: its template gets it as `view`."""

    @property
    def sentence(self) -> str:
        """The verdict; it is the page's title."""
        ...

    @property
    def figures(self) -> dict[str, Any]:
        """What the scripts of the page draw, as plain JSON; empty where it has none."""
        ...


V = TypeVar("V", bound=View)


@dataclass(frozen=True)
class Kind(Generic[V]):
    """A kind of run folder.

    Attributes:
        template: Of its page, in `page/`.
        fits: Whether a folder is of this kind.
        read: The folder as its page needs it.
        lines: The same for the terminal, in about ten lines.
    """

    template: str
    fits: Callable[[Run], bool]
    read: Callable[[Run], V]
    lines: Callable[[V], Iterable[RenderableType]]


def stages(run: Run) -> set[str]:
    """The stages that left rows in a folder."""
    return {row.stage for row in run.measurements()}


def environment(run: Run) -> dict[str, Any]:
    """`environment.json`; empty where there is none, or none that can be read."""
    return json_of(run, "environment.json")


def json_of(run: Run, name: str) -> dict[str, Any]:
    """A JSON file of the folder; empty where there is none, or none that can be read."""
    try:
        loaded = json.loads(run.read(name) or "{}")
    except json.JSONDecodeError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


def model_of(run: Run) -> str:
    """What the model was called on the command line, or the folder's name where that cannot be told."""
    words = str(environment(run).get("command", "")).split()
    return words[2] if len(words) > 2 and not words[2].startswith("-") else run.path.resolve().name


def conditions(found: Mapping[str, Any]) -> list[str]:
    """The machine of an environment, in short phrases."""
    cores = found.get("cores")
    said = [f"{cores} core{'s' * (cores != 1)}"] if cores else []
    return ([str(found["cpu"])] if found.get("cpu") else []) + said


def grid(*headings: str, left: Iterable[int] = (0,)) -> Table:
    """A table for the terminal, without lines; columns are numbers but for those that stand `left`."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_header=any(headings))
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place in left else "right", overflow="fold")
    return table
