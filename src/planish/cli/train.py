"""`planish train`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from planish.cli.console import console, suggest, working
from planish.cli.job import Data, Model, RunDir, Trust, finish
from planish.record import Run


def train(
    context: typer.Context,
    model: Model,
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="FILE", help="As planish plan writes it; or auto.")
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Replicas [default: 1]; with --plan auto [default: all].")
    ] = None,
    hardware: Annotated[
        str | None, typer.Option(metavar="NAME", help="What --plan auto plans for [default: this machine].")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the data [default: 3].")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps, instead of epochs.")] = None,
    learning_rate: Annotated[float, typer.Option(help="At the schedule's peak.")] = 1e-3,
    optimizer: Annotated[str, typer.Option(help="adamw or sgd.")] = "adamw",
    schedule: Annotated[str, typer.Option(help="constant, linear, cosine or one-cycle.")] = "cosine",
    weight_decay: Annotated[float, typer.Option(help="Of matrices.")] = 0.01,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows of a step [default: the data's].")] = None,
    loss: Annotated[str, typer.Option(help="cross_entropy or mse.")] = "cross_entropy",
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
    every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 100,
    restarts: Annotated[int, typer.Option(min=0, help="How often processes that die are started again.")] = 3,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on from the last checkpoint of the run folder.")
    ] = True,
    run: RunDir = None,
    data: Data = None,
    trust: Trust = False,
) -> None:
    """Train a model, on one device or as a plan says.

    What comes out does not depend on the plan. A training that was killed goes on where it was, also by another plan.

    \b
    planish train mlp --epochs 20
    planish train mlp --devices 2
    planish train model.py:make --plan plan.toml --run runs/a
    torchrun --nproc-per-node 8 --no-python planish train model.py:make --plan plan.toml
    """
    from planish.flow.train import PLAN, RESULT, folder_of

    folder = run or folder_of(model)
    with working(folder) as progress:
        progress(0, 0, "loading PyTorch and the model")
        from planish import flow
        from planish.flow import train as work
        from planish.training import Training
        from planish.training.parallel import local
        from planish.training.parallel.world import is_first, is_member

        if local.has_failed():
            raise typer.Exit
        options = Training(
            epochs=None if steps else epochs or 3,
            steps=steps,
            learning_rate=learning_rate,
            optimizer=optimizer,
            schedule=schedule,
            weight_decay=weight_decay,
            seed=seed,
        )
        source = flow.resolve(model, trust, data, training=True)
        chosen = work.chosen_plan(plan, devices, hardware, source, batch_size or 64)
        record = Run(folder)
        graph, items, notes = work.prepare(record, source, chosen, batch_size, fresh=not resume)
        alone = chosen.devices == 1 or is_member()
        if alone:
            with local.leaving_word():
                work.fit(record, source, graph, items, chosen, options, loss, every, progress)
    if is_first():
        for note in notes if alone or (chosen.devices > 1 and not is_member()) else ():
            console.print(note, style="yellow", markup=False)
    if alone:
        if is_first():
            finish(record)
            console.print(f"graph {folder / RESULT}", style="dim", whole=True)
            suggest(f"planish compress {folder / RESULT}")
        return
    chosen.write(folder / PLAN)
    console.print(f"{chosen.devices} processes: {chosen}", style="dim")
    words = [sys.executable, "-m", "planish.cli", *_again(context.obj), "--plan", str(folder / PLAN)]
    raise typer.Exit(local.run_command(words, chosen.devices, restarts))


def _again(words: list[str]) -> list[str]:
    """The command line of a member: the plan is a file by now, and checkpoints stay."""
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in ("--plan", "--devices", "--hardware"):
            skip = True
        elif word != "--fresh" and not word.startswith(("--plan=", "--devices=", "--hardware=")):
            kept.append(word)
    return kept
