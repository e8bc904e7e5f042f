"""`planish search` and `planish worker`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planish.cli.console import Stopped, console, escape, suggest, table
from planish.cli.job import Data, Engine, Metric, Options, RunDir, Threads, Trust
from planish.errors import OptionError
from planish.record import Run

if TYPE_CHECKING:
    from planish.automl.search import Found
    from planish.automl.study import Search
    from planish.automl.tried import Tried

Several = list[str] | None
FRONT = 8


def search(
    space: Annotated[
        str, typer.Argument(metavar="SPACE", help="A recipe with holes: a TOML file, or file.py:function.")
    ],
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="As for compress [default: the space's].")] = None,
    maximize: Annotated[Several, typer.Option(metavar="NAME", help="Such as accuracy; repeatable.")] = None,
    minimize: Annotated[Several, typer.Option(metavar="NAME", help="Such as bytes, latency, lut; repeatable.")] = None,
    subject_to: Annotated[
        Several, typer.Option("--subject-to", metavar="BOUND", help='Such as "latency < 2 ms"; repeatable.')
    ] = None,
    budget: Annotated[str | None, typer.Option(help='"20min", "200 trials" or both [default: 10min].')] = None,
    strategy: Annotated[str | None, typer.Option(help="See planish strategies [default: auto].")] = None,
    target: Annotated[str | None, typer.Option("--target", metavar="NAME", help="See planish targets.")] = None,
    engine: Engine = None,
    threads: Threads = None,
    options: Options = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A database that other machines join [default: in the run folder]."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
    seeds: Annotated[
        int, typer.Option(min=1, help="Search from so many seeds, each with the budget; the page shows the spread.")
    ] = 1,
    run: RunDir = None,
    data: Data = None,
    metric: Metric = None,
    trust: Trust = False,
    describe: Annotated[bool, typer.Option("--describe", help="Say what there is to decide, and stop.")] = False,
) -> None:
    """Fill the holes of a recipe as well as they can be.

    The same command goes on where an interrupted one stopped. It leaves the recipes of the front in the run folder.

    \b
    planish search bits.toml --model mlp --budget "200 trials"
    planish search bits.toml --model mlp --maximize accuracy --minimize bytes --subject-to "accuracy > 0.95"
    planish search space.py:space --model net.py:net --target fpga --minimize lut --workers 2
    planish search bits.toml --model mlp --budget "60 trials" --seeds 5
    """
    folder = run or Path("runs") / (Path(space.rpartition(":")[2]).stem or "search")
    console.print("loading PyTorch and the model", style="dim")
    from planish.flow import choose_target
    from planish.flow import search as flow
    from planish.report.search import SEEDS

    text, own = flow.read_space(space)
    named = model or own.get("model")
    if not named:
        raise OptionError("no model is named", space, "--model mlp, or [search] with model = in the file")
    request = flow.Request(
        space=text,
        model=named,
        maximize=_all(maximize, own.get("maximize")),
        minimize=_all(minimize, own.get("minimize")),
        subject_to=_all(subject_to, own.get("subject_to")),
        strategy=strategy or own.get("strategy", "auto"),
        seed=seed,
        data=data or own.get("data"),
        metric=metric or own.get("metric"),
        trust=trust,
    )
    built = choose_target(target, engine, threads, None, options or ()) if target else None
    if storage and seeds > 1:
        raise OptionError("a storage keeps one search", "seeds, storage", "one of the two")
    if describe:
        console.print(escape(str(request.make(built).space)), whole=True)
        return
    limit = budget or own.get("budget", "10min")
    with _watching(limit, folder) as watch:
        found = flow.search(request, Run(folder), limit, workers, storage, built, watch)
    for other in range(seed + 1, seed + seeds):
        console.print(f"from seed {other}", style="dim")
        with _watching(limit, folder) as watch:
            again = Run(folder / SEEDS / str(other))
            flow.search(replace(request, seed=other), again, limit, workers, None, built, watch)
    _tell(found, folder, named)


def worker(
    storage: Annotated[str, typer.Option(metavar="URL", help="Where the search keeps its trials.")],
    budget: Annotated[str | None, typer.Option(help="As for search [default: the search's].")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Allow the Python files that the search names.")] = False,
) -> None:
    """Join a search that is under way, from any machine.

    \b
    planish search bits.toml --model mlp --storage postgresql://host/db
    planish worker --storage postgresql://host/db
    """
    console.print("loading PyTorch and the model", style="dim")
    from planish.flow import search as flow

    def told(trial: Tried) -> None:
        values = ", ".join(f"{name} {row.value:.5g}" for name, row in trial.rows.items())
        console.print(f"trial {trial.number} {trial.id} {trial.state} {values}", markup=False)

    flow.work(storage, budget, trust, told)


def _all(given: Sequence[str] | None, own: Any) -> tuple[str, ...]:
    found = given or own or ()
    return (found,) if isinstance(found, str) else tuple(found)


@contextmanager
def _watching(budget: str, folder: Path) -> Iterator[Callable[[Search, Sequence[Tried]], None]]:
    """A live table of how the search stands; a line now and then where there is no terminal."""
    from rich.live import Live

    from planish.automl.budget import Budget

    limit, began, first = Budget.parse(budget), time.monotonic(), [-1]
    shown = console.rich.is_terminal
    with Live(console=console.rich, transient=True, auto_refresh=False) if shown else _nothing() as live:

        def watch(search: Search, trials: Sequence[Tried]) -> None:
            ended = [trial for trial in trials if trial.state in ("complete", "stopped", "failed")]
            if first[0] < 0:
                first[0] = len(ended) - 1
            seconds = time.monotonic() - began
            if live is not None:
                live.update(_standing(search, trials, limit, seconds, len(ended) - first[0]), refresh=True)
            elif ended and len(ended) % 25 == 0:
                console.print(_line(search, trials), whole=True, markup=False)

        try:
            yield watch
        except KeyboardInterrupt as interrupt:
            raise Stopped("Ctrl-C", f"the trials so far are in {folder}", "the same command goes on") from interrupt


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


def _line(search: Search, trials: Sequence[Tried]) -> str:
    from planish.automl.tried import best_first

    front = best_first(trials)
    ended = sum(trial.state in ("complete", "stopped", "failed") for trial in trials)
    best = (
        ", ".join(f"{each.name} {front[0].rows[each.name].value:.5g}" for each in search.objectives) if front else "–"
    )
    return f"{ended} trials, {len(front)} on the front, best {best}"


def _standing(search: Search, trials: Sequence[Tried], budget: Any, seconds: float, done: int) -> Any:
    """The live table: how far, what is best, and the front."""
    from rich.console import Group

    from planish.automl.pareto import hypervolume
    from planish.automl.tried import best_first

    front = best_first(trials)
    states = [trial.state for trial in trials]
    ended = sum(state in ("complete", "stopped", "failed") for state in states)
    complete = [trial.losses for trial in trials if trial.state == "complete"]
    parts = [f"{ended}{f' of {budget.trials}' if budget.trials else ''} trials"]
    parts += [f"{seconds:.0f} s{f' of {budget.seconds:.0f}' if budget.seconds else ''}"]
    if budget.trials and done > 0:
        parts.append(f"{max(budget.trials - ended, 0) * seconds / done:.0f} s to go")
    for state in ("running", "stopped", "failed"):
        if count := states.count(state):
            parts.append(f"{count} {state}")
    if again := sum(trial.same_as is not None for trial in trials):
        parts.append(f"{again} seen before")
    if len(search.objectives) > 1 and complete:
        worst = [max(column) for column in zip(*complete, strict=True)]
        parts.append(f"hypervolume {hypervolume([trial.losses for trial in front], worst):.4g}")
    return Group(" · ".join(parts), _front(search.objectives, front[:FRONT]))


def _front(objectives: Sequence[Any], front: Sequence[Tried]) -> Any:
    from planish.report.numbers import quantity

    rows = [
        [
            str(trial.number),
            trial.id,
            *(quantity(trial.rows[e.name].value, trial.rows[e.name].unit) for e in objectives),
        ]
        for trial in front
    ]
    return table(["trial", "point", *(each.name for each in objectives)], rows, right=range(2, 2 + len(objectives)))


def _tell(found: Found, folder: Path, model: str) -> None:
    from planish.cli.job import finish

    failed = [trial for trial in found.trials if trial.state == "failed" and trial.error]
    if failed:
        last = failed[-1].error.strip().splitlines()[-1]
        console.print(f"{len(failed)} failed; trial {failed[-1].number}: {last}", style="yellow", markup=False)
    finish(Run(folder))
    _ = found.best  # says what came nearest where nothing holds all constraints
    suggest(f"planish compress {model} --recipe {folder / 'front' / (found.front[0].id + '.toml')}")
