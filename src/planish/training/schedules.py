"""How the learning rate moves: a schedule is a function of the share of the training that is done, 0 to 1.

The share is of steps or of time, whichever is further, so that a training under a time limit also ends its schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from planish.registry import Registry

Schedule = Callable[[float], float]
"""The share that is done -> the factor of the learning rate."""

schedules = Registry(
    "schedule",
    {
        "constant": "planish.training.schedules:constant",
        "cosine": "planish.training.schedules:cosine",
        "linear": "planish.training.schedules:linear",
        "one-cycle": "planish.training.schedules:one_cycle",
    },
)


def constant(share: float) -> float:
    """Always 1."""
    return 1.0


def linear(share: float) -> float:
    """From 1 down to 0 in a straight line."""
    return max(0.0, 1.0 - share)


def cosine(share: float) -> float:
    """From 1 down to 0 along half a cosine (SGDR, arXiv 1608.03983, without restarts)."""
    return 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))


def one_cycle(share: float, peak: float = 0.3, start: float = 1 / 25, end: float = 1 / 25e4) -> float:
    """Up from 1/25 to 1 at `peak`, then down to almost nothing, along cosines (arXiv 1708.07120).

    It warms up by itself: use it with `warmup=0`.
    """
    first, last, place = (start, 1.0, share / peak) if share < peak else (1.0, end, (share - peak) / (1 - peak))
    return last + (first - last) * 0.5 * (1.0 + math.cos(math.pi * min(place, 1.0)))


def warmed(schedule: Schedule, warmup: float) -> Schedule:
    """The schedule after a straight rise from 0 over the first `warmup` of the training, which it has for itself."""

    def factor(share: float) -> float:
        return share / warmup if share < warmup else schedule((share - warmup) / (1.0 - warmup))

    return factor if warmup else schedule


def scheduler(optimizer: Optimizer, schedule: Schedule, share: Callable[[], float]) -> LambdaLR:
    """torch's scheduler for a schedule; `share` is asked at each step."""
    return LambdaLR(optimizer, lambda _step: schedule(share()))
