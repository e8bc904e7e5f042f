"""What an exit needs to learn: a classifier on its features, and how sure it must be.

No label is needed: the classifier imitates the probabilities that the whole model gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
NEVER = 2.0
"""Surer than anything can be."""


def fit(features: Tensor, teacher: Tensor, held_out: Tensor) -> tuple[Tensor, Tensor]:
    """A linear classifier whose softmax is nearest (Kullback-Leibler) to the whole model's.

    Args:
        features: `(rows, features)`.
        teacher: The whole model's logits, `(rows, classes)`.
        held_out: `(rows,)` bool; those rows choose the penalty on the weights, and the others are fitted to.

    Returns:
        Weight `(classes, features)` and bias `(classes,)`.
    """
    x, target = features.float(), functional.log_softmax(teacher.float(), -1)
    mean, deviation = x[~held_out].mean(0), x[~held_out].std(0).clamp(min=1e-6)
    x = (x - mean) / deviation
    found: tuple[float, Tensor, Tensor] | None = None
    for penalty in PENALTIES:
        weight, bias = _regression(x[~held_out], target[~held_out], penalty)
        error = float(_divergence(functional.linear(x[held_out], weight, bias), target[held_out]))
        if found is None or error < found[0]:
            found = error, weight, bias
    assert found is not None
    weight = found[1] / deviation
    return weight, found[2] - weight @ mean


def _divergence(logits: Tensor, target: Tensor) -> Tensor:
    return functional.kl_div(functional.log_softmax(logits, -1), target, reduction="batchmean", log_target=True)


def _regression(x: Tensor, target: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        weight = torch.zeros(target.shape[1], x.shape[1], requires_grad=True)
        bias = torch.zeros(target.shape[1], requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=60, history_size=10, line_search_fn="strong_wolfe")

        def loss() -> float:
            optimizer.zero_grad()
            value = _divergence(functional.linear(x, weight, bias), target) + penalty * weight.square().sum()
            value.backward()
            return float(value.detach())

        optimizer.step(loss)
    return weight.detach(), bias.detach()


@dataclass(frozen=True)
class Answers:
    """What an exit, or the end of the model, says of some rows.

    Attributes:
        sure: Confidence of each row, `(rows,)`.
        right: Whether each row is answered right, `(rows,)` bool.
    """

    sure: Tensor
    right: Tensor


def thresholds(exits: Sequence[Answers], last: Tensor, costs: Sequence[float], loss: float) -> list[float]:
    """How sure each exit must be for the least mean cost.

    The allowed loss is shared out among the exits in several ways; each exit takes as many rows as its part allows, the
    surest first, and leaves what it did not use to those after it.

    Args:
        exits: What each exit says of the rows.
        last: Which rows the whole model answers right, `(rows,)` bool.
        costs: Of reaching each exit from the one before, and the end from the last of them.
        loss: How many rows in a row (0.005 is one in 200) may be lost against the whole model.

    Returns:
        A threshold for each exit; `NEVER` where it does not pay.
    """
    best = (sum(costs), [NEVER] * len(exits))
    for shares in product(SHARES, repeat=len(exits) - 1):
        left, allowed = torch.arange(len(last)), loss * len(last)
        cost, chosen = costs[0], []
        for answers, share, later in zip(exits, (*shares, 1.0), costs[1:], strict=True):
            order = answers.sure[left].argsort(descending=True, stable=True)
            lost = (last[left].int() - answers.right[left].int())[order].cumsum(0)
            sure = answers.sure[left][order]
            apart = torch.cat([sure[:-1] > sure[1:], torch.ones(1, dtype=torch.bool)]) if len(sure) else sure.bool()
            fine = torch.nonzero((lost <= share * allowed) & apart).flatten()
            count = int(fine[-1]) + 1 if len(fine) else 0
            chosen.append(float(sure[count - 1]) if count else NEVER)
            allowed -= float(lost[count - 1]) if count else 0.0
            left = left[order[count:]]
            cost += later * len(left) / len(last)
        best = min(best, (cost, chosen))
    return best[1]
