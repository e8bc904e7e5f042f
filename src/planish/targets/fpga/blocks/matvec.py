"""Weights in the order in which the matrix-vector unit uses them, and how it multiplies with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from planish.targets.fpga.blocks.base import Memory
from planish.targets.fpga.program import Codes, Integers

LUTS, DSP, SHARED, SIGNS = range(4)
"""How products are made: see STYLE in rtl/matvec.sv."""
_PORT = 18  # bits of an ECP5 multiplier's input
SMALL = 8
"""Products of so few bits by bits are not worth a DSP block."""


@dataclass(frozen=True, eq=False)
class Folded:
    """A matrix for each group of vectors, folded to SIMD columns and PE rows a cycle.

    Attributes:
        weight: `(groups, rows, beats, columns of a beat)`; the last beat may be filled up with zeros.
        bias: `(groups, rows)`.
        given: What the vectors hold.
        made: What comes out.
        pe: Rows at once.
        dsp: Whether products may be made in DSP blocks.
    """

    weight: Integers
    bias: Integers | None
    given: Codes
    made: Codes
    pe: int
    dsp: bool = True

    @property
    def groups(self) -> int:
        """Vectors with weights of their own."""
        return self.weight.shape[0]

    @property
    def beats(self) -> int:
        """Of a vector."""
        return self.weight.shape[2]

    @property
    def simd(self) -> int:
        """Columns at once."""
        return self.weight.shape[3]

    @property
    def passes(self) -> int:
        """Over a vector."""
        return -(-self.weight.shape[1] // self.pe)

    @property
    def interval(self) -> int:
        """Cycles for the vectors of all groups."""
        return self.groups * self.passes * self.beats

    @property
    def latency(self) -> int:
        """Cycles from a vector's first beat to its first result, when nothing waits."""
        direct = 3 + (1 if self.style == SIGNS else 3) + (self.simd - 1).bit_length() + (self.bias is not None)
        loading = 2 * self.beats - 1 if self.passes > 1 else self.beats - 1
        return loading + direct + (2 if direct + 1 > self.beats else 0)

    @cached_property
    def _words(self) -> Integers:
        """`(passes, PE rows, columns)` in the order of use; rows that fill the last pass are zeros."""
        groups, rows, beats, simd = self.weight.shape
        filled = np.pad(self.weight, ((0, 0), (0, self.passes * self.pe - rows), (0, 0), (0, 0)))
        order = filled.reshape(groups, self.passes, self.pe, beats, simd).transpose(0, 1, 3, 2, 4)
        return order.reshape(-1, self.pe, simd)

    @cached_property
    def style(self) -> int:
        """How products are made, from what the weights are."""
        if np.abs(self.weight).max(initial=0) <= 1:
            return SIGNS
        if not self.dsp or self.given.bits * self._signed_bits <= SMALL:
            return LUTS
        return SHARED if self.pe > 1 and self._split + self._high_bits <= _PORT >= self.given.bits else DSP

    @property
    def _signed_bits(self) -> int:
        return signed_bits(self._words)

    @property
    def _even(self) -> Integers:
        return self._words[:, 0::2]

    @property
    def _odd(self) -> Integers:
        """Weights of the odd rows, smaller by one where the even row's product would borrow from theirs."""
        even = self._even
        odd = np.pad(self._words[:, 1::2], ((0, 0), (0, self.pe % 2), (0, 0)))
        return odd - (even < 0)

    @property
    def _high_bits(self) -> int:
        return signed_bits(self._odd)

    @property
    def _split(self) -> int:
        """Bits of an even row's product, which no smaller field holds."""
        corners = np.multiply.outer(
            [int(self._even.min()), int(self._even.max())], [min(self.given.low, 0), max(self.given.high, 0)]
        )
        return max(signed_bits(corners), signed_bits(self._even))

    def parameters(self) -> dict[str, int]:
        """Of rtl/matvec.sv."""
        style = self.style
        binary = style == SIGNS and bool((self._words != 0).all())
        width = 1 if binary else signed_bits(self._even) if style == SHARED else max(self._signed_bits, 2)
        memory = self.memories()["WEIGHTS"]
        depth = len(memory.words)
        return {
            "SIMD": self.simd,
            "PE": self.pe,
            "IN_WIDTH": self.given.bits,
            "IN_SIGNED": int(self.given.signed),
            "BEATS": self.beats,
            "PASSES": self.passes,
            "GROUPS": self.groups,
            "STYLE": style,
            "WEIGHT_WIDTH": width,
            "HIGH_WIDTH": self._high_bits if style == SHARED else width,
            "SPLIT": self._split if style == SHARED else width,
            "WEIGHT_BLOCK": int(in_block(depth, memory.words.shape[1] * memory.bits)),
            "BIAS": int(self.bias is not None),
            "OUT_WIDTH": self.made.bits,
        }

    def memories(self) -> Mapping[str, Memory]:
        """Of rtl/matvec.sv."""
        words = self._words
        if self.style == SHARED:
            low, high = signed_bits(self._even), self._high_bits
            fields = (self._even & ((1 << low) - 1)) | ((self._odd & ((1 << high) - 1)) << low)
            weights = Memory(fields.reshape(len(words), -1), low + high)
        elif self.style == SIGNS and (words != 0).all():
            weights = Memory((words < 0).astype(np.int64).reshape(len(words), -1), 1)
        else:
            weights = Memory(words.reshape(len(words), -1), max(self._signed_bits, 2))
        if self.bias is None:
            return {"WEIGHTS": weights}
        bias = np.pad(self.bias, ((0, 0), (0, self.passes * self.pe - self.bias.shape[1]))).reshape(-1, self.pe)
        return {"WEIGHTS": weights, "BIASES": Memory(bias, self.made.bits)}


def in_block(depth: int, bits: int) -> bool:
    """Whether a memory of so many words goes to block RAM: where LUTs (16 words of a bit each) would be many."""
    return depth > 16 and depth * bits > 16 * 64


def signed_bits(numbers: Integers) -> int:
    """Two's complement bits that hold every number."""
    low, high = int(numbers.min(initial=0)), int(numbers.max(initial=0))
    return max((~low).bit_length() if low < 0 else 0, high.bit_length()) + 1


def folds(rows: int, columns: int, product_bits: int, sum_bits: int) -> list[tuple[int, int]]:
    """Useful (SIMD, PE) of a matrix, from the smallest to the fastest, each faster than any before it.

    Args:
        rows: Outputs.
        columns: Inputs.
        product_bits: Of a product, and so about of an adder of the tree.
        sum_bits: Of a result, kept and added to once for each row.
    """
    best: dict[int, tuple[int, int, int]] = {}
    for simd in _even_shares(columns):
        for pe in _even_shares(rows):
            interval = -(-columns // simd) * -(-rows // pe)
            cost = simd * (pe + -(-pe // 2)) * product_bits + 2 * pe * sum_bits  # two rows may share a DSP block
            best[interval] = min(best.get(interval, (cost, simd, pe)), (cost, simd, pe))
    chosen: list[tuple[int, int]] = []
    cheapest = None
    for interval in sorted(best):
        cost, simd, pe = best[interval]
        if cheapest is None or cost < cheapest:
            chosen.append((simd, pe))
            cheapest = cost
    return chosen[::-1]


def _even_shares(size: int) -> list[int]:
    """Each number at once that is the smallest for its number of turns."""
    return sorted({-(-size // turns) for turns in range(1, size + 1)})
