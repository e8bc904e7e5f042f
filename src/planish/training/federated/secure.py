"""Secure aggregation: the server sees the sum of the updates, and no single one (SecAgg+, arXiv 2012.05690).

The protocol is Flower's, which still speaks of fits and of lists of arrays; here both sides are translated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.compat.common import recorddict_compat as compat
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.serverapp import Grid

from planish.training.federated.flower import ARRAYS, CONFIG, LOSS, METRICS, ROWS, nbytes, record, tensors_of

if TYPE_CHECKING:
    from planish.training.federated.server import Server

THRESHOLD = 2 / 3
"""The share of the clients that must answer to the end for their sum to be unmasked."""


def client_mods() -> list[Any]:
    """What a client's reply passes through: its update is masked."""
    return [secaggplus_mod, _translated]


def _translated(message: Message, context: Context, call_next: Any) -> Message:
    """A fit in Flower's older words, answered in these, by an app that speaks the newer ones."""
    if message.metadata.message_type != MessageType.TRAIN:
        return call_next(message, context)
    fit = compat.recorddict_to_fitins(message.content, keep_input=True)
    names = str(fit.config["names"]).split("\n")
    arrays = {n: torch.from_numpy(each) for n, each in zip(names, parameters_to_ndarrays(fit.parameters), strict=True)}
    given = {key: value for key, value in fit.config.items() if key != "names"}
    message.content = RecordDict({ARRAYS: record(arrays), CONFIG: ConfigRecord(given)})  # type: ignore[arg-type]
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    said, found = reply.content.metric_records[METRICS], tensors_of(reply.content.array_records[ARRAYS])
    parameters = ndarrays_to_parameters([found[name].numpy() for name in names])
    rows = 1 if fit.config["uniform"] else int(said[ROWS])  # type: ignore[arg-type]
    answer = FitRes(Status(Code.OK, ""), parameters, rows, {LOSS: float(said[LOSS])})  # type: ignore[arg-type]
    return Message(compat.fitres_to_recorddict(answer, keep_input=True), reply_to=message)


@dataclass
class _Client:
    """What Flower's protocol asks of a client's stand-in."""

    node_id: int


class _Manager:
    """What it asks of a client manager."""

    def num_available(self) -> int:
        return 0


class _Fits:
    """What it asks of a strategy: whom to ask for what, and where the result goes."""

    def __init__(self, clients: Sequence[int], config: dict[str, Any]) -> None:
        self._clients, self._config = clients, config
        self.results: list[tuple[_Client, FitRes]] = []

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> list[tuple[_Client, FitIns]]:
        return [(_Client(node), FitIns(parameters, dict(self._config))) for node in self._clients]

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> tuple[Any, dict[str, Any]]:
        self.results = results
        return results[0][1].parameters, {}


class _Counting:
    """A grid that keeps count of bytes, and of errors."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self.sent, self.received, self.failed = 0, 0, dict[int, Message]()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        asked = list(messages)
        self.sent += sum(map(nbytes, asked))
        replies = list(self._grid.send_and_receive(asked, timeout=timeout))
        for reply in replies:
            if reply.has_error():
                self.failed[reply.metadata.src_node_id] = reply
            else:
                self.received += nbytes(reply)
        return replies


def sum_of(server: Server, number: int, grid: Grid, asked: Sequence[int]) -> tuple[Any, ...]:
    """A round of the protocol.

    Returns:
        New arrays, clients used, clients refused with reasons, mean loss, bytes sent and received.

    Raises:
        NoUpdates: Too few clients answered to the end.
    """
    from planish.training.federated.server import NoUpdates, said

    federation, names = server.federation, list(server.arrays)
    reach = 2 * max(1.0, *(float(each.abs().max()) for each in server.arrays.values() if each.numel()))
    config = {"names": "\n".join(names), "server-round": number, "uniform": bool(federation.noisy)}
    config |= {"proximal-mu": federation.proximal} if federation.strategy == "fedprox" else {}
    fits, counting = _Fits(asked, config), _Counting(grid)
    context = LegacyContext(Context(1, 0, {}, RecordDict(), {}), strategy=fits, client_manager=_Manager())  # type: ignore[arg-type]
    arrays = ndarrays_to_parameters([each.numpy() for each in server.arrays.values()])
    context.state[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(arrays, keep_input=True)
    context.state[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: number})
    heaviest = 1.0 if federation.noisy else float(max(server.rows.values()))
    protocol = SecAggPlusWorkflow(1.0, THRESHOLD, max_weight=heaviest, clipping_range=reach, timeout=federation.timeout)
    protocol(counting, context)  # type: ignore[arg-type]
    refused = [(server.name(node), said(reply)) for node, reply in counting.failed.items()]
    if not fits.results:
        reasons = "; ".join(f"client {client}: {reason}" for client, reason in refused)
        hint = "the rounds before are saved"
        raise NoUpdates(f"too few clients for a secure sum in round {number}", reasons, hint)
    summed = context.state.array_records[MAIN_PARAMS_RECORD]
    found = parameters_to_ndarrays(compat.arrayrecord_to_parameters(ArrayRecord(dict(summed)), keep_input=True))
    new = {
        name: torch.from_numpy(each).reshape(server.arrays[name].shape).to(server.arrays[name].dtype)
        for name, each in zip(names, found, strict=True)
    }
    weights = [fit.num_examples for _, fit in fits.results]
    loss = sum(float(fit.metrics[LOSS]) * fit.num_examples for _, fit in fits.results) / sum(weights)
    used = [int(server.name(client.node_id)) for client, _ in fits.results]
    silent = {server.name(node) for node in asked} - {str(each) for each in used} - {client for client, _ in refused}
    refused += [(client, "no answer to the end") for client in sorted(silent)]
    return new, used, refused, loss, counting.sent, counting.received
