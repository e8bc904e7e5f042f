"""What every command shares: how it fails, and how it shows that it is working."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planish.errors import PlanishError

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[int, int, str], None]


class Screen:
    """A rich console that is imported when it is first printed to, so that `planish --help` need not wait for it."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    @cached_property
    def rich(self) -> Console:
        """The console itself."""
        from rich.console import Console

        return Console(highlight=False, **self._options)

    def print(self, *objects: Any, style: str | None = None, markup: bool = True, whole: bool = False) -> None:
        """Print anything that rich can; `whole` keeps a line in one piece, so that a path in it can be copied."""
        self.rich.print(*objects, style=style, markup=markup, soft_wrap=whole or None)


console = Screen()
errors = Screen(stderr=True, soft_wrap=True)


def escape(text: str) -> str:
    """A text of somebody else's, which holds no markup."""
    from rich.markup import escape

    return escape(text)


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[int] = (), whole: Any = (0,)
) -> Any:
    """A table of plain texts without lines; columns in `right` are numbers, those in `whole` are not broken."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_header=any(headings))
    for place, heading in enumerate(headings):
        made.add_column(heading, justify="right" if place in right else "left", no_wrap=place in whole)
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def suggest(command: str) -> None:
    """What to type next."""
    console.print(f"\n[dim]{escape(command)}[/]")


class Stopped(PlanishError):
    """The user pressed Ctrl-C."""

    exit_code = 130


def explain(error: Exception) -> int:
    """Print one message for a failure, and return the exit code."""
    if isinstance(error, PlanishError):
        title = "stopped" if isinstance(error, Stopped) else "error"
        errors.print(f"[bold red]{title}:[/] {escape(str(error))}")
        return error.exit_code
    errors.print(f"[bold red]this is a bug in planish:[/] {escape(f'{type(error).__name__}: {error}')}")
    errors.print("  try:   the same command with --debug, and report its traceback")
    return 1


@contextmanager
def working(run: Path) -> Iterator[Progress]:
    """A bar that shows what is being done, how far it is, and how long it will take.

    Raises:
        Stopped: On Ctrl-C; says where the measurements made so far are.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    shown = console.rich.is_terminal  # a log would keep an empty line of it
    with Bar(*columns, console=console.rich, transient=True, disable=not shown) as bar:
        task = bar.add_task("starting", total=None)

        def progress(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total or None, description=escape(what))

        try:
            yield progress
        except KeyboardInterrupt as interrupt:
            hint = "the same command goes on from there" if run.exists() else ""
            raise Stopped(
                "Ctrl-C", f"what was measured is in {run}" if run.exists() else "nothing was written", hint
            ) from interrupt
