"""Learned codebooks: the numbers that codes stand for are a parameter, found by k-means and open to training.

In a format whose element is a `Lut`, each block has a codebook where others have a scale: `2**bits` numbers, of the
format that stands in the place of the scale's. A code is a place in the codebook.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from planish.errors import OptionError
from planish.formats.block import Block
from planish.formats.element import Element, Nan, Overflow
from planish.formats.rounding import Rounding, round_

ROUNDS = 100
"""As many steps of k-means at most; most blocks settle in fewer."""
STARTS = (0.0, 2 / 3, 1.0)
"""Where k-means begins: at equal shares of the numbers' density to the power of 1 (ranks), 1/3 (where the error of many
levels is least: Panter and Dite 1951) and 0 (even over the range: Deep Compression, arXiv 1510.00149, 3.2)."""


@dataclass(frozen=True)
class Lut(Element):
    """A place in a codebook (look-up table) that is a parameter of the format: 0 to `2**bits - 1`.

    Attributes:
        bits: Bits of the code, 1 to 8.
    """

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise OptionError(f"a learned codebook has places of 1 to 8 bits, not {self.bits}", "bits")

    @property
    def count(self) -> int:
        """How many numbers a codebook has."""
        return 1 << self.bits

    @property
    @override
    def minimum(self) -> float:
        return 0.0

    @property
    @override
    def maximum(self) -> float:
        return self.count - 1.0

    @property
    @override
    def smallest(self) -> float:
        return 1.0

    @property
    @override
    def has_nan(self) -> bool:
        return False

    @property
    @override
    def nans(self) -> tuple[Nan, ...]:
        return ("zero",)

    @property
    @override
    def roundings(self) -> tuple[Rounding, ...]:
        return ("even",)

    @override
    def round_(
        self,
        x: Tensor,
        rounding: Rounding = "even",
        overflow: Overflow = "saturate",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return round_(x.nan_to_num_(nan=0.0), rounding, generator).clamp_(self.minimum, self.maximum)

    @override
    def to_codes(self, values: Tensor) -> Tensor:
        return values.to(self.code_dtype)

    @override
    def from_codes(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        return codes.to(dtype)


def places(x: Tensor, codebooks: Tensor, block: Block) -> Tensor:
    """For each number the place of the nearest in the codebook of its block; a tie goes to the lower number.

    Args:
        x: Any shape, float32 or float64; NaN counts as zero.
        codebooks: `block.scale_shape(x.shape) + (count,)` numbers in any order, or one codebook for all blocks.
        block: Which numbers share a codebook.

    Returns:
        Whole numbers, of the shape and type of `x`.
    """
    numbers, order = _of_rows(codebooks, x.shape, block).sort(stable=True)
    cuts = (numbers[:, 1:] + numbers[:, :-1]) / 2
    rows = to_rows(x.nan_to_num(nan=0.0).double(), block)
    found = order.gather(1, torch.searchsorted(cuts, rows))
    return from_rows(found.to(x.dtype), x.shape, block)


def look_up(found: Tensor, codebooks: Tensor, block: Block) -> Tensor:
    """The number at each place of `places`, in its shape and type."""
    numbers = _of_rows(codebooks, found.shape, block)
    return from_rows(numbers.gather(1, to_rows(found, block).long()).to(found.dtype), found.shape, block)


def inside(x: Tensor, codebooks: Tensor, block: Block) -> Tensor:
    """Where `x` lies between the lowest and the highest number of its codebook (bool)."""
    low, high = _of_rows(codebooks, x.shape, block).aminmax(dim=1, keepdim=True)
    rows = to_rows(x.double(), block)
    return from_rows((rows >= low) & (rows <= high), x.shape, block)


def gathered(grad: Tensor, found: Tensor, codebooks: Tensor, block: Block) -> Tensor:
    """The sum of `grad` over the numbers at each place: the exact gradient of the codebooks, in their shape."""
    rows = to_rows(grad.float(), block)
    total = torch.zeros(len(rows), codebooks.shape[-1], device=grad.device)
    total = total.scatter_add(1, to_rows(found, block).long(), rows)
    return total.sum(0).reshape(codebooks.shape) if codebooks.dim() == 1 else total.reshape(codebooks.shape)


def fit_codebooks(
    x: Tensor | None, low: Tensor, high: Tensor, block: Block, count: int, weight: Tensor | None = None
) -> Tensor:
    """Codebooks, `block.scale_shape(x.shape) + (count,)`, rising, float32.

    Args:
        x: The numbers, for k-means: of all `STARTS` the best end counts, for each block. None gives numbers evenly
            spaced from `low` to `high`.
        low: The lowest number of each block.
        high: The highest.
        block: Which numbers share a codebook.
        count: How many numbers a codebook has.
        weight: What a squared error counts, in the shape of `x` (SqueezeLLM, arXiv 2306.07629, equation 4).
    """
    share = torch.linspace(0.0, 1.0, count, dtype=torch.float64, device=low.device)
    even = (low.double().unsqueeze(-1) * (1 - share) + high.double().unsqueeze(-1) * share).reshape(-1, count)
    if x is not None and x.numel():
        even = _k_means(*_sorted(x, weight, block), even)
    bound = torch.finfo(torch.float32).max
    return even.clamp(-bound, bound).float().reshape(*low.shape, count)


def _sorted(x: Tensor, weight: Tensor | None, block: Block) -> tuple[Tensor, Tensor]:
    """The numbers of each block, rising, and their weights. What fills a ragged block weighs nothing and repeats the
    largest number; a block whose numbers all weigh nothing counts them alike."""
    ones = to_rows(torch.ones_like(x, dtype=torch.float64), block)
    heavy = ones if weight is None else to_rows(weight.double(), block)
    heavy = torch.where(heavy.sum(1, keepdim=True) > 0, heavy, ones)
    numbers = to_rows(x.double(), block)
    largest = numbers.masked_fill(heavy == 0, -math.inf).amax(1, keepdim=True)
    numbers, order = torch.where(heavy > 0, numbers, largest).sort(stable=True)
    return numbers, heavy.gather(1, order)


def _k_means(x: Tensor, weight: Tensor, even: Tensor) -> Tensor:
    """Lloyd's steps on `(blocks, numbers)` in rising order: clusters are stretches, and their sums differences."""
    mass, moment = (_from_zero(sums.cumsum(1)) for sums in (weight, weight * x))
    cells = (pad(x.diff(), (1, 0)) + pad(x.diff(), (0, 1))) / 2
    best, most = even, torch.full((len(x), 1), -math.inf, dtype=x.dtype, device=x.device)
    for power in STARTS:
        spread = (weight ** (1 - power) * cells**power).cumsum(1)
        wanted = spread[:, -1:] * ((torch.arange(even.shape[1], device=x.device) + 0.5) / even.shape[1])
        start = x.gather(1, torch.searchsorted(spread, wanted).clamp_(max=x.shape[1] - 1))
        centers, gain = _lloyd(x, mass, moment, start)
        best, most = torch.where(gain > most, centers, best), torch.maximum(gain, most)
    rank = _from_zero((x.diff() > 0).long().cumsum(1))
    ends = x[:, -1:].expand_as(even)
    distinct = ends.scatter_reduce(1, rank.clamp(max=even.shape[1] - 1), x, "amax", include_self=False)
    return torch.where(rank[:, -1:] < even.shape[1], distinct, best)  # few numbers are kept as they are


def _lloyd(x: Tensor, mass: Tensor, moment: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The settled centers, and by how much the squared error falls from that of a codebook of zeros."""
    held = total = torch.zeros_like(centers)
    for _ in range(ROUNDS):
        ends = torch.searchsorted(x, (centers[:, 1:] + centers[:, :-1]) / 2, right=True)
        ends = pad(pad(ends, (1, 0)), (0, 1), value=x.shape[1])
        held, total = mass.gather(1, ends).diff(), moment.gather(1, ends).diff()
        first, last = ends[:, :-1].clamp(max=x.shape[1] - 1), (ends[:, 1:] - 1).clamp(min=0)
        middle = torch.clamp(total / held, x.gather(1, first), x.gather(1, last))  # whatever differences lose
        moved, centers = centers, torch.where(held > 0, middle, centers)
        if torch.equal(moved, centers):
            break
    return centers, (total * centers * 2 - held * centers.square()).sum(1, keepdim=True)


def _from_zero(sums: Tensor) -> Tensor:
    return pad(sums, (1, 0))


def _of_rows(codebooks: Tensor, shape: Sequence[int], block: Block) -> Tensor:
    """Float64 codebooks, one for each row of `to_rows`."""
    scales = block.scale_shape(shape)
    if codebooks.dim() != 1 and codebooks.shape[:-1] != scales:
        raise OptionError(
            f"codebooks of shape {tuple(codebooks.shape)} do not fit a tensor of shape {tuple(shape)}, "
            f"which has {scales} blocks",
            "parameters",
        )
    return codebooks.double().reshape(-1, codebooks.shape[-1]).expand(math.prod(scales), -1).contiguous()


def to_rows(x: Tensor, block: Block) -> Tensor:
    """`(blocks, numbers of a block)`, blocks in the order of their scales; ragged ones are filled with zeros."""
    if block.is_tensor or x.dim() == 0:
        return x.reshape(1, -1)
    layout = block.layout(x.shape)
    short = [count * size - length for (count, size), length in zip(layout, x.shape, strict=True)]
    if any(short):
        x = pad(x, [amount for last in reversed(short) for amount in (0, last)])
    x = x.reshape([n for pair in layout for n in pair])
    x = x.permute([*range(0, x.dim(), 2), *range(1, x.dim(), 2)])
    return x.reshape(math.prod(count for count, _ in layout), math.prod(size for _, size in layout)).contiguous()


def from_rows(rows: Tensor, shape: Sequence[int], block: Block) -> Tensor:
    """The inverse of `to_rows`, contiguous."""
    if block.is_tensor or not shape:
        return rows.reshape(tuple(shape))
    layout, rank = block.layout(shape), len(shape)
    x = rows.reshape([count for count, _ in layout] + [size for _, size in layout])
    x = x.permute([axis for pair in zip(range(rank), range(rank, 2 * rank), strict=True) for axis in pair])
    x = x.reshape([count * size for count, size in layout])
    for axis, length in enumerate(shape):
        x = x.narrow(axis, 0, length)
    return x.contiguous()
