"""What the parts that blocks share are made of: counters, adders, memories, multipliers. Each follows its SystemVerilog
and what yosys does with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cache

Parameters = Mapping[str, int]
SMALL = 4
"""Bits up to which yosys adds in tables instead of a carry chain."""
_PORT = 18  # bits of a DSP block's inputs
_BLOCK = 128  # what a block memory costs yosys; tables cost the sixteenth of their bits, distributed memories 4 a cell
_SHAPES = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))


class Count:
    """What a block is made of; its parts are added one after the other.

    Attributes:
        logic: How much there is of what takes tables, by a name that has a price.
        ff: Flip-flops.
        carries: CCU2C.
        ram: Distributed memories.
        dsp: DSP blocks.
        bram: Block memories.
    """

    __slots__ = ("bram", "carries", "dsp", "ff", "logic", "ram")

    def __init__(self, module: str, ff: int = 0) -> None:
        self.logic: defaultdict[str, float] = defaultdict(float)
        self.logic[module] = 1.0
        self.ff = ff
        self.carries = self.ram = self.dsp = self.bram = 0

    def counter(self, size: int) -> None:
        """One that runs from 0 to `size` - 1."""
        if size == 1:
            return
        bits = (size - 1).bit_length()
        self.ff += bits
        if bits > SMALL:
            self.carries += (bits + 1) // 2
            self.logic["long counter"] += bits
        else:
            self.logic["counter"] += bits

    def adder(self, bits: int, times: int = 1) -> None:
        """Of so many bits, without what keeps the sum."""
        if bits > SMALL:
            self.carries += times * ((bits + 1) // 2)
        else:
            self.logic["adder"] += times * bits

    def comparator(self, bits: int, times: int = 1) -> None:
        """Of two numbers: only the last carry matters, and an odd last bit makes it in a table."""
        if bits > SMALL:
            self.carries += times * (bits // 2)
            self.logic["comparator"] += times
        else:
            self.logic["adder"] += times * bits

    def rom(self, width: int, depth: int, block: int = 0, stored: int | None = None) -> None:
        """Of rtl/rom.sv with random words; `stored` bits of them are neither constant nor copies of others."""
        if depth == 1 or self._in_block(width, depth, block):
            return
        kept = distinct(width, depth) if stored is None else stored
        self.ff += 2 * kept
        self.logic["rom"] += kept
        self.logic["deep rom"] += kept * max(depth - 16, 0) / 8

    def table(self, width: int, depth: int, block: int, columns: int, leaves: int, branches: int) -> None:
        """Of rtl/rom.sv with words that are known: their columns, and the tables and choices that they take."""
        if not self._in_block(width, depth, block):
            self.ff += 2 * columns
            self.logic["leaf"] += leaves
            self.logic["branch"] += branches

    def _in_block(self, width: int, depth: int, block: int) -> bool:
        address = (depth - 1).bit_length()
        needed, banks = blocks(width, 1 << address)
        if not block and width << address <= 16 * _BLOCK * needed:
            return False
        self.bram += needed
        if banks > 1:  # what chooses between them stands before the second register
            self.ff += width + (banks - 1).bit_length()
            self.logic["memory"] += width * (banks - 1)
        return True

    def memory(self, width: int, depth: int, registers: int) -> None:
        """One that is written, read into `registers` registers one after the other."""
        cells, needed, banks = ram(width, depth)
        if needed:
            self.bram += needed
            self.ff += width * max(registers - 2, 0)
            if banks > 1:
                self.ff += (width if registers > 1 else 0) + (banks - 1).bit_length()
                self.logic["memory"] += width * (banks - 1)
        else:
            self.ram += cells
            self.ff += width * registers
            if banks > 1:
                self.logic["memory"] += width * (banks - 1)
                self.logic["bank"] += banks

    def mult(
        self, a: Word, b: Word, dsp: int, times: int = 1, words: int = 64, unread: int = 0, constant: int = 0
    ) -> None:
        """Of rtl/mult.sv.

        Args:
            a: What is multiplied.
            b: With what.
            dsp: 1: in DSP blocks.
            times: How many there are.
            words: How many numbers b may be: few of them share much.
            unread: Low bits of the product that nobody reads.
            constant: What b always is; 0: it is not.
        """
        registers, carries, chosen, added, blocks = mult(a, b, dsp, min(words, 64), unread, constant)
        self.ff += times * registers
        self.carries += times * carries
        self.dsp += times * blocks
        if chosen:
            self.logic["chosen copy"] += times * chosen
        if added:
            self.logic["adder"] += times * added

    def tree(self, lanes: int, width: int, most: int = 64, times: int = 1) -> None:
        """Of rtl/dot_tree.sv and, for sums, rtl/tree.sv."""
        registers, carries, added = tree(lanes, width, most)
        self.ff += times * registers
        self.carries += times * carries
        if added:
            self.logic["adder"] += times * added

    def replay(self, bits: int, beats: int, times: int) -> None:
        """Of rtl/replay.sv."""
        if times == 1:
            return
        self.logic["replay"] += 1
        self.ff += bits + 1
        self.counter(times)
        if beats > 1:
            self.ff += 1
            self.counter(beats)
            self.logic["choice"] += bits
            self.memory(bits, 1 << (beats - 1).bit_length(), 1)


Word = tuple[int, int]
"""Bits, and 1 where they are signed."""


@cache
def distinct(columns: int, depth: int) -> int:
    """Of so many columns of random words, those that are neither constant nor copies of others."""
    if depth == 1 or depth > 20:
        return columns * (depth > 1)
    patterns = 2**depth - 2
    varied = columns * (1 - 2.0 ** (1 - depth))
    return round(patterns * (1 - (1 - 1 / patterns) ** varied))


@cache
def mult(a: Word, b: Word, dsp: int, words: int, unread: int, constant: int) -> tuple[int, int, int, int, int]:
    """Registers, carries, choices, bits that are added in tables and DSP blocks of rtl/mult.sv."""
    width = a[0] + b[0]
    if dsp and a[0] <= _PORT >= b[0]:
        return 0, 0, 0, 0, 1
    if dsp:
        first, second = -(-a[0] // _PORT), -(-b[0] // _PORT)
        registers, blocks = width - unread, first * second
        carries = sum((width - _PORT * (i + j) + 1) // 2 for i in range(first) for j in range(second) if i + j)
        if a[0] % _PORT == 1:  # this bit chooses b, or what is less than nothing by b
            blocks -= second
            registers += 2 if constant else 2 * (b[0] + a[1])
            carries += 0 if constant or not a[1] else (b[0] + 1) // 2
        return registers, carries, 0, 0, blocks
    rows = _Rows(width, unread)
    if a[0] < b[0]:
        rows.add(a, b, -1)
    else:
        rows.add(b, a, constant or -1)
    chosen = rows.chosen
    if words < 20:  # columns of b that are alike choose the same
        chosen *= (2**words - 1) * (1 - (1 - 0.5**words) ** b[0]) / b[0]
    return rows.registers, rows.carries, 0 if constant else round(chosen), rows.added, 0


class _Rows:
    """A product in tables: shifted copies of a number, added in pairs, in fours, and all together."""

    def __init__(self, width: int, unread: int) -> None:
        self.width, self.unread = width, unread
        self.registers = width - unread
        self.carries = self.chosen = self.added = 0

    def add(self, few: Word, many: Word, bits: int) -> None:
        """The bits of `few` choose copies of `many`; of a constant only those in `bits`."""
        pairs = (few[0] + 1) // 2
        seen: set[bool] = set()
        for four in range((pairs + 1) // 2):
            room = self.width - 4 * four  # bits that matter from here on
            dropped = min(self.unread, 4) if four == 0 else 0
            kept = [self._pair(pair, few, many, bits, room, seen) for pair in (2 * four, 2 * four + 1) if pair < pairs]
            low, high = (*kept, 0)[:2]
            if low and high:
                self._chain(min(many[0] + 5, room) - 2)
            self.registers += max((min(many[0] + 5, room) if high else low) - dropped, 0)
            if four and (low or high):
                self._chain(room)

    def _pair(self, pair: int, few: Word, many: Word, bits: int, room: int, seen: set[bool]) -> int:
        """Bits that a pair keeps."""
        space, count = room - 2 * (pair % 2), min(few[0] - 2 * pair, 2)
        negative = few[1] and 2 * pair + 2 >= few[0]
        chosen = bits >> 2 * pair & 3 & (1 << count) - 1
        if not chosen:
            return 0
        if chosen == 3:
            kept = min(many[0] + 2 + many[1], space)
            self._chain(min(many[0] + 2, space) - (not negative))
        else:
            kept = min(many[0] + bool(negative), space)
            if negative:
                self._chain(kept)
        self.chosen += many[0] * count
        if bits == -1 or (chosen == 3) not in seen:  # a constant makes some pairs the same
            self.registers += kept - (min(self.unread, 2) if pair == 0 else 0)
        seen.add(chosen == 3)
        return kept

    def _chain(self, bits: int) -> None:
        if bits > SMALL:
            self.carries += (bits + 1) // 2
        else:
            self.added += max(bits, 0)


@cache
def tree(lanes: int, width: int, most: int = 64) -> tuple[int, int, int]:
    """Registers, carries and bits that are added in tables of rtl/dot_tree.sv and rtl/tree.sv."""
    registers = carries = added = 0
    numbers = [width] * lanes
    while len(numbers) > 1:
        sums = [min(max(pair) + 1, most) for pair in zip(numbers[::2], numbers[1::2], strict=False)]
        for bits in sums:
            if bits > SMALL:
                carries += (bits + 1) // 2
            else:
                added += bits
        numbers = sums + numbers[len(sums) * 2 :]
        registers += sum(numbers)
    return registers, carries, added


def trailing_zeros(number: int) -> int:
    """Of a number in binary: sums with it leave these bits alone."""
    return (number & -number).bit_length() - 1


@cache
def blocks(width: int, depth: int) -> tuple[int, int]:
    """Block memories of so many words, and how many of them stand one after the other."""
    return min((-(-width // w) * -(-depth // d), -(-depth // d)) for w, d in _SHAPES)


@cache
def ram(width: int, depth: int) -> tuple[int, int, int]:
    """Distributed memories (16 words of 4 bits) of one that is written, or else block memories, and how many of them
    stand one after the other: as yosys chooses.
    """
    banks = -(-depth // 16)
    needed, deep = blocks(width, depth)
    cells = -(-width // 4) * banks
    if 4 * cells + width * (banks - 1) / 2 < _BLOCK * needed:
        return cells, 0, banks
    return 0, needed, deep
