"""The arithmetic of GPTQ: round a matrix column by column such that its product with the inputs changes least.

With `H = M M^T` the Gram matrix of the inputs, `M` upper triangular, the loss `e H e^T` of an error `e = w - q` is the
sum over columns of `((e M)_j)^2`, and each term holds errors of earlier columns only. So the best number for column `j`
once those are rounded is the one nearest to `w_j + sum_i<j e_i M_ij / M_jj`: what Frantar et al. (arXiv 2210.17323)
reach by updating all later columns after each (Chen et al., arXiv 2507.18553, prove them equal). In this form nothing
is inverted, and candidate scales are told apart by the loss that they will really have.
"""

from __future__ import annotations

import torch
from torch import Tensor

from planish.compress.grid import Grid, Rounder
from planish.compress.pairs import Partners
from planish.errors import DataError

DAMPING = 0.01
"""Added to the diagonal, as a share of its mean: of the paper."""
COLUMNS = 64
"""Columns that are rounded one after the other before their errors are carried on together."""
GROWTH = (1.0, 1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)
"""By what scales may grow so that codes keep to pairs."""


def damped(gram: Tensor) -> Tensor:
    """The Gram matrix with `DAMPING` added to its diagonal."""
    return ridged(gram, DAMPING * gram.diag().mean().clamp_min(1e-12))


def ridged(gram: Tensor, ridge: Tensor) -> Tensor:
    """The matrix with a number added to its diagonal; one copy, where a sum with an identity takes three."""
    result = gram.clone()
    result.diagonal().add_(ridge)
    return result


def _factor(gram: Tensor, place: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Of the upper triangular `M` with `gram = M M^T`, columns in the order of `place`: `M_ij / M_jj` and `M_jj^2`."""
    back = place.flip(0)
    lower, info = torch.linalg.cholesky_ex(gram.double()[back[:, None], back])
    if int(info):
        raise DataError("the inputs of a layer are too alike to round its weight by GPTQ", hint="more calibration data")
    diagonal = lower.diag().clone()
    return lower.div_(diagonal).to(dtype).flip(0, 1), diagonal.square().to(dtype).flip(0)


class Fixed:
    """Weights that keep their values.

    Attributes:
        where: bool, `(in, out)`.
        values: `(in, out)`.
    """

    def __init__(self, where: Tensor, values: Tensor) -> None:
        self.where, self.values = where, values


def gptq(
    weight: Tensor, gram: Tensor, grid: Grid, fixed: Fixed | None = None, partners: Partners | None = None
) -> Tensor:
    """Numbers of the grid for `weight`, `(out, in)`; the grid's scales are chosen as their blocks are reached.

    Args:
        weight: What to come close to; its type is what is computed in.
        gram: Sum of the outer products of the inputs, `(in, in)`, positive definite.
        grid: What the numbers can be.
        fixed: Weights that keep their values.
        partners: Keeps the codes to pairs.

    Raises:
        DataError: The Gram matrix is not positive definite.
    """
    order = _order(gram, grid)
    place = torch.cat(order)
    steps, weights = _factor(gram, place, weight.dtype)
    start = weight.T[place].contiguous()
    carry, errors = torch.zeros_like(start), torch.empty_like(start)
    first = 0
    for columns in order:
        mine = slice(first, first + len(columns))
        run = _Run(start[mine] + carry[mine], start[mine], steps[mine, mine], weights[mine], columns, fixed, partners)
        errors[mine] = _searched(run, grid) if grid.searched else run(grid.rounds(columns, ()), 1)[0][:, 0]
        carry[mine.stop :] += steps[mine, mine.stop :].T @ errors[mine]
        first = mine.stop
    result = torch.empty_like(start)
    result[place] = start - errors
    return grid.snapped(result.T)


def _order(gram: Tensor, grid: Grid) -> list[Tensor]:
    """The segments, and the columns within each, those that count most first."""
    counts = gram.diag()
    segments = sorted(grid.segments, key=lambda columns: float(counts[columns].mean()), reverse=True)
    return [columns[counts[columns].argsort(descending=True, stable=True)] for columns in segments]


class _Run:
    """The columns of one segment, to be rounded one after the other."""

    def __init__(
        self,
        values: Tensor,
        start: Tensor,
        steps: Tensor,
        weights: Tensor,
        columns: Tensor,
        fixed: Fixed | None,
        partners: Partners | None,
    ) -> None:
        self.values, self.start, self.steps, self.weights = values, start, steps, weights
        self.columns, self.fixed, self.partners = columns, fixed, partners

    def __call__(self, rounder: Rounder, tries: int) -> tuple[Tensor, Tensor]:
        """Errors, `(columns, tries, out)`, and losses, `(tries, out)`, of as many candidates at a time."""
        count, out = self.values.shape
        errors, losses = self.values.new_empty(count, tries, out), self.values.new_zeros(tries, out)
        flat = errors.view(count, -1)
        for begin in range(0, count, COLUMNS):
            end = min(begin + COLUMNS, count)
            carry = self.steps[:begin, begin:end].T @ flat[:begin]
            for column in range(begin, end):
                carried = torch.addmv(carry[column - begin], flat[begin:column].T, self.steps[begin:column, column])
                value, place = self.values[column] + carried.view(tries, out), int(self.columns[column])
                rounded = self._kept(rounder, value, place)
                errors[column] = self.start[column] - rounded
                losses += self.weights[column] * (value - rounded).square_()
        return errors, losses

    def _kept(self, rounder: Rounder, value: Tensor, place: int) -> Tensor:
        rounded = rounder.round(value, place)
        if self.partners is not None and rounder.scale is not None:
            rounded = self.partners.keep(rounded, rounder.scale, place)
        return (
            rounded if self.fixed is None else torch.where(self.fixed.where[place], self.fixed.values[place], rounded)
        )


def _searched(run: _Run, grid: Grid) -> Tensor:
    """The errors of a segment's columns by the scales that lose least."""
    tries = GROWTH if run.partners else grid.tries
    trials = [*grid.trials(run.columns, run.values, tries), grid.parameters]
    errors, losses = run(grid.rounds(run.columns, trials), len(trials))
    best = grid.choose(run.columns, trials, losses)
    if run.partners:
        run.partners.settle(run.columns, best)
    return errors.gather(1, best.expand(len(errors), 1, -1))[:, 0]


def descend(
    rounded: Tensor,
    weight: Tensor,
    gram: Tensor,
    grid: Grid,
    fixed: Fixed | None = None,
    partners: Partners | None = None,
    rounds: int = 2,
) -> Tensor:
    """Give each column in turn the numbers that are best while all others stay: never a larger loss.

    Behdin et al., "QuantEase" (arXiv 2309.01885). Arguments as for `gptq`, whose result is `rounded`.
    """
    gram = gram.to(weight.dtype)
    errors, values = (weight - rounded).T.contiguous(), rounded.T.clone(memory_format=torch.contiguous_format)
    for columns in _order(gram, grid) * rounds:
        rounder = grid.rounds(columns, [grid.parameters])
        for begin in range(0, len(columns), COLUMNS):
            some = columns[begin : begin + COLUMNS]
            slope = gram[some] @ errors
            own = gram[some][:, some]
            for place, column in enumerate(some.tolist()):
                old = values[column]
                wanted = old + slope[place] / own[place, place]
                best = rounder.round(wanted[None], column)
                if partners is not None and rounder.scale is not None:
                    best = partners.keep(best, rounder.scale, column)
                new = torch.where((best[0] - wanted).abs() < (old - wanted).abs(), best[0], old)
                if fixed is not None:
                    new = torch.where(fixed.where[column], old, new)
                change = old - new
                slope[place + 1 :] += own[place + 1 :, place, None] * change
                errors[column] += change
                values[column] = new
    return grid.snapped(values.T)
