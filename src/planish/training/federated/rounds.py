"""What a round left, as a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planish.record import Measurement


@dataclass(frozen=True)
class Round:
    """One round.

    Attributes:
        number: From 1.
        used: Clients whose updates count.
        refused: Client and reason, for each that did not answer or whose answer was refused.
        loss: Mean training loss of the clients, weighted by rows.
        sent: Bytes to all clients, as serialized.
        received: Bytes from all clients, likewise.
        seconds: Of the round, without judging.
        epsilon: Spent so far; None without privacy.
        quality: How the model is judged after it.
    """

    number: int
    used: tuple[int, ...]
    refused: tuple[tuple[str, str], ...]
    loss: float
    sent: int
    received: int
    seconds: float
    epsilon: float | None = None
    quality: tuple[Measurement, ...] = ()

    def measurements(self, subject: str = "") -> list[Measurement]:
        """As rows of a run folder."""
        details = {"round": self.number, "clients": len(self.used), "refused": [list(each) for each in self.refused]}
        rows = [
            Measurement("training_loss", self.loss, "1", "measured"),
            Measurement("bytes_sent", self.sent, "B", "measured"),
            Measurement("bytes_received", self.received, "B", "measured"),
            Measurement("round_time", self.seconds, "s", "measured"),
        ]
        rows += [] if self.epsilon is None else [Measurement("epsilon", self.epsilon, "1", "exact")]
        rows += self.quality
        return [dataclasses.replace(row, subject=subject, details={**row.details, **details}) for row in rows]

    def to_data(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**dataclasses.asdict(self), "quality": [row.to_json() for row in self.quality]}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Round:
        """The inverse of `to_data`."""
        quality = tuple(Measurement.from_json(row) for row in data["quality"])
        refused = tuple((str(client), str(reason)) for client, reason in data["refused"])
        return cls(**{**data, "used": tuple(data["used"]), "refused": refused, "quality": quality})
