"""SparseGPT: set weights to zero one input channel after the other, the rest making up for it.

Frantar and Alistarh, "SparseGPT" (arXiv 2301.00774). With the inverse of the Gram matrix as `U^T U`, `U` upper
triangular, taking away weight `w_j` once the columns before `j` are settled costs `(w_j / U_jj)^2` (their equation 3),
by which each run of columns chooses; all later columns then move by `-w_j / U_jj * U_j` (their equation 2). Afterwards
the weights that stay are brought to their least-squares values together, earlier columns too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from planish.compress.pruning.sparsity import Sparsity
from planish.errors import DataError

COLUMNS = 16
"""Columns that choose their zeros together: the paper's 128 are too large a part of a small layer."""
ROUNDS = 32
"""Steps of conjugate gradients at most."""


def sparsegpt(best: Tensor, gram: Tensor, sparsity: Sparsity, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """The pruned weight and what stays of it.

    Args:
        best: The weight to come close to, `(out, in)` float64.
        gram: Products of the inputs, `(in, in)` float64, positive definite.
        sparsity: How many go, in what pattern.
        allowed: What may stay, bool `(out, in)`.

    Returns:
        Values, zero where pruned, and the mask (bool), both `(out, in)`.

    Raises:
        DataError: The Gram matrix is not positive definite.
    """
    unit = sparsity.run or sparsity.block[1]
    order = gram.diag().view(-1, unit).mean(1).argsort(descending=True, stable=True)
    order = (order[:, None] * unit + torch.arange(unit)).flatten()
    upper = _upper(gram[order[:, None], order])
    left, allowed = best[:, order].clone(), allowed[:, order]
    kept = torch.zeros_like(allowed)
    width = max(COLUMNS // unit, 1) * unit
    for start in range(0, left.shape[1], width):
        stop = min(start + width, left.shape[1])
        errors = torch.empty(len(left), stop - start, dtype=left.dtype)
        for column in range(start, stop):
            own = upper[column, column]
            if column == start or (sparsity.run and (column - start) % sparsity.run == 0):
                some = slice(column, column + sparsity.run if sparsity.run else stop)
                scores = (left[:, some] / upper.diag()[some]).square().masked_fill(~allowed[:, some], -torch.inf)
                kept[:, some] = sparsity.keep(scores, removed=_removed(sparsity, kept[:, :start], stop))
            error = left[:, column].masked_fill(kept[:, column], 0) / own
            left[:, column:stop] -= torch.outer(error, upper[column, column:stop])
            errors[:, column - start] = error
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    values, mask = torch.empty_like(left), torch.empty_like(kept)
    values[:, order], mask[:, order] = left, kept
    return values.masked_fill(~mask, 0), mask


def refit(values: Tensor, kept: Tensor, best: Tensor, gram: Tensor) -> Tensor:
    """The least-squares weights of all rows, each with its own zeros, by conjugate gradients (float32).

    Args:
        values: Where to start; zero where pruned.
        kept: What stays, bool.
        best: As for `sparsegpt`, and so is `gram`.
    """
    inner, scale = gram.float(), gram.diag().float()
    found, free = values.float(), kept.float()
    rest = ((best - values) @ gram).float() * free
    conditioned = rest / scale
    step, square = conditioned, (rest * conditioned).sum(1, keepdim=True)
    enough = 1e-8 * square
    for _ in range(ROUNDS):
        if bool((square <= enough).all()):
            break
        pushed = (step @ inner) * free
        length = square / (step * pushed).sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        found, rest = found + length * step, rest - length * pushed
        conditioned = rest / scale
        before, square = square, (rest * conditioned).sum(1, keepdim=True)
        step = conditioned + square / before.clamp_min(torch.finfo(torch.float32).tiny) * step
    return found


def _removed(sparsity: Sparsity, kept: Tensor, stop: int) -> int | None:
    """How many weights or blocks the next columns lose, such that all up to `stop` have lost their share."""
    if sparsity.run:
        return None
    unit = sparsity.block[0] * sparsity.block[1]
    gone = int((sparsity.pooled(kept.int()) == 0).sum()) if kept.shape[1] else 0
    whole, next_ones = len(kept) * stop // unit, len(kept) * (stop - kept.shape[1]) // unit
    return min(max(sparsity.removed(whole) - gone, 0), next_ones)


def _upper(gram: Tensor) -> Tensor:
    """`U` with `gram^-1 = U^T U`."""
    lower, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):
        raise DataError("the inputs of a layer are too alike to prune it by SparseGPT", hint="more calibration data")
    del gram  # these matrices are large: each goes as soon as it is not needed
    inverse = torch.cholesky_inverse(lower)
    del lower
    return torch.linalg.cholesky(inverse, upper=True)
