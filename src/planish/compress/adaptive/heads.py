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
FOLDS = 5
"""Parts of the rows, each answered by a classifier of the others."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
CAUTION = 1.645
"""Standard errors that are added to a loss that was counted: the most a normal one has in 95 % of all cases."""
NEVER = 2.0
"""Surer than anything can be."""


def fit(features: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A linear classifier whose softmax is nearest (Kullback-Leibler) to the whole model's.

    Cross-validation over `FOLDS` parts of the rows chooses the penalty on the weights.

    Args:
        features: `(rows, features)`.
        teacher: The whole model's logits, `(rows, classes)`.

    Returns:
        Weight `(classes, features)` and bias `(classes,)`, learned from all rows; and logits `(rows, classes)`,
        those of each part by a classifier that has not seen it.
    """
    x, target = features.float(), functional.log_softmax(teacher.float(), -1)
    mean, deviation = x.mean(0), x.std(0).clamp(min=1e-6)
    x = (x - mean) / deviation
    unseen, penalty = min(((_unseen(x, target, p), p) for p in PENALTIES), key=lambda one: _divergence(one[0], target))
    weight, bias = _regression(x, target, penalty)
    weight = weight / deviation
    return weight, bias - weight @ mean, unseen


def _unseen(x: Tensor, target: Tensor, penalty: float) -> Tensor:
    """Logits of each part of the rows, learned from the others."""
    part, logits = torch.arange(len(x)) % FOLDS, torch.empty_like(target)
    for fold in range(FOLDS):
        weight, bias = _regression(x[part != fold], target[part != fold], penalty)
        logits[part == fold] = functional.linear(x[part == fold], weight, bias)
    return logits


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
        loss: How many rows in a row (0.005 is one in 200) may be lost against the whole model, `CAUTION` included: the
            cheapest of many thresholds is one that these rows are kind to, and others would lose more.

    Returns:
        A threshold for each exit; `NEVER` where it does not pay.
    """
    best = (sum(costs), [NEVER] * len(exits))
    for shares in product(SHARES, repeat=len(exits) - 1):
        left, allowed = torch.arange(len(last)), loss * len(last)
        cost, chosen = costs[0], []
        for answers, share, later in zip(exits, (*shares, 1.0), costs[1:], strict=True):
            order = answers.sure[left].argsort(descending=True, stable=True)
            change = (last[left].int() - answers.right[left].int())[order]
            lost = change.cumsum(0) + CAUTION * change.square().cumsum(0).sqrt()
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
