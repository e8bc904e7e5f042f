"""Ways to deal out devices to the axes of a plan, and what a pipeline may look like."""

from __future__ import annotations

from collections.abc import Iterator

from planish.training.parallel.plan import Schedule
from planish.training.planning.hardware import Cluster

Axes = tuple[int, int, int, int]
"""dp, fsdp, tp, pp."""


def assignments(cluster: Cluster) -> Iterator[Axes]:
    """Ways to deal out the devices to (dp, fsdp, tp, pp).

    The axes of a mesh go to those of a plan in order (pp, dp, fsdp, tp). One axis is split in every way in which
    tensor parallel devices share a node, and both kinds of data parallelism are used at once only to keep shards
    within a node.
    """
    if len(cluster.mesh) > 1:
        seen: dict[Axes, None] = {}
        for roles in _rising(len(cluster.mesh)):
            sizes = [1, 1, 1, 1]
            for role, size in zip(roles, cluster.mesh, strict=True):
                sizes[role] *= size
            pp, dp, fsdp, tp = sizes
            seen[dp, fsdp, tp, pp] = None
        yield from seen
        return
    devices, node = cluster.devices, cluster.hardware.per_node
    for pp in _divisors(devices):
        for tp in _divisors(devices // pp):
            if tp > node:
                continue
            rest = devices // pp // tp
            hybrid = node // tp if rest > node // tp > 1 and rest % (node // tp) == 0 else 0
            for dp, fsdp in dict.fromkeys([(rest, 1), (1, rest), *([(rest // hybrid, hybrid)] if hybrid else [])]):
                yield dp, fsdp, tp, pp


def _rising(count: int) -> Iterator[tuple[int, ...]]:
    """Sequences of so many of 0 to 3 that do not fall."""

    def grow(chosen: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(chosen) == count:
            yield chosen
            return
        for role in range(chosen[-1] if chosen else 0, 4):
            yield from grow((*chosen, role))

    yield from grow(())


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


def counts(rows: int, pp: int) -> list[int]:
    """Numbers of microbatches to try."""
    wanted = [1, 2, 4, 8, 16] if pp == 1 else [pp, 2 * pp, 4 * pp, 8 * pp, 16 * pp]
    return [count for count in wanted if rows % count == 0]


def schedules(pp: int, tp: int, microbatches: int) -> tuple[Schedule, ...]:
    """Schedules to try."""
    if pp == 1:
        return ("1f1b",)
    looped: tuple[Schedule, ...] = ("interleaved",) if tp > 1 else ("interleaved", "zero-bubble")
    return ("1f1b", *(looped if microbatches % pp == 0 else ()))


def said(axes: Axes) -> str:
    """ "dp 2 × tp 4"."""
    shown = [f"{name} {size}" for name, size in zip(("dp", "fsdp", "tp", "pp"), axes, strict=True) if size > 1]
    return " × ".join(shown) or "one device"
