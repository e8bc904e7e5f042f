"""Points of a trained supernet in the order of their losses."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from planish.automl.supernet.network import Item, Loss, Path, Supernet, one_batch
from planish.automl.supernet.run import Memory
from planish.automl.supernet.slots import all_points
from planish.holes import Label

Ranking = tuple[tuple[dict[str, Label], float], ...]
"""Points with their losses, the best first."""
MOST = 4096
"""Spaces with more points are sampled."""
LEAST = 1e-6
"""Features that do not vary at all still let a system be solved."""


def rank(net: Supernet, points: Sequence[dict[str, Label]], items: Sequence[Item], loss: Loss) -> Ranking:
    """Judge points with the supernet's weights, batch norms calibrated for each of them.

    Points that begin alike share the values of what is alike, if they come in an order in which the last decisions
    change fastest. Of a classifier the last layer, which has to serve all points while they train and so fits none
    well, is fitted anew for each of them (`misfit`).

    Args:
        net: Trained.
        points: Which.
        items: Data to judge on, taken as one batch.
        loss: Of a module on an item.
    """
    whole, memory = one_batch(items), Memory()
    targets = whole[2] if len(whole) == 3 else None
    fits = net.is_classifier and isinstance(targets, Tensor) and targets.dim() == 1 and not targets.is_floating_point()

    def judge(path: Path) -> float:
        if fits:
            return misfit(path.features(*whole[0], **whole[1]), targets)  # type: ignore[arg-type]
        return float(loss(path, whole))  # type: ignore[arg-type]  # called like a module

    with net.settling():
        judged = [(point, judge(net.at(point, memory))) for point in points]
    return tuple(sorted(judged, key=lambda each: each[1]))


def with_prior(ranking: Ranking, points: Sequence[dict[str, Label]], scores: Sequence[float]) -> Ranking:
    """The order by the sum of two places, in a ranking and by a score, as a share of the most that it can be.

    Args:
        ranking: Points, the best first.
        points: The same in another order.
        scores: Of these, the more the better.
    """
    places = {_key(point): place for place, (point, _) in enumerate(ranking)}
    order = sorted(range(len(points)), key=lambda index: -scores[index])
    most = max(2 * len(points) - 2, 1)
    sums = [(points[index], (places[_key(points[index])] + place) / most) for place, index in enumerate(order)]
    return tuple(sorted(sums, key=lambda each: each[1]))


def _key(point: dict[str, Label]) -> tuple[Label, ...]:
    return tuple(point.values())


def misfit(features: Tensor, targets: Tensor, ridge: float = 1e-2) -> float:
    """Mean squared error of the best linear classifier on some features: least squares on one half of the rows, judged
    on the other, and the other way round.

    Args:
        features: `(rows, features)`.
        targets: Class numbers `(rows,)`.
        ridge: What is added to the second moments, as a share of the features' variance.
    """
    count, width = len(features) // 2, features.shape[1]
    x = functional.pad(features[: 2 * count].double(), (0, 1), value=1.0).view(count, 2, width + 1).transpose(0, 1)
    y = functional.one_hot(targets[: 2 * count]).double().view(count, 2, -1).transpose(0, 1)
    small = ridge * (float(features.var()) + LEAST) * count * torch.eye(width + 1, dtype=x.dtype, device=x.device)
    solved = torch.linalg.solve(x.mT @ x + small, x.mT @ y)
    return float((x @ solved.flip(0) - y).square().mean())


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
