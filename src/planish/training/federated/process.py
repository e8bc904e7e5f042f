"""A federation in one process: messages go to the clients one after the other, by Flower's own client app."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from torch import Tensor

from planish.errors import PlanishError
from planish.training.federated.apps import RESIDUAL
from planish.training.federated.flower import CLIENT, copied, record, tensors_of

RAISED = 2
"""Flower's code of an app that raised an error."""


class ProcessGrid(Grid):
    """All clients of a federation, in this process.

    Args:
        app: What each of them runs.
        clients: How many.
    """

    def __init__(self, app: ClientApp, clients: int) -> None:
        self._app, self._waiting = app, dict[str, Message]()
        self._contexts = {
            number + 1: Context(1, number + 1, {CLIENT: number, "num-partitions": clients}, RecordDict(), {})
            for number in range(clients)
        }

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The replies, in the order of the messages; that of a client that raised an error is an error."""
        return [self._answer(message) for message in messages]

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        own = Message(copied(message.content), dst_node_id=node, message_type=message.metadata.message_type)
        try:
            reply = self._app(own, self._contexts[node])
        except Exception as error:  # a client may fail in any way, and the others go on
            said = (
                f"{error.what} ({error.where})"
                if isinstance(error, PlanishError)
                else f"{type(error).__name__}: {error}"
            )
            return Message(Error(RAISED, said), reply_to=own)
        return reply

    def get_node_ids(self) -> list[int]:
        """Numbers of the clients, from 1."""
        return list(self._contexts)

    # What clients remember -------------------------------------------------------------------------------------------

    def residuals(self) -> dict[str, dict[str, Tensor]]:
        """What each client's updates have left out so far, by its number."""
        held = {str(node): context.state.array_records.get(RESIDUAL) for node, context in self._contexts.items()}
        return {node: tensors_of(arrays) for node, arrays in held.items() if arrays is not None}

    def restore(self, residuals: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Give the clients what they remembered."""
        for node, tensors in residuals.items():
            self._contexts[int(node)].state[RESIDUAL] = record(tensors)

    # What Flower asks of a grid besides ------------------------------------------------------------------------------

    def set_run(self, run: Any) -> None:
        """There is one run."""

    @property
    def run(self) -> Any:
        """There is one run, without a description."""
        return None

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a client."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Have messages answered."""
        names = []
        for message in messages:
            names.append(str(len(self._waiting)))
            self._waiting[names[-1]] = self._answer(message)
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The answers."""
        return [self._waiting.pop(name) for name in message_ids if name in self._waiting]
