"""How many weights go, and in what pattern: a value with a text form.

Sparsity.parse("50%")       half of the weights, anywhere
Sparsity.parse("2:4")       all but 2 of each 4 neighbors along the input channels
Sparsity.parse("50% 4x1")   half of the blocks of 4 output by 1 input channels
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from planish.errors import OptionError

_AMOUNT = r"(?P<percent>\d+(?:\.\d+)?)\s*%|(?P<share>0?\.\d+)"
_TEXT = re.compile(rf"(?P<kept>\d+):(?P<run>\d+)|(?:{_AMOUNT})(?:\s+(?P<rows>\d+)x(?P<columns>\d+))?")


@dataclass(frozen=True)
class Sparsity:
    """Which share of a weight is zero, and which weights go together.

    Attributes:
        amount: Share of zeros, between 0 and 1.
        run: Of each so many neighbors along the input channels the same number stays; 0 leaves the place free.
        block: Output by input channels that stay or go together.
    """

    amount: float
    run: int = 0
    block: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if not 0 < self.amount < 1:
            raise OptionError(f"a share of zeros lies between 0 and 1, not {self.amount}", "sparsity", "'50%'")
        if min(self.block) < 1:
            raise OptionError(f"a block of {self.block[0]}x{self.block[1]} weights is none", "sparsity", "'50% 4x1'")

    @classmethod
    def parse(cls, text: str) -> Sparsity:
        """The inverse of `str`; a share may also be written `0.5`.

        Raises:
            OptionError: The text is not of one of the three forms, or asks for no zeros, or for nothing else.
        """
        found = _TEXT.fullmatch(text.strip())
        if found is None:
            raise OptionError(f"cannot read the sparsity {text!r}", "sparsity", "'50%', '2:4' or '50% 4x1'")
        if found["run"]:
            kept, run = int(found["kept"]), int(found["run"])
            if not 0 < kept < run:
                raise OptionError(f"{kept} of {run} weights cannot stay", "sparsity", "'2:4' keeps 2 of 4")
            return cls(1 - kept / run, run)
        amount = float(found["percent"]) / 100 if found["percent"] else float(found["share"])
        return cls(amount, 0, (int(found["rows"]), int(found["columns"])) if found["rows"] else (1, 1))

    def __str__(self) -> str:
        if self.run:
            return f"{self.kept}:{self.run}"
        share = f"{100 * self.amount:.10g}%"
        return share if self.block == (1, 1) else f"{share} {self.block[0]}x{self.block[1]}"

    @property
    def kept(self) -> int:
        """How many of a run stay."""
        return round(self.run * (1 - self.amount))

    def refusal(self, shape: tuple[int, int]) -> str:
        """Why a matrix of this shape, `(out, in)`, cannot have the pattern; empty if it can."""
        rows, columns = shape
        if self.run and columns % self.run:
            return f"{columns} input channels are no whole runs of {self.run}"
        if rows % self.block[0] or columns % self.block[1]:
            return f"{rows} by {columns} channels are no whole blocks of {self.block[0]}x{self.block[1]}"
        return ""

    def fits(self, kept: Tensor) -> bool:
        """Whether a mask, bool `(out, in)`, has as many zeros already, in the pattern."""
        if self.run:
            return bool((kept.view(-1, self.run).sum(1) <= self.kept).all())
        pooled = self.pooled(kept.to(torch.int32))
        return int((pooled == 0).sum()) >= self.removed(pooled.numel())

    def removed(self, count: int) -> int:
        """How many of `count` weights or blocks go."""
        return round(count * self.amount)

    def keep(self, scores: Tensor, by_row: bool = False, removed: int | None = None) -> Tensor:
        """What stays of a matrix.

        Args:
            scores: `(out, in)`, the higher the better; -inf goes whatever the amount.
            by_row: Compare within each row, that is among the weights of one output, rather than in the matrix.
            removed: How many weights or blocks go, where it is not the amount that says so.

        Returns:
            bool, `(out, in)`.
        """
        if self.run:
            runs = scores.reshape(-1, self.run)
            return (_best(runs, self.kept) & (runs > -torch.inf)).view(scores.shape)
        pooled = self.pooled(scores)
        grouped = pooled if by_row else pooled.reshape(1, -1)
        gone = self.removed(grouped.shape[1]) if removed is None else removed
        best = _best(grouped, grouped.shape[1] - gone).view(pooled.shape)
        return self.spread(best) & (scores > -torch.inf)

    def above(self, scores: Tensor, threshold: float) -> Tensor:
        """What stays, bool `(out, in)`, where the blocks with scores above a threshold do."""
        return self.spread(self.pooled(scores) > threshold)

    def pooled(self, scores: Tensor) -> Tensor:
        """The sum over each block; -inf only where all of it is."""
        rows, columns = self.block
        if self.block == (1, 1):
            return scores
        blocks = scores.unflatten(1, (-1, columns)).unflatten(0, (-1, rows))
        if not scores.is_floating_point():
            return blocks.sum((1, 3))
        there = blocks > -torch.inf
        return blocks.where(there, 0).sum((1, 3)).masked_fill(~there.any(3).any(1), -torch.inf)

    def spread(self, blocks: Tensor) -> Tensor:
        """The inverse of `pooled`, the same for each weight of a block."""
        rows, columns = self.block
        return blocks.repeat_interleave(rows, 0).repeat_interleave(columns, 1) if self.block != (1, 1) else blocks


def _best(scores: Tensor, count: int) -> Tensor:
    """The `count` highest of each row (bool), exactly as many whatever their values."""
    found = torch.zeros_like(scores, dtype=torch.bool)
    return found.scatter_(1, scores.topk(count, 1).indices, True) if count else found
