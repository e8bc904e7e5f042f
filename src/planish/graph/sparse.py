"""Masks as bits: one a weight, or fewer where runs of them repeat.

A 2:4 mask holds six patterns of four neighbors: three bits a run. Blocks of four along a row hold two: one bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import pad as pad_with

from planish.errors import UntrustedFile
from planish.formats.codes import pack, unpack

RUNS = (4, 8, 16)
"""Lengths of runs that are looked up in a table."""


def pack_mask(mask: Tensor) -> tuple[dict[str, Tensor], int]:
    """The bytes of a bool tensor, and the length of its runs (1: every bit for itself)."""
    flat = mask.reshape(-1)
    best, chosen = {"runs": pack(flat.to(torch.uint8), 1)}, 1
    for run in RUNS:
        found, table = _indexes(flat, run)
        parts = {"runs": pack(found, _width(len(table))), "table": pack(table, run)}
        if sum(map(len, parts.values())) < sum(map(len, best.values())):
            best, chosen = parts, run
    return best, chosen


def unpack_mask(parts: Mapping[str, Tensor], run: int, shape: tuple[int, ...], where: str) -> Tensor:
    """The inverse of `pack_mask`.

    Raises:
        UntrustedFile: The parts are not of this shape, or a run is none of the table's.
        DataError: There are not as many bytes as the shape needs.
    """
    count = math.prod(shape)
    if run == 1:
        return unpack(parts["runs"], 1, shape).bool()
    if run not in RUNS:
        raise UntrustedFile(f"a mask has runs of {run!r}", where)
    patterns = 8 * len(parts["table"]) // run
    table = unpack(parts["table"][: -(-patterns * run // 8)], run, (patterns,)).long()
    indexes = unpack(parts["runs"], _width(patterns), (-(-count // run),)).long()
    if not patterns or (len(indexes) and int(indexes.max()) >= patterns):
        raise UntrustedFile("a mask holds a run that its table lacks", where)
    bits = table[indexes, None] >> torch.arange(run) & 1
    return bits.flatten()[:count].bool().reshape(shape)


def _indexes(flat: Tensor, run: int) -> tuple[Tensor, Tensor]:
    """Each run as its place in the table of those that occur; the table."""
    padded = pad_with(flat, (0, -len(flat) % run)).view(-1, run)
    values = torch.zeros(len(padded), dtype=torch.int32)
    for place in range(run):
        values |= padded[:, place].int() << place
    there = torch.bincount(values, minlength=1 << run) > 0
    table = there.nonzero()[:, 0]
    return (there.cumsum(0) - 1)[values], table


def _width(patterns: int) -> int:
    return max(1, (patterns - 1).bit_length())
