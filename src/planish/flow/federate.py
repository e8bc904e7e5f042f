"""`planish federate`: a model, its data dealt out, and a run folder with what every round measured.

This module is also the app of a deployment: `server_app` and `client_app` make it of the description that the
environment names, in whatever process Flower starts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from planish import config
from planish.errors import DataError, OptionError, PlanishError, UserError
from planish.flow import source
from planish.graph import Graph
from planish.models import factory
from planish.models.task import Task
from planish.record import Run, environment
from planish.training.checkpoint import Checkpoints
from planish.training.federated import Federation, Round, federate
from planish.training.federated.federate import FOLDER, Federated, deal, is_parted, judge_of, load
from planish.training.federated.rows import Rows
from planish.training.federated.server import rounds_of

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

Progress = Callable[[int, int, str], None]
Told = Callable[[Round], None]
DESCRIPTION, DEPLOYMENT, STAGE = "federation.json", "deployment", "federation"
_ERROR, _OVER = "error.json", "over.json"


@dataclass(frozen=True)
class Request:
    """All that describes a federated training, as plain data: what other processes, or machines, need to join it.

    Attributes:
        model: As on a command line.
        federation: The options.
        data: `file.py:function` that returns the rows to train on, or a list with those of each client.
        owner: `file.py:function` that says whose a row is.
        loss: A name.
        fresh: Start from new weights, not from those that the model has.
        trust: Allow a `.pt2` file.
    """

    model: str
    federation: Federation
    data: str | None = None
    owner: str | None = None
    loss: str = "cross_entropy"
    fresh: bool = False
    trust: bool = False

    def to_data(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return config.encode(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Request:
        """The inverse of `to_data`.

        Raises:
            OptionError: It is no description of a federation.
        """
        return config.decode(cls, data, DESCRIPTION)

    def load(self) -> tuple[Any, Any]:
        """What trains (a task, or a graph) and its data.

        Raises:
            PlanishError: Whatever is wrong with them.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.federation.seed)
            found = source.load(self.model, self.trust)
            if self.fresh:
                _renew(found.model if isinstance(found, Task) else found)
        given = factory.load_function(self.data)() if self.data else None
        if given is None and isinstance(found, Task):
            given = found.training
        if given is None or (isinstance(given, tuple | list) and not given):
            raise DataError(
                "there is no data to train on", self.model, "--data file.py:function, or Task(..., training=)"
            )
        return found, given

    @property
    def who(self) -> Any:
        """The function that says whose a row is."""
        return factory.load_function(self.owner) if self.owner else None


def run(record: Run, request: Request, progress: Progress, told: Told, deploy: bool, certificates: Path | None) -> Any:
    """Train, and leave in the run folder what every round measured and the model.

    Args:
        record: The folder; the same request goes on from the rounds in it.
        request: What to train.
        progress: Called with (rounds done, rounds, what).
        told: Called after each round.
        deploy: Start a SuperLink and SuperNodes on this machine, instead of simulating.
        certificates: Their folder; None takes one in the run folder, made if need be.

    Returns:
        The trained graph or module.
    """
    model, data = request.load()
    text = json.dumps(request.to_data(), indent=2) + "\n"
    record.write("environment.json", json.dumps(environment(seed=request.federation.seed), indent=2) + "\n")
    record.write(DESCRIPTION, text)
    record.drop(STAGE)

    def heard(done: Round) -> None:
        record.add(done.measurements(), STAGE)
        told(done)

    if deploy:
        found = _deployed(record, request, model, progress, certificates)
    else:
        found = federate(
            model, data, request.federation, loss=request.loss, owner=request.who, run=record.path, progress=progress,
            told=told,
        )  # fmt: skip
    record.drop(STAGE)
    record.add(found.measurements, STAGE)
    if isinstance(found.model, Graph):
        found.model.save(record.path / "model.planish")
    else:
        from safetensors.torch import save_model

        save_model(found.model, str(record.path / "model.safetensors"))
    return found


def _renew(model: Graph | nn.Module) -> None:
    if isinstance(model, Graph):
        raise OptionError(
            "a graph does not know how its weights begin", "--fresh", "a model by name or file.py:function"
        )
    for part in model.modules():
        if callable(begin := getattr(part, "reset_parameters", None)):
            begin()


# A deployment --------------------------------------------------------------------------------------------------------


def _deployed(
    record: Run, request: Request, model: Any, progress: Progress, certificates: Path | None
) -> Federated[Any]:
    from planish.training.federated.deploy import Deployment

    folder, federation = record.path / DEPLOYMENT, request.federation
    for name in (_ERROR, _OVER):
        (folder / name).unlink(missing_ok=True)
    kept = Checkpoints(record.path / FOLDER)
    seen: list[str] = []

    def is_over() -> bool:
        names = sorted(each.name for each in (record.path / FOLDER).glob("step-*[0-9]"))
        if names != seen:
            seen[:] = names
            progress(len(rounds_of(kept)[1]), federation.rounds, "training over TLS")
        return (folder / _ERROR).exists() or (folder / _OVER).exists()

    progress(0, federation.rounds, "starting the SuperLink and the SuperNodes")
    limit = 120 + federation.timeout * (federation.rounds + 1)
    there = Deployment(folder, __name__, record.path / DESCRIPTION, federation.clients, certificates)
    there.run(is_over, limit)
    if (folder / _ERROR).exists():
        said = json.loads((folder / _ERROR).read_text())
        raise UserError(said["what"], said["where"], said["hint"])
    arrays, rounds = rounds_of(kept)
    from planish.training.federated.client import network

    trained = model.model if isinstance(model, Task) else model
    net = network(trained)
    load(net, arrays)
    if isinstance(trained, Graph):
        from planish.training.network import trained as taken

        trained = taken(trained, net)
    rows = json.loads((folder / _OVER).read_text())["rows"]
    return Federated(trained, rounds, tuple(rows))


@cache
def _described() -> tuple[Path, Request]:
    from planish.training.federated.deploy import ENVIRONMENT

    place = os.environ.get(ENVIRONMENT)
    if not place:
        raise OptionError(f"{ENVIRONMENT} does not say where the federation is described", "environment")
    return Path(place), Request.from_data(json.loads(Path(place).read_text()))


def server_app() -> ServerApp:
    """The server of the federation that the environment names: it saves its rounds beside the description."""
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp

    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        place, request = _described()
        folder = place.parent / DEPLOYMENT
        try:
            rows = serve(grid, request, Checkpoints(place.parent / FOLDER))
            (folder / _OVER).write_text(json.dumps({"rows": rows}))
        except PlanishError as error:
            (folder / _ERROR).write_text(json.dumps({"what": error.what, "where": error.where, "hint": error.hint}))
        except Exception as error:
            said = {"what": f"the server failed: {type(error).__name__}: {error}", "where": str(folder), "hint": ""}
            (folder / _ERROR).write_text(json.dumps(said))
            raise

    return app


def serve(grid: Any, request: Request, kept: Checkpoints) -> list[int]:
    """Run the rounds over a grid of Flower's; gives the rows of each client."""
    from planish.training.federated.client import network, shared
    from planish.training.federated.server import Server

    model, _ = request.load()
    net = network(model.model if isinstance(model, Task) else model)
    judge = judge_of(model, None, "accuracy")

    def judged(arrays: Mapping[str, Tensor]) -> Any:
        load(net, arrays)
        net.eval()
        return judge(net) if judge else ()

    start = {name: tensor.detach().clone() for name, tensor in shared(net).items()}
    server = Server(request.federation, start, judged if judge else None, kept, secret=True)
    server.run(grid)
    return [server.rows[number] for number in sorted(server.rows)]


def client_app() -> ClientApp:
    """A client of it, whose number is in the configuration of its node."""
    from planish.training.federated.apps import client_app as app_of
    from planish.training.federated.client import Client, network
    from planish.training.losses import losses

    _, request = _described()

    @cache
    def make(number: int) -> Client:
        model, data = request.load()
        shares = deal(data if is_parted(data) else Rows(data), request.federation, request.who)
        net = network(model.model if isinstance(model, Task) else model)
        return Client(net, shares[number], losses[request.loss], request.federation.local)

    return app_of(request.federation, make)
