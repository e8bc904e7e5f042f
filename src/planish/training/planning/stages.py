"""Cutting a model into the stages of a pipeline: the dynamic program of Alpa (arXiv 2201.12023, section 5) for one
mesh.

The slowest stage decides, since the sum of all is the same however they are cut: of the cuts whose stages fit into
memory, the one whose slowest stage is fastest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.errors import OptionError


def cut(
    times: Sequence[float],
    may_begin: Sequence[bool],
    count: int,
    bytes_: Sequence[Sequence[float]] | None = None,
    limit: float = np.inf,
) -> list[int] | None:
    """Where the second and later stages begin.

    Args:
        times: Seconds of each layer.
        may_begin: Whether a stage may begin at a layer; one always does at the first.
        count: How many stages.
        bytes_: For each stage, the bytes that each layer would take in it.
        limit: Bytes of one stage.

    Returns:
        Indices of layers; None where no cut fits into memory.

    Raises:
        OptionError: There are fewer places to cut at than stages.
    """
    layers = len(times)
    places = [0, *(index for index in range(1, layers) if may_begin[index]), layers]
    if len(places) - 1 < count:
        what = f"{count} stages, and the model has {len(places) - 1} blocks to begin one at"
        raise OptionError(what, "plan.pp", f"pp={len(places) - 1}")
    done = np.concatenate([[0.0], np.cumsum(times)])[places]
    spans = done[None, :] - done[:, None]
    spans[np.tril_indices(len(places))] = np.inf
    best = np.full((count + 1, len(places)), np.inf)
    back = np.zeros((count + 1, len(places)), dtype=int)
    best[0, 0] = 0.0
    for stage in range(count):
        cost = spans.copy()
        if bytes_ is not None:
            held = np.concatenate([[0.0], np.cumsum(bytes_[stage])])[places]
            cost[held[None, :] - held[:, None] > limit] = np.inf
        slowest = np.maximum(best[stage][:, None], cost)
        back[stage + 1] = slowest.argmin(axis=0)
        best[stage + 1] = slowest.min(axis=0)
    if not np.isfinite(best[count, -1]):
        return None
    borders: list[int] = []
    end = len(places) - 1
    for stage in range(count, 1, -1):
        end = int(back[stage, end])
        borders.append(places[end])
    return borders[::-1]
