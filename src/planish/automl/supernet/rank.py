"""Points of a trained supernet in the order of their losses."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from planish.automl.supernet.network import Item, Loss, Supernet, one_batch
from planish.automl.supernet.run import Memory
from planish.automl.supernet.slots import all_points
from planish.holes import Label

Ranking = tuple[tuple[dict[str, Label], float], ...]
"""Points with their losses, the best first."""
MOST = 4096
"""Spaces with more points are sampled."""


def rank(
    net: Supernet,
    points: Sequence[dict[str, Label]],
    items: Sequence[Item],
    loss: Loss,
    progress: Callable[[int], None] | None = None,
) -> Ranking:
    """Judge points with the supernet's weights, batch norms calibrated for each of them.

    Points that begin alike share the values of what is alike, if they come in an order in which the last decisions
    change fastest.

    Args:
        net: Trained.
        points: Which.
        items: Data to judge on, taken as one batch.
        loss: Of a module on an item.
        progress: Called with the number of points that are done.
    """
    whole, memory = one_batch(items), Memory()
    judged = []
    for place, point in enumerate(points):
        judged.append((point, float(loss(net.at(point, memory), whole))))  # type: ignore[arg-type]  # called like one
        if progress is not None:
            progress(place + 1)
    return tuple(sorted(judged, key=lambda each: each[1]))


def some_points(net: Supernet, most: int, seed: int) -> list[dict[str, Label]]:
    """All points of a supernet, or a sample of so many."""
    size = 1
    for slot in net.slots:
        size *= len(slot.labels)
    if size <= most:
        return all_points(net.slots)
    chance = random.Random(seed)
    drawn = {tuple(chance.randrange(len(slot.labels)) for slot in net.slots) for _ in range(most)}
    return [net.point(options) for options in sorted(drawn)]
