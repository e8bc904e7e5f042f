"""What is best where several things count: the front, and how much room it covers."""

from __future__ import annotations

from collections.abc import Sequence

Losses = Sequence[float]
"""One number for each objective; less is better."""


def dominates(one: Losses, other: Losses) -> bool:
    """Whether `one` is nowhere worse and somewhere better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def front(losses: Sequence[Losses]) -> list[int]:
    """Places of those that no other dominates, in order; of equal ones the first."""
    kept: list[int] = []
    for place in sorted(range(len(losses)), key=lambda place: (tuple(losses[place]), place)):
        # sorted so, nothing later dominates what is kept
        if not any(dominates(losses[other], losses[place]) or losses[other] == losses[place] for other in kept):
            kept.append(place)
    return sorted(kept)


def hypervolume(losses: Sequence[Losses], reference: Losses) -> float:
    """Volume of what the points dominate and the reference bounds.

    By slices along the last objective; for the few objectives and the fronts of a search.
    """
    inside = [tuple(point) for point in losses if all(a < b for a, b in zip(point, reference, strict=True))]
    if not inside:
        return 0.0
    if len(reference) == 1:
        return float(reference[0] - min(point[0] for point in inside))
    inside.sort(key=lambda point: point[-1])
    ends = [*(point[-1] for point in inside[1:]), reference[-1]]
    volume = 0.0
    slab: list[Losses] = []
    for point, end in zip(inside, ends, strict=True):
        slab.append(point[:-1])
        slab = [slab[place] for place in front(slab)]
        if end > point[-1]:
            volume += (end - point[-1]) * hypervolume(slab, reference[:-1])
    return volume
