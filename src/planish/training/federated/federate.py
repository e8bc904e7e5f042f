"""`planish.federate`: train a model on data that stays with its owners."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from planish.errors import DataError, OptionError
from planish.graph import Graph
from planish.metrics import get as get_metric
from planish.models.task import Task
from planish.record import Measurement
from planish.training import network as graphs
from planish.training.checkpoint import Checkpoints
from planish.training.federated.client import Client, network, shared
from planish.training.federated.options import Federation
from planish.training.federated.partition import Owner
from planish.training.federated.rounds import Round
from planish.training.federated.rows import Rows
from planish.training.losses import TaskLoss, losses

Model = TypeVar("Model", Task, Graph, nn.Module)
Data = Iterable[tuple[Any, ...]]
Progress = Callable[[int, int, str], None]
FOLDER = "rounds"


@dataclass(frozen=True)
class Federated(Generic[Model]):
    """What a federated training gives.

    Attributes:
        model: Trained: a new graph, or the module of the user's.
        rounds: One after the other.
        clients: Rows of each client.
    """

    model: Any
    rounds: tuple[Round, ...]
    clients: tuple[int, ...]

    @property
    def measurements(self) -> list[Measurement]:
        """All numbers of all rounds."""
        return [row for each in self.rounds for row in each.measurements()]


def federate(
    model: Model,
    data: Data | Sequence[Data] | None = None,
    federation: Federation = Federation(),  # noqa: B008  # frozen
    *,
    loss: str | TaskLoss = "cross_entropy",
    evaluation: Data | None = None,
    metric: Any = "accuracy",
    owner: Owner | None = None,
    run: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    told: Callable[[Round], None] | None = None,
    **options: Any,
) -> Federated[Any]:
    """Train a model round by round: clients train it on their own rows, and a server adds up their updates.

    All clients are simulated here; `planish federate --deploy` starts real ones. Only what learns travels: adapters
    alone where all else is frozen. A graph with casts trains through them.

    Args:
        model: A task (its own data and metric), a graph (which stays as it is) or a module (trained in place).
        data: Re-iterable `(args, kwargs, target)` to be dealt out by `federation.partition`; or a list with the data of
            each client. None takes the task's.
        federation: The options; others may be given by name: `federate(task, strategy="fedprox", rounds=20)`.
        loss: A name ("cross_entropy", "mse") or `loss(output, target) -> scalar`.
        evaluation: What each round is judged on; None takes the task's, or judges nothing.
        metric: A name or a callable; a task has its own.
        owner: Whose a row is, for `partition="owner"`.
        run: A folder; rounds are saved there, and the same call goes on from them.
        progress: Called with (rounds done, rounds, what).
        told: Called after each round.

    Raises:
        DataError: There is no data, or too little for so many clients.
        OptionError: Options that are wrong, or do not go together; or nothing of the model may train.
        NoUpdates: In some round no client's update could be used; what came before is saved.
    """
    federation = replace(federation, **options) if options else federation
    trained, given, judge = _read(model, data, evaluation, metric)
    net = network(trained)
    start = {name: tensor.detach().cpu().clone() for name, tensor in shared(net).items()}
    if not start:
        raise OptionError("no parameter of the model asks for a gradient", "model", "requires_grad_(True)")
    shares = deal(given, federation, owner)
    chosen = losses[loss] if isinstance(loss, str) else loss

    def judged(arrays: Mapping[str, Tensor]) -> Sequence[Measurement]:
        load(net, arrays)
        net.eval()
        return judge(net) if judge else ()

    def heard(done: Round) -> None:
        if progress:
            progress(done.number, federation.rounds, f"loss {done.loss:.3g}")
        if told:
            told(done)

    from planish.training.federated.server import Server

    kept = Checkpoints(Path(run) / FOLDER) if run else None
    server = Server(federation, start, judged if judge else None, kept, heard)
    if federation.engine == "ray":
        from planish.training.federated.ray import simulate

        simulate(server, lambda number: Client(network(trained), shares[number], chosen, federation.local))
    else:
        _in_process(server, [Client(net, share, chosen, federation.local) for share in shares])
    load(net, server.arrays)
    net.eval()
    result = graphs.trained(trained, net) if isinstance(trained, Graph) else trained
    return Federated(result, tuple(server.rounds), tuple(server.rows[each] for each in sorted(server.rows)))


def deal(data: Rows | Sequence[Sequence[Any]], federation: Federation, owner: Owner | None) -> list[list[Any]]:
    """The batches of each client.

    Raises:
        DataError: As `Partition.split`; or the data of another number of clients.
    """
    if not isinstance(data, Rows):
        if len(data) != federation.clients:
            what = f"there is data of {len(data)} clients, and {federation.clients} take part"
            raise DataError(what, "data", f"clients={len(data)}")
        rows = [Rows(each) for each in data]
        return [each.batches(_all(each), federation.batch_size) for each in rows]
    owners = data.owners(owner) if owner and federation.dealt.kind == "owner" else None
    if federation.dealt.kind == "dirichlet" and any(target is None for target in data.targets):
        raise DataError("a Dirichlet partition needs whole-number targets, one a row", "partition", "partition='iid'")
    parts = federation.dealt.split(data.targets, federation.clients, federation.seed, owners)
    return [data.batches(part, federation.batch_size) for part in parts]


def load(net: nn.Module, arrays: Mapping[str, Tensor]) -> None:
    """Give a network what travels."""
    held = shared(net)
    with torch.no_grad():
        for name, tensor in arrays.items():
            held[name].copy_(tensor)


def _in_process(server: Any, clients: Sequence[Client]) -> None:
    from planish.training.federated.apps import client_app
    from planish.training.federated.flower import identity
    from planish.training.federated.process import ProcessGrid

    with identity():
        server.run(ProcessGrid(client_app(server.federation, clients.__getitem__), len(clients)))


def _all(rows: Rows) -> Any:
    import numpy as np

    return np.arange(len(rows))


def _read(model: Any, data: Any, evaluation: Data | None, metric: Any) -> tuple[Any, Any, Any]:
    """What trains, the data as rows (or one list for each client), and what judges a network."""
    task = model if isinstance(model, Task) else None
    trained = model.model if task else model
    if not isinstance(trained, Graph | nn.Module):
        raise OptionError(f"a graph or a module can train, not {type(model).__name__}", "model", "planish.capture(...)")
    given = task.training if data is None and task else data
    if given is None or (isinstance(given, tuple | list) and not given):
        raise DataError("there is no data to train on", "data", "Task(..., training=...), or data=")
    return trained, given if is_parted(given) else Rows(given), judge_of(model, evaluation, metric)


def is_parted(data: Any) -> bool:
    """Whether it is a list with the data of each client, and not one of items."""
    first = data[0] if isinstance(data, list) else None
    return isinstance(first, Iterable) and not (isinstance(first, tuple) and isinstance(first[-1], dict | Tensor))


def judge_of(model: Any, evaluation: Data | None, metric: Any) -> Callable[[nn.Module], Sequence[Measurement]] | None:
    """What judges a network: a task's first metric, or a metric on data; None where there is neither."""
    if evaluation is not None:
        return lambda net: (get_metric(metric)(net, evaluation),)
    if isinstance(model, Task) and not isinstance(model.evaluation, tuple):
        return lambda net: _headline(model, net)
    return None


def _headline(task: Task, net: nn.Module) -> tuple[Measurement, ...]:
    """A task's first metric: the others compare with the model that training leaves behind."""
    metric, own = task.metrics[0]
    return (get_metric(metric)(net, task.evaluation if own is None else own),)
