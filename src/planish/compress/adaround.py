"""AdaRound: learn for each weight whether it is rounded up or down.

Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (arXiv 2004.10568), section 3.3. The error
of a layer's output, `|Wx - W~x|^2` summed over calibration data, is `e H e^T` with `e` the error of the weight and `H`
the inputs' Gram matrix, so that a step costs one product of matrices, however many data there are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from planish.compress.columns import Fixed
from planish.compress.grid import Grid
from planish.formats import Format

ZETA, GAMMA = 1.1, -0.1
"""Of the rectified sigmoid, equation 23."""
STEPS = 300
WARM_UP = 0.2
"""Share of the steps before the regularizer sets in."""
BETA = (20.0, 2.0)
"""Of the regularizer, from its begin to the end."""
RATE = 0.1
"""Of Adam."""


def applies(form: Format) -> bool:
    """Whether the numbers of a format lie above and below each other: it can round up and down, in one level."""
    return form.residual is None and {"up", "down"} <= set(form.element.roundings)


def soft(v: Tensor) -> Tensor:
    """The rectified sigmoid `h(V)`, equation 23: the share of the way up."""
    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def undecided(v: Tensor, beta: float) -> Tensor:
    """The regularizer of equation 24, by weight: 0 where it goes all the way up or down."""
    return 1 - (2 * soft(v) - 1).abs() ** beta


def adaround(weight: Tensor, gram: Tensor, grid: Grid, fixed: Fixed | None = None) -> Tensor:
    """Numbers of the grid for `weight`, `(out, in)`, each the next above or below it.

    Args:
        weight: What to come close to; its type is what is computed in.
        gram: Sum of the outer products of the inputs, `(in, in)`.
        grid: Its format must pass `applies`; its scales stay.
        fixed: Weights that keep their values.
    """
    gram = gram.to(weight.dtype)
    down, up = (_rounded(weight, grid, fixed, side) for side in ("down", "up"))
    nearest = torch.where(weight - down < up - weight, down, up)
    gap = up - down
    share = ((weight - down) / gap.where(gap > 0, torch.ones_like(gap))).clamp(0.01, 0.99)
    v = torch.logit((share - GAMMA) / (ZETA - GAMMA)).requires_grad_()
    optimizer, before = torch.optim.Adam([v], lr=RATE), float(loss(weight - nearest, gram)) or 1.0
    for step in range(STEPS):
        optimizer.zero_grad()
        with torch.enable_grad():
            objective = loss(weight - down - soft(v) * gap, gram) / before
            late = (step / STEPS - WARM_UP) / (1 - WARM_UP)
            if late > 0:
                beta = BETA[1] + (BETA[0] - BETA[1]) * (1 + math.cos(math.pi * late)) / 2
                objective = objective + undecided(v, beta).mean()
            objective.backward()
        optimizer.step()
    learned = torch.where(soft(v.detach()) >= 0.5, up, down)
    return grid.snapped(
        torch.where(_by_row(weight - learned, gram) < _by_row(weight - nearest, gram), learned, nearest)
    )


def loss(error: Tensor, gram: Tensor) -> Tensor:
    """The squared error of the outputs, the first term of equation 21."""
    return _by_row(error, gram).sum()


def _by_row(error: Tensor, gram: Tensor) -> Tensor:
    return (error @ gram * error).sum(1, keepdim=True)


def _rounded(weight: Tensor, grid: Grid, fixed: Fixed | None, side: str) -> Tensor:
    one_sided = replace(grid.format, rounding=side)  # type: ignore[arg-type]
    stored = one_sided.cast(grid.layout.stored(weight.float()), grid.parameters)
    found = grid.layout.matrix(stored).to(weight.dtype)
    return found if fixed is None else torch.where(fixed.where.T, fixed.values.T.to(weight.dtype), found)
