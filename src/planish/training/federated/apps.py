"""The client's side of Flower: an app around `Client`, and what happens to an update before it leaves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod

from planish.errors import DataError
from planish.training.federated.client import Client
from planish.training.federated.flower import ARRAYS, CLIENT, CONFIG, LOSS, METRICS, ROWS, record, tensors_of
from planish.training.federated.options import Federation, Privacy
from planish.training.federated.update import Update

RESIDUAL = "residual"
"""Record of a client's state with what its updates have left out so far."""
Make = Callable[[int], Client]
"""The client of a number."""


def client_app(federation: Federation, make: Make) -> ClientApp:
    """A Flower client app of a federation.

    Args:
        federation: The options.
        make: Gives the client of a number; what it gives is kept by whoever made it.
    """
    app = ClientApp(mods=_mods(federation))

    @app.query()
    def who(message: Message, context: Context) -> Message:
        number = int(context.node_config[CLIENT])
        said = MetricRecord({CLIENT: number, ROWS: make(number).rows})
        return Message(RecordDict({METRICS: said}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number, config = int(context.node_config[CLIENT]), message.content.config_records[CONFIG]
        client, start = make(number), tensors_of(message.content.array_records[ARRAYS])
        seed = (federation.seed * 1_000_003 + int(config["server-round"])) * 1_000_003 + number  # type: ignore[arg-type]
        found, loss = client.train(start, seed % 2**63, float(config.get("proximal-mu", 0.0)))  # type: ignore[arg-type]
        for name, tensor in found.items():
            if not bool(torch.isfinite(tensor).all()):
                raise DataError("the training ended with NaN or an infinity", name, "a lower learning rate")
        said = MetricRecord({ROWS: client.rows, LOSS: loss})
        return Message(RecordDict({ARRAYS: record(found), METRICS: said}), reply_to=message)

    return app


def _mods(federation: Federation) -> list[Any]:
    """What a reply passes through on its way out, the last first."""
    mods: list[Any] = []
    if federation.secure:
        from planish.training.federated.secure import client_mods

        mods += client_mods()
    if not federation.how.is_exact:
        mods.append(sending(federation.how))
    if federation.noisy and federation.noisy.by == "client":
        mods.append(_noise(federation.noisy))
    return mods


def _noise(privacy: Privacy) -> Any:
    """Flower's clipping and noise at the client, its deviation being `noise * clip`."""
    local = LocalDpMod(privacy.clip, privacy.noise * privacy.clip, math.sqrt(2 * math.log(1.25 / 0.5)), 0.5)

    def mod(message: Message, context: Context, call_next: Any) -> Message:
        only_train = message.metadata.message_type == MessageType.TRAIN
        return local(message, context, call_next) if only_train else call_next(message, context)

    return mod


def sending(update: Update) -> Any:
    """A mod that sends the difference to the round's model, compressed, and keeps what that left out."""

    def mod(message: Message, context: Context, call_next: Any) -> Message:
        reply = call_next(message, context)
        if message.metadata.message_type != MessageType.TRAIN or reply.has_error():
            return reply
        start = tensors_of(message.content.array_records[ARRAYS])
        found = tensors_of(reply.content.array_records[ARRAYS])
        known = context.state.array_records.get(RESIDUAL)
        left = {name: torch.zeros_like(each) for name, each in start.items()} if known is None else tensors_of(known)
        wanted = {name: found[name] - start[name] + left[name] for name in start}
        data, read = update.encode(wanted)
        context.state[RESIDUAL] = record({name: wanted[name] - read[name] for name in wanted})
        reply.content[ARRAYS] = ArrayRecord({"update": Array("uint8", (len(data),), str(update), data)})
        return reply

    return mod
