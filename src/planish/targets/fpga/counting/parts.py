"""What the parts that blocks share take: registers, adders, memories. Each follows its SystemVerilog."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

Parameters = Mapping[str, int]
Features = tuple[float, ...]
Counted = tuple[Features, int, int]
"""Features, DSP blocks, block memories."""


def counter(size: int) -> int:
    """Of a counter that runs to `size`."""
    return (size - 1).bit_length() or 1


@cache
def mult(a: int, b: int, dsp: int) -> tuple[int, int, int]:
    """Registers, adder bits and DSP blocks of rtl/mult.sv."""
    if dsp and a <= 18 and b <= 18:
        return 0, 0, 1
    if dsp:
        tiles = _tiles(a + 1) * _tiles(b + 1)
        return a + b + 2 + 2 * (a + b), (tiles - 1) * (a + b), tiles
    few, many = min(a, b), max(a, b)
    pairs = (few + 1) // 2
    fours = (pairs + 1) // 2
    adders = few // 2 * (many + 3) + pairs // 2 * (many + 5) + (fours - 1) * (a + b)
    return pairs * (many + 3) + fours * (many + 5) + a + b, adders, 0


def _tiles(bits: int) -> int:
    """Parts in which yosys multiplies a signed number of so many bits."""
    return 1 if bits <= 18 else -(-(bits - 1) // 17)


@cache
def tree(lanes: int, width: int, most: int = 64) -> tuple[int, int]:
    """Registers and adder bits of rtl/dot_tree.sv and rtl/tree.sv."""
    registers = adders = level = 0
    while lanes > 1:
        level += 1
        bits = min(width + level, most)
        adders += lanes // 2 * bits
        lanes = (lanes + 1) // 2
        registers += lanes * bits
    return registers, adders


def rom(width: int, depth: int) -> int:
    """LUT4 of words in tables."""
    return width * -(-depth // 16) if depth > 1 else 0


@cache
def blocks(width: int, depth: int) -> int:
    """Block memories of so many words."""
    return min(-(-width // w) * -(-depth // d) for w, d in ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192)))


@cache
def ram(width: int, depth: int) -> tuple[int, int]:
    """Distributed memories (16 words of 4 bits), or else block memories, of one that is written: as yosys chooses."""
    banks, needed = -(-depth // 16), blocks(width, depth)
    cells = -(-width // 4) * banks
    return (cells, 0) if 4 * cells + width * (banks - 1) / 8 < 128 * needed else (0, needed)


@cache
def muxes(width: int, depth: int) -> int:
    """LUT4 that choose among distributed memories of a written memory, those that hold the words included."""
    cells, _ = ram(width, depth)
    banks = -(-depth // 16)
    return 6 * cells + (width * (banks - 1) * 2 // 3 + banks if cells else 0)


def replay(bits: int, beats: int, times: int) -> tuple[int, int, int, int]:
    """Registers, choices, LUT4 of memories and block memories of rtl/replay.sv."""
    if times == 1:
        return 0, 0, 0, 0
    _, needed = ram(bits, 1 << counter(beats))
    registers = 2 * bits + counter(beats) + counter(times) + 2
    return (
        registers - bits * (needed > 0),
        bits + counter(beats) + counter(times),
        muxes(bits, 1 << counter(beats)),
        needed,
    )
