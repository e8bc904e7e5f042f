"""The command line: parse, call a verb, print; nothing else.

Commands import what they need when they run, rich included, so that `planish --help` is instant.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import planish
from planish.cli import federate, formats, job, launch, lists, machine, plan, search, train
from planish.cli.console import explain

HELP = """
Turn a trained model into the smallest, fastest version of itself that your hardware can run, and prove it.

\b
Start here
  planish demo                                  a real sentence encoder
  planish report runs/demo --open               the page that it leaves

\b
Your own model
  planish analyze model.py:make                 where time and bytes go
  planish compress model.py:make --run runs/a   smaller, faster, measured
  planish compress ./llama --recipe r.toml      a transformers directory
  planish search bits.toml --model model.py:make   fill the holes of a recipe

\b
MODEL is one of
  a name                    minilm, resnet18... (planish models)
  a transformers directory  or hub id: safetensors only, no remote code
  a file                    .planish; .pt2 with --trust
  file.py:function          returns a Task, or (module, example_inputs)
"""

app = typer.Typer(
    name="planish",
    help=HELP,
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(job.demo)
app.command()(job.analyze)
app.command()(job.compress)
app.command()(job.build)
app.command()(job.bench)
app.command()(job.report)
app.command()(plan.plan)
app.command()(train.train)
app.command()(search.search)
app.command()(search.worker)
app.command()(federate.federate)
app.command()(launch.launch)
app.command()(machine.doctor)
app.command()(lists.models)
app.add_typer(formats.app, name="formats", help=formats.formats.__doc__)
app.command()(lists.passes)
app.command()(lists.recipes)
app.command()(lists.strategies)
app.command()(lists.targets)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"planish {planish.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every command: read by `main` and by their callbacks."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and exit: 2 for the user's mistakes, 1 for ours, 130 after Ctrl-C.

    `--debug` may stand anywhere in it.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        kept = [word for word in words if word != "--debug"]
        app(kept, prog_name="planish", obj=kept)  # a command that starts processes hands it on
    except Exception as error:
        if "--debug" in words:
            raise
        sys.exit(explain(error))
