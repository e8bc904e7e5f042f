"""When each stage of a pipeline works on which microbatch: a picture of a schedule, from the times of its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from planish.training.planning.setting import Setting

SHOWN = 512
"""Pieces of work that a picture has at most; of a longer step it shows the beginning."""


@dataclass(frozen=True)
class Piece:
    """Work of one device.

    Attributes:
        device: Of the pipeline.
        stage: Which of its stages.
        microbatch: Which part of the batch.
        kind: Forward or backward.
        start: Seconds since the step began.
        end: Likewise.
    """

    device: int
    stage: int
    microbatch: int
    kind: Literal["forward", "backward"]
    start: float
    end: float


def timeline(setting: Setting, seconds: Sequence[tuple[float, float]]) -> list[Piece]:
    """The pieces of a step, in order of their start.

    Each device does what is ready: backward work first, and forward work while it holds no more microbatches than its
    schedule allows; GPipe does all forward work first.

    Args:
        setting: The schedule, its devices and microbatches.
        seconds: Forward and backward, of each stage.
    """
    count = min(setting.microbatches, max(setting.pp, SHOWN // (2 * len(seconds))))
    waiting = {
        (kind, stage, m) for kind in ("forward", "backward") for stage in range(len(seconds)) for m in range(count)
    }
    owner = {stage: device for device in range(setting.pp) for stage in setting.own(device)}
    free = [0.0] * setting.pp
    done: dict[tuple[str, int, int], float] = {}
    found: list[Piece] = []
    while waiting:
        kind, stage, microbatch, start = min(
            (
                _ready(piece, done, free, owner, len(seconds))
                for piece in _allowed(setting, waiting, owner, done, count)
            ),
            key=lambda each: (each[3], each[0] == "forward", each[2] // setting.pp, -each[1], each[2]),
        )
        device, takes = owner[stage], seconds[stage][kind == "backward"]
        waiting.remove((kind, stage, microbatch))
        free[device] = done[kind, stage, microbatch] = start + takes
        found.append(Piece(device, stage, microbatch, kind, start, start + takes))  # type: ignore[arg-type]
    return sorted(found, key=lambda piece: piece.start)


def _allowed(
    setting: Setting,
    waiting: set[tuple[str, int, int]],
    owner: dict[int, int],
    done: dict[tuple[str, int, int], float],
    count: int,
) -> list[tuple[str, int, int]]:
    """What may start next: its input is there, and the device has room for another microbatch."""
    stages = len(owner)
    held = [0] * setting.pp
    for kind, stage, _ in done:
        held[owner[stage]] += 1 if kind == "forward" else -1
    allowed: list[tuple[str, int, int]] = []
    for kind, stage, microbatch in waiting:
        device = owner[stage]
        if kind == "forward":
            room = count * setting.chunks if setting.schedule == "gpipe" else _room(setting, device)
            if held[device] < room and (stage == 0 or ("forward", stage - 1, microbatch) in done):
                allowed.append((kind, stage, microbatch))
        elif ("forward", stage, microbatch) in done and (
            stage == stages - 1 or ("backward", stage + 1, microbatch) in done
        ):
            allowed.append((kind, stage, microbatch))
    return allowed


def _room(setting: Setting, device: int) -> int:
    """Microbatches of stages that a device may hold (arXiv 2104.04473, section 2.2)."""
    if setting.chunks == 1:
        return setting.pp - device
    if setting.schedule == "zero-bubble":
        return 2 * setting.pp
    return 2 * (setting.pp - device - 1) + (setting.chunks - 1) * setting.pp + 1


def _ready(
    piece: tuple[str, int, int],
    done: dict[tuple[str, int, int], float],
    free: Sequence[float],
    owner: dict[int, int],
    stages: int,
) -> tuple[str, int, int, float]:
    kind, stage, microbatch = piece
    before = ("forward", stage - 1, microbatch) if kind == "forward" else ("backward", stage + 1, microbatch)
    if kind == "backward" and stage == stages - 1:
        before = ("forward", stage, microbatch)
    return kind, stage, microbatch, max(free[owner[stage]], done.get(before, 0.0))
