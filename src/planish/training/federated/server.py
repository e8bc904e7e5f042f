"""The server's side: round after round, whom to ask, what to refuse, and what to keep.

Messages are made, and replies added up, by Flower's strategies; this is the same code over one process, Flower's
simulation and a deployment.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.app.exception import AppExitException
from flwr.serverapp import Grid
from flwr.supercore.differential_privacy import add_gaussian_noise_inplace
from torch import Tensor

from planish import config
from planish.errors import DataError, OptionError, PlanishError, UserError
from planish.record import Measurement
from planish.training import randomness
from planish.training.checkpoint import Checkpoints
from planish.training.federated import combine
from planish.training.federated.client import STATISTICS
from planish.training.federated.flower import ARRAYS, CLIENT, LOSS, METRICS, ROWS, nbytes, quiet, record, tensors_of
from planish.training.federated.options import ADAPTIVE, Federation
from planish.training.federated.process import ProcessGrid
from planish.training.federated.rounds import Round

Judge = Callable[[Mapping[str, Tensor]], Sequence[Measurement]]
Told = Callable[[Round], None]


class NoUpdates(UserError):
    """A round in which no client's update could be used; the model is that of the round before."""


class Chosen:
    """The nodes that a round asks: all of a grid that a strategy looks at."""

    def __init__(self, nodes: Sequence[int]) -> None:
        self._nodes = list(nodes)

    def get_node_ids(self) -> list[int]:
        """The nodes to ask."""
        return self._nodes


class Server:
    """A federated training.

    Args:
        federation: The options.
        start: What travels, by name.
        judge: Judges a model after each round; None does not.
        checkpoints: Where to save each round, and what to go on from.
        told: Called after each round.
        secret: Draw the noise of privacy from the system, which nobody can foresee; else from the seed.

    Attributes:
        arrays: What travels, after the rounds so far.
        rounds: The rounds so far.
        rows: Of each client.
    """

    def __init__(
        self,
        federation: Federation,
        start: Mapping[str, Tensor],
        judge: Judge | None = None,
        checkpoints: Checkpoints | None = None,
        told: Told | None = None,
        secret: bool = False,
    ) -> None:
        self.federation, self.arrays, self.rounds = federation, dict(start), list[Round]()
        self._judge, self._checkpoints, self._told, self._secret = judge, checkpoints, told, secret
        self._strategy, self._names, self.rows = combine.make(federation), dict[int, int](), dict[int, int]()
        moving = [name for name in start if name.rpartition(".")[2] in STATISTICS]
        if moving and federation.noisy:
            hint = "a model with group norms, or batch norms that are folded or in evaluation mode"
            raise OptionError("noise would spoil the statistics of batch norms", moving[0], hint)
        self._apart = moving if federation.strategy in ADAPTIVE else []

    def run(self, grid: Grid) -> None:
        """Go on to the last round.

        Raises:
            NoUpdates: A round had none; the rounds before are saved.
            UserError: The checkpoint is of another federation, or not all clients came.
        """
        with quiet():
            saved = self._checkpoints.load(_as_stored) if self._checkpoints else None
            if saved is not None:
                self._restore(*saved, grid)
            self._census(grid)
            for number in range(len(self.rounds) + 1, self.federation.rounds + 1):
                seeded = randomness.seeded((self.federation.seed * 1_000_003 + number) % 2**63)
                with nullcontext() if self._secret else seeded:
                    done = self._round(number, grid)
                self.rounds.append(done)
                self._save(number, grid)
                if self._told:
                    self._told(done)

    # One round -------------------------------------------------------------------------------------------------------

    def _round(self, number: int, grid: Grid) -> Round:
        began, privacy = time.monotonic(), self.federation.noisy
        asked = self._draw()
        if self.federation.secure:
            from planish.training.federated.secure import sum_of

            new, used, refused, loss, sent, received = sum_of(self, number, grid, asked)
        else:
            new, used, refused, loss, sent, received = self._mean_of(number, grid, asked)
        self.arrays = new
        seconds = time.monotonic() - began
        spent = privacy.epsilon(self.federation.fraction, number) if privacy else None
        quality = tuple(self._judge(self.arrays)) if self._judge else ()
        return Round(number, tuple(sorted(used)), tuple(refused), loss, sent, received, seconds, spent, quality)

    def _draw(self) -> list[int]:
        nodes, privacy = sorted(self._names, key=self._names.__getitem__), self.federation.noisy
        if self.federation.fraction == 1:
            return nodes
        draws = random.SystemRandom() if self._secret else random
        if privacy and privacy.by == "server":
            return [node for node in nodes if draws.random() < self.federation.fraction]
        asked = set(draws.sample(nodes, min(len(nodes), self.federation.asked)))
        return [node for node in nodes if node in asked]

    def _mean_of(self, number: int, grid: Grid, asked: Sequence[int]) -> tuple[Any, ...]:
        """New arrays by Flower's strategy, clients used, clients refused, loss, bytes sent and received."""
        privacy = self.federation.noisy
        by_server = privacy is not None and privacy.by == "server"
        messages = self._messages(number, asked)
        sent = nbytes(messages[0]) * len(messages) if messages else 0
        replies = list(grid.send_and_receive(messages, timeout=self.federation.timeout)) if messages else []
        received = sum(nbytes(reply) for reply in replies if not reply.has_error())
        good, refused = self.admitted(replies, asked)
        used = [self._names[reply.metadata.src_node_id] for reply in good]
        loss = _mean_loss(good)
        if not good and not by_server:
            reasons = "; ".join(f"client {client}: {reason}" for client, reason in refused)
            raise NoUpdates(f"no update of round {number} can be used", reasons, "the rounds before are saved")
        new = self._noised(number, good) if by_server else self._aggregated(number, self._strategy, good)
        return new, used, refused, loss, sent, received

    def _messages(self, number: int, asked: Sequence[int]) -> list[Message]:
        if not asked:
            return []
        given = record(self.arrays)
        made = list(self._strategy.configure_train(number, given, ConfigRecord(), Chosen(asked)))  # type: ignore[arg-type]
        if self._apart:  # an adaptive strategy compares with what it has sent, the statistics left out
            learned = {name: each.numpy() for name, each in self.arrays.items() if name not in self._apart}
            self._strategy.current_arrays = learned  # type: ignore[attr-defined]
        place = {node: at for at, node in enumerate(asked)}
        return sorted(made, key=lambda message: place[message.metadata.dst_node_id])

    def _aggregated(self, number: int, strategy: Any, good: Sequence[Message]) -> dict[str, Tensor]:
        """The strategy's result; statistics of batch norms are averaged where the strategy is adaptive."""
        apart: dict[str, Tensor] = {}
        if self._apart:
            apart = self._summed(number, combine.fed_avg(self.federation), [_part(m, self._apart) for m in good])
            learned = [name for name in self.arrays if name not in self._apart]
            good = [_part(message, learned) for message in good]
        found = {**self._summed(number, strategy, good), **apart}
        return {name: found[name].to(tensor.dtype) for name, tensor in self.arrays.items()}

    def _summed(self, number: int, strategy: Any, good: Sequence[Message]) -> dict[str, Tensor]:
        try:
            arrays, _ = strategy.aggregate_train(number, list(good))
        except AppExitException as error:
            raise NoUpdates(
                f"the updates of round {number} do not add up: {error}", self.federation.strategy
            ) from error
        assert arrays is not None, "there are replies without errors"
        return tensors_of(arrays)

    def _noised(self, number: int, good: Sequence[Message]) -> dict[str, Tensor]:
        """The sum of clipped updates with noise, over the number of clients that a round asks on average.

        Flower's wrapper divides by the replies of this round; a number that depends on who was drawn is put right here.
        """
        privacy, usual = self.federation.noisy, self.federation.fraction * self.federation.clients
        assert privacy is not None
        good = [reply for reply in good if not _is_still(reply, self.arrays)]  # adds nothing, and has no direction
        if not good:
            still = [np.zeros(each.shape, np.float32) for each in self.arrays.values()]
            add_gaussian_noise_inplace(still, privacy.noise * privacy.clip / usual)
            noise = dict(zip(self.arrays, map(torch.from_numpy, still), strict=True))
            return {name: each + noise[name] for name, each in self.arrays.items()}
        wrapped = combine.clipping(self._strategy, privacy, len(good))
        wrapped.current_arrays = record(self.arrays)  # type: ignore[attr-defined]
        found = self._aggregated(number, wrapped, good)
        share = len(good) / usual
        return {name: each + share * (found[name] - each) for name, each in self.arrays.items()}

    # What comes in ---------------------------------------------------------------------------------------------------

    def admitted(self, replies: Sequence[Message], asked: Sequence[int]) -> tuple[list[Message], list[tuple[str, str]]]:
        """Replies that can be used, decompressed, in the clients' order; and who is refused, with the reason."""
        good, refused, heard = [], [], set[int]()
        for reply in sorted(replies, key=lambda each: self._names.get(each.metadata.src_node_id, -1)):
            heard.add(reply.metadata.src_node_id)
            try:
                good.append(self._checked(reply))
            except (PlanishError, KeyError, ValueError, TypeError) as error:
                what = (
                    f"{error.what} ({error.where})" if isinstance(error, PlanishError) and error.where else str(error)
                )
                refused.append((self.name(reply.metadata.src_node_id), what.partition("\n")[0]))
        silent = [node for node in asked if node not in heard]
        refused += [(self.name(node), f"no answer within {self.federation.timeout:g} s") for node in silent]
        return good, refused

    def _checked(self, reply: Message) -> Message:
        if reply.has_error():
            raise DataError(said(reply))
        arrays, metrics = reply.content.array_records[ARRAYS], reply.content.metric_records[METRICS]
        if self.federation.how.is_exact:
            found = tensors_of(arrays)
            _fitting(found, self.arrays)
        else:
            update = self.federation.how.decode(arrays["update"].data, self.arrays)
            found = {name: each + update[name] for name, each in self.arrays.items()}
            reply.content[ARRAYS] = record(found)
        rows = 1.0 if self.federation.noisy else float(metrics[ROWS])  # type: ignore[arg-type]
        if not (np.isfinite(rows) and rows > 0):
            raise DataError(f"a client of {rows} rows has no weight")
        reply.content[METRICS] = MetricRecord({ROWS: rows, LOSS: float(metrics[LOSS])})  # type: ignore[arg-type]
        return reply

    def name(self, node: int) -> str:
        """What a node is called."""
        return str(self._names.get(node, f"node {node}"))

    def _census(self, grid: Grid) -> None:
        """Learn which node is which client, once all are there."""
        wanted, end = self.federation.clients, time.monotonic() + self.federation.timeout
        while len(nodes := list(grid.get_node_ids())) < wanted:
            if time.monotonic() > end:
                hint = "start the other SuperNodes, or fewer clients"
                raise UserError(f"{len(nodes)} of {wanted} clients have come", "federation", hint)
            time.sleep(0.5)
        asked = [Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY) for node in nodes]
        for reply in grid.send_and_receive(asked, timeout=self.federation.timeout):
            if reply.has_error():
                raise UserError(f"a client cannot start: {said(reply)}", f"node {reply.metadata.src_node_id}")
            told = reply.content.metric_records[METRICS]
            self._names[reply.metadata.src_node_id] = int(told[CLIENT])  # type: ignore[arg-type]
            self.rows[int(told[CLIENT])] = int(told[ROWS])  # type: ignore[arg-type]

    # Checkpoints -----------------------------------------------------------------------------------------------------

    def _described(self) -> dict[str, Any]:
        """The options that decide the numbers."""
        free = ("rounds", "timeout", "engine")
        return {name: value for name, value in config.encode(self.federation).items() if name not in free}

    def _save(self, number: int, grid: Grid) -> None:
        if self._checkpoints is None:
            return
        kept = combine.moments(self._strategy)
        rest = {
            "federation": self._described(),
            "moments": {m: {k: torch.as_tensor(v) for k, v in each.items()} for m, each in kept.items()},
            "rounds": [each.to_data() for each in self.rounds],
            "residuals": grid.residuals() if isinstance(grid, ProcessGrid) else {},
        }
        self._checkpoints.save(number, self.arrays, rest)

    def _restore(self, arrays: Mapping[str, Tensor], rest: Mapping[str, Any], grid: Grid) -> None:
        mine, its = ({name: tuple(t.shape) for name, t in each.items()} for each in (self.arrays, arrays))
        if mine != its or rest["federation"] != self._described():
            where = str(self._checkpoints.folder) if self._checkpoints else ""
            raise UserError("the folder has rounds of another model or of other options", where, "another --run DIR")
        self.arrays = {name: arrays[name] for name in self.arrays}
        for name, values in rest["moments"].items():
            setattr(self._strategy, name, {key: value.numpy() for key, value in values.items()})
        self.rounds = [Round.from_data(each) for each in rest["rounds"]]
        if isinstance(grid, ProcessGrid):
            grid.restore(rest["residuals"])


def rounds_of(checkpoints: Checkpoints) -> tuple[dict[str, Tensor], tuple[Round, ...]]:
    """What travels, after the rounds that are saved in a folder, and these; empty where there are none."""
    saved = checkpoints.load(_as_stored)
    return (saved[0], tuple(Round.from_data(each) for each in saved[1]["rounds"])) if saved else ({}, ())


def _as_stored(name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype)


def said(reply: Message) -> str:
    """What an error reply says, in a line: the last of a traceback."""
    lines = [line.strip() for line in (reply.error.reason or "").splitlines() if line.strip()]
    if not lines:
        return f"it failed (code {reply.error.code})"
    return next((line for line in reversed(lines) if "Error" in line or "Diverged" in line), lines[0])


def _fitting(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    if found.keys() != wanted.keys():
        odd = min(found.keys() ^ wanted.keys())
        raise DataError("the update has other tensors than the model", odd)
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            raise DataError(f"the shape is {tuple(tensor.shape)} and not {tuple(wanted[name].shape)}", name)
        if not bool(torch.isfinite(tensor).all()):
            raise DataError("the update holds NaN or an infinity", name)


def _part(message: Message, names: Sequence[str]) -> Message:
    arrays = message.content.array_records[ARRAYS]
    kept = RecordDict({ARRAYS: ArrayRecord({name: arrays[name] for name in names})})
    kept[METRICS] = message.content.metric_records[METRICS]
    return Message(kept, dst_node_id=message.metadata.src_node_id, message_type=MessageType.TRAIN)


def _is_still(reply: Message, start: Mapping[str, Tensor]) -> bool:
    found = tensors_of(reply.content.array_records[ARRAYS])
    return all(torch.equal(found[name], each) for name, each in start.items())


def _mean_loss(good: Sequence[Message]) -> float:
    told = [reply.content.metric_records[METRICS] for reply in good]
    rows = sum(float(each[ROWS]) for each in told)  # type: ignore[arg-type]
    return sum(float(each[LOSS]) * float(each[ROWS]) for each in told) / rows if rows else float("nan")  # type: ignore[arg-type]
