"""`planish federate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planish.cli.console import console, suggest, table, working
from planish.cli.job import Model, RunDir, Trust, write_page
from planish.record import Run

if TYPE_CHECKING:
    from planish.training.federated import Federation, Round
    from planish.training.federated.federate import Federated

SHOWN = 10


def federate(
    model: Model,
    clients: Annotated[int, typer.Option(min=1, help="How many share the data.")] = 10,
    partition: Annotated[str, typer.Option(metavar="HOW", help="iid, dirichlet:0.3 or owner.")] = "iid",
    strategy: Annotated[
        str, typer.Option(metavar="NAME", help="fedavg, fedprox, fedadam, fedyogi, krum or trimmed-mean.")
    ] = "fedavg",
    rounds: Annotated[int, typer.Option(min=1, help="In all; more go on from those in the run folder.")] = 10,
    fraction: Annotated[float, typer.Option(help="Share of the clients that a round asks.")] = 1.0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes of a client over its rows in a round.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="Of the clients.")] = 0.05,
    optimizer: Annotated[str, typer.Option(help="Of the clients: sgd or adamw.")] = "sgd",
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a step.")] = 32,
    update: Annotated[
        str, typer.Option(metavar="HOW", help="float32, a format (int8, int4@g32*float16), or topk:5%[,format].")
    ] = "float32",
    privacy: Annotated[
        str | None, typer.Option(metavar="HOW", help="noise=1,clip=0.5[,delta=1e-5][,by=client].")
    ] = None,
    secure: Annotated[bool, typer.Option("--secure", help="The server sees the sum of updates only.")] = False,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="proximal, server_rate, faulty, trim or timeout; repeatable."),
    ] = None,
    engine: Annotated[str, typer.Option(help="What simulates: process, or ray.")] = "process",
    deploy: Annotated[
        bool, typer.Option("--deploy", help="Start a SuperLink and SuperNodes here, which speak TLS.")
    ] = False,
    certificates: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Of the server [default: made in the run folder].")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start from new weights.")] = False,
    loss: Annotated[str, typer.Option(help="cross_entropy or mse.")] = "cross_entropy",
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
    run: RunDir = None,
    data: Annotated[
        str | None, typer.Option(metavar="FILE.PY:FUNCTION", help="Rows to train on, or a list with each client's.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option(metavar="FILE.PY:FUNCTION", help="Whose a row is, for --partition owner.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Train a model on data that stays with its owners.

    Clients are simulated, or started with --deploy. The same command goes on where an interrupted one stopped.

    \b
    planish federate mlp --fresh --clients 10 --partition dirichlet:0.3 --rounds 20
    planish federate mlp --fresh --rounds 20 --update topk:10%
    planish federate mlp --fresh --privacy noise=1,clip=0.5 --fraction 0.5
    planish federate mlp --fresh --clients 3 --rounds 2 --deploy
    """
    folder = run or Path("runs") / f"{Path(model.rpartition(':')[2]).stem or 'model'}-federated"
    with working(folder) as progress:
        progress(0, 0, "loading PyTorch and the model")
        from planish.flow import federate as flow
        from planish.training.federated import Federation, local

        given: dict[str, Any] = {
            "clients": clients, "partition": partition, "strategy": strategy, "rounds": rounds, "fraction": fraction,
            "batch_size": batch_size, "update": update, "privacy": privacy, "secure": secure, "engine": engine,
            "seed": seed, **_more(options or ()),
        }  # fmt: skip
        training = local(epochs=epochs, learning_rate=learning_rate, optimizer=optimizer)
        federation = Federation(**given, local=training)
        request = flow.Request(model, federation, data, owner, loss, fresh, trust)
        record = Run(folder)
        found = flow.run(record, request, progress, _nothing, deploy, certificates)
    _tell(found, federation, folder)
    write_page(record)
    console.print(f"page {folder / 'report.html'}", style="dim", whole=True)


def _more(options: Any) -> dict[str, Any]:
    from planish.errors import OptionError

    kinds = {"proximal": float, "server_rate": float, "faulty": int, "trim": float, "timeout": float}
    found: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or name not in kinds:
            raise OptionError(f"cannot set {option!r}", "--set", f"known: {', '.join(kinds)}")
        try:
            found[name] = kinds[name](value)
        except ValueError as error:
            raise OptionError(f"{value!r} is no number", f"--set {name}", f"{name}=1") from error
    return found


def _nothing(done: Round) -> None:
    """The bar tells how far it is."""


def _tell(found: Federated[Any], federation: Federation, folder: Path) -> None:
    from planish.report.numbers import quantity

    last, spent = found.rounds[-1], federation.noisy is not None
    quality = last.quality[0] if last.quality else None
    said = f"{quality.name.replace('_', ' ')} {quality.value:.4g}" if quality else f"training loss {last.loss:.3g}"
    console.print(f"[bold]{said}[/] after {last.number} rounds of {federation.clients} clients")
    if spent:
        assert last.epsilon is not None
        assert federation.noisy is not None
        console.print(f"spent: epsilon {last.epsilon:.3g} at delta {federation.noisy.delta:g}")
    headings = ["round", "clients", "loss", *([quality.name] if quality else []), "sent", "received", "time"]
    headings += ["epsilon"] if spent else []
    step = max(1, -(-len(found.rounds) // SHOWN))
    shown = [each for each in found.rounds if each.number % step == 0 or each is last]
    rows = [
        [
            str(each.number),
            str(len(each.used)),
            f"{each.loss:.3g}",
            *([f"{each.quality[0].value:.4g}"] if each.quality else []),
            quantity(each.sent, "B"),
            quantity(each.received, "B"),
            quantity(each.seconds, "s"),
            *([f"{each.epsilon:.3g}"] if spent else []),
        ]
        for each in shown
    ]
    console.print(table(headings, rows, right=range(len(headings))))
    for each in found.rounds:
        for client, reason in each.refused:
            console.print(f"round {each.number}: without client {client}: {reason}", style="yellow", markup=False)
    suggest(f"{folder}/measurements.jsonl has every round")
