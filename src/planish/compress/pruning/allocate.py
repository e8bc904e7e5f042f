"""One threshold for all layers: how many weights each of them loses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from planish.compress.pruning.sparsity import Sparsity


def best_of_all(scores: Mapping[str, Tensor], sparsity: Sparsity) -> dict[str, Tensor]:
    """What stays of each matrix where weights or blocks are compared across all of them.

    Args:
        scores: `(out, in)` each, the higher the better, comparable between layers.
        sparsity: The share of all of them that goes.

    Returns:
        bool, `(out, in)` each.
    """
    pooled = {name: sparsity.pooled(score).float() for name, score in scores.items()}
    order = torch.cat([part.flatten() for part in pooled.values()]).numpy()
    gone = sparsity.removed(len(order))
    order.partition(gone)
    threshold = float(order[gone])  # as many are no higher
    ties = gone - int((order[:gone] < threshold).sum())
    kept = {}
    for name, part in pooled.items():
        stays = part >= threshold
        if ties:
            first = (part == threshold).flatten().nonzero()[:ties, 0]
            stays.view(-1)[first] = False
            ties -= len(first)
        kept[name] = sparsity.spread(stays) & (scores[name] > -torch.inf)
    return kept
