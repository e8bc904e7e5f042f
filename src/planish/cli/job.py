"""`planish demo | analyze | compress | build | bench | report`: the main job and its parts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planish.cli.console import console, escape, working
from planish.record import Run

if TYPE_CHECKING:
    from planish.flow import Job

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A name, directory, hub id, file, or file.py:function.")]
RunDir = Annotated[Path | None, typer.Option("--run", metavar="DIR", help="Run folder [default: runs/MODEL].")]
Trust = Annotated[bool, typer.Option("--trust", help="Allow a .pt2 file, whose loader can run code from it.")]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe", metavar="RECIPE", help="A name (planish recipes), or a TOML or JSON file [default: int8]."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what each pass would touch, and stop.")]
TargetName = Annotated[str, typer.Option("--target", metavar="NAME", help="See planish targets.")]
Engine = Annotated[str | None, typer.Option(metavar="NAME", help="Force one engine [default: the fastest].")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads to build and time for [default: 1].")]
Options = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="An option of the target, for example clock=150MHz; repeatable."),
]
Batch = Annotated[int | None, typer.Option(min=1, help="Rows in a timed call [default: 1].")]
Data = Annotated[str | None, typer.Option("--data", metavar="FILE.PY:FUNCTION", help="Replaces the task's data.")]
Metric = Annotated[str | None, typer.Option("--metric", help="A name or file.py:function; replaces the task's metric.")]


def demo(run: RunDir = None, threads: Threads = None, batch: Batch = None) -> None:
    """Run the main job on a real sentence encoder.

    MiniLM-L6 with its real weights, on real sentences: capture, analyze, quantize, build, measure, judge, report.
    It takes a minute or two.
    """
    console.print("[bold]MiniLM-L6[/], a sentence encoder of 22.6 M parameters, on 500 human-rated sentences")
    compress("minilm", run=run or Path("runs/demo"), threads=threads, batch=batch)


def analyze(
    model: Model,
    run: RunDir = None,
    depth: Annotated[int, typer.Option(min=1, help="Levels of modules to show.")] = 2,
    batch: Batch = None,
    training: Annotated[
        bool, typer.Option("--training", help="A training step instead: both passes, and the memory they need.")
    ] = False,
    trust: Trust = False,
) -> None:
    """Show where the time and the bytes of a model go.

    \b
    planish analyze minilm
    planish analyze my_model.py:make --depth 3
    planish analyze minilm --training --batch 32
    """
    folder = run or _folder(model)
    if training:
        _analyze_training(model, folder, depth, batch, trust)
        return
    with working(folder) as progress:
        progress(0, 0, "loading PyTorch and the model")
        from planish import analysis, flow

        source = flow.resolve(model, trust, batch=batch)
        record = Run(folder)
        job = flow.analyze(record, source, progress)
        table = analysis.analyze(source.graph, job.call.sizes).table(depth, analysis.peaks())
    console.print(table)
    _tell(job)
    write_page(record)
    console.print(f"page {folder / 'report.html'}", style="dim")


def _analyze_training(model: str, folder: Path, depth: int, batch: int | None, trust: bool) -> None:
    with working(folder) as progress:
        progress(0, 0, "loading PyTorch and the model")
        from planish.flow import backward, resolve
        from planish.report.numbers import quantity

        record = Run(folder)
        cost, measured = backward.analyze(record, resolve(model, trust, batch=batch, training=True), progress)
    console.print(cost.table(depth))
    step = cost.trace
    totals = {
        "parameters": step.parameters,
        "batch": step.inputs,
        "gradients": step.gradients,
        "optimizer": step.optimizer,
        "activations kept": cost.activations,
    }
    console.print(", ".join(f"{name} {quantity(size, 'B')}" for name, size in totals.items()), markup=False)
    where = " ".join(filter(None, (step.peak_at[0], cost.paths.get(step.peak_at[1], ""))))
    console.print(
        f"[bold]peak {quantity(step.peak, 'B')} predicted[/] (in {escape(where)}), "
        f"{quantity(measured, 'B')} measured on this CPU ({step.peak / measured - 1:+.1%})"
    )
    if cost.peak_recomputed is not None:
        again = sum(part.forward for path, part in cost.by_path().items() if path in cost.blocks)
        console.print(
            f"each of {len(cost.blocks)} blocks computed again: about {quantity(cost.peak_recomputed, 'B')} "
            f"for {quantity(again, 'FLOP')} more"
        )
    write_page(record)
    console.print(f"page {folder / 'report.html'}", style="dim")


def compress(
    model: Model,
    run: RunDir = None,
    recipe: RecipeName = None,
    target: TargetName = "cpu",
    engine: Engine = None,
    threads: Threads = None,
    batch: Batch = None,
    options: Options = None,
    data: Data = None,
    metric: Metric = None,
    trust: Trust = False,
    dry_run: DryRun = False,
) -> None:
    """Make a model smaller and faster, and prove it.

    It is measured beside the best fp32 engine, and judged on its task's data. The same command goes on where an
    interrupted one stopped.

    \b
    planish compress minilm
    planish compress minilm --recipe w4-g32 --dry-run
    planish compress my_model.py:make --recipe recipe.toml --threads 2 --run runs/mine
    """
    folder = run or _folder(model)
    with working(folder) as progress:
        progress(0, 0, "loading PyTorch and the model")
        from planish import flow

        chosen = flow.read_recipe(recipe)
        built = flow.choose_target(target, engine, threads, batch, options or ())
        source = flow.resolve(model, trust, data, metric, batch)
        planned = str(flow.plan(source, chosen, built)) if dry_run else ""
        job = None if dry_run else flow.compress(Run(folder), source, chosen, built, progress)
    if job is None:
        console.print(escape(planned), whole=True)
    else:
        _tell(job)
        finish(job.run)


def build(
    model: Model,
    run: RunDir = None,
    target: TargetName = "cpu",
    engine: Engine = None,
    threads: Threads = None,
    batch: Batch = None,
    options: Options = None,
    trust: Trust = False,
) -> None:
    """Build a model for a target as it is, without a recipe.

    \b
    planish build resnet18 --engine openvino
    planish build small.planish --threads 2
    planish build digits --target fpga --set device=ecp5-25k --set clock=150MHz
    """
    folder = run or _folder(model)
    with working(folder) as progress:
        progress(0, 0, "loading PyTorch and the model")
        from planish import flow

        built = flow.choose_target(target, engine, threads, batch, options or ())
        source = flow.resolve(model, trust, batch=batch)
        record = Run(folder)
        job = flow.build(record, source, built, progress)
    _tell(job)
    finish(record)


def bench(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with an artifact.")],
    batch: Annotated[int | None, typer.Option(min=1, help="Rows in a timed call [default: as before].")] = None,
) -> None:
    """Race the artifact of a run once more.

    It is timed in turn with all that it was raced against, and started in fresh processes.

    \b
    planish bench runs/demo
    planish bench runs/demo --batch 8
    """
    with working(run) as progress:
        progress(0, 0, "loading the artifact")
        from planish import flow

        record = flow.bench(run, progress, batch)
    finish(record)


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, complete or not.")],
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write the page of a run, and say the same in ten lines.

    \b
    planish report runs/demo --open
    """
    from planish.report import write

    write(run)
    _say(Run(run))
    if open_page:
        typer.launch((run / "report.html").resolve().as_uri())


def _folder(model: str) -> Path:
    """`runs/` and the model's last word: "minilm", "make" of `file.py:make`, "small" of `small.planish`."""
    return Path("runs") / (Path(model.rpartition(":")[2]).stem or "model")


def _tell(job: Job) -> None:
    """What was taken from the folder instead of being done again, and what else there is to know."""
    if job.reused:
        console.print(f"kept from before: {', '.join(job.reused)}", style="dim")
    for note in job.notes:
        console.print(note, style="yellow", markup=False)


def finish(run: Run) -> None:
    """Write the page of a run, and say what was found."""
    write_page(run)
    _say(run)


def write_page(run: Run) -> None:
    """Write the page of a run, or say what it takes to."""
    from planish.errors import MissingExtra
    from planish.report import write

    try:
        write(run.path)
    except MissingExtra as error:
        console.print(f"[yellow]no page:[/] {escape(str(error))}")


def _say(run: Run) -> None:
    from planish.report.terminal import summary

    console.print(summary(run))
