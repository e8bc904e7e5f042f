"""Many words added bit by bit: columns of bits of equal weight, emptied by carry chains.

A sum of words is a heap of bits, and a chain of n full adders makes one bit of two, whatever words these came from, so
that words of different shifts waste nothing (bit heaps after Dadda, 1965, and Brunie, de Dinechin, Istoan, Sergent,
Illyes and Popa, "Arithmetic core generation using bit heaps", 2013; with chains in place of their compressors, since
ECP5 adds a column's two bits in half a slice). Chains begin where three bits of the lowest weight are there or a
constant one: the chain's carry input takes it for nothing. Two bits that are ready early do not wait for late ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from planish.targets.fpga.unrolled.circuit import ONE, ZERO, Bit

Chain = Callable[[Sequence[Bit], Sequence[Bit], Bit], Sequence[Bit]]
"""Makes the bits of `a + b + carry`, as many as `a` has."""
Ready = Callable[[Bit], float]
"""When a bit is there."""

WAIT = 0.5
"""Bits that a cell must take out of the columns for a chain not to wait for more."""
LONGEST = 20
"""Columns of a chain with several sums in it."""
ROUND = 2.2
"""From one round of chains to the next (ns)."""


@dataclass
class Columns:
    """A sum modulo two to the number of columns.

    Attributes:
        size: How many columns.
        chain: What adds.
        ready: When bits are there.
    """

    size: int
    chain: Chain
    ready: Ready
    bits: list[list[Bit]] = field(init=False)
    number: int = field(default=0, init=False)
    left: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.bits = [[] for _ in range(self.size)]

    def add(self, word: Sequence[Bit], shift: int, sign: int, *, signed: bool) -> None:
        """Add a word: `sign * (word << shift)`."""
        if sign < 0:
            # -x = ~x + 1, where the bits above the word would all be inverted
            self.number += (1 << shift) - (0 if signed else 1 << shift + len(word))
            word = [~bit for bit in word]
        if signed:
            # the highest bit counts less than nothing: -b = ~b - 1
            self.number -= 1 << shift + len(word) - 1
            word = [*word[:-1], ~word[-1]]
        for place, bit in enumerate(word, shift):
            if bit.constant:
                self.number += bit.inverted << place
            elif place < self.size:
                self.bits[place].append(bit)

    def constant(self, number: int) -> None:
        """Add a number that is always the same."""
        self.number += number

    def total(self) -> tuple[Bit, ...]:
        """The sum's bits, lowest first."""
        # half of the modulus is an inverter on the highest bit
        inverted = self.number >> self.size - 1 & 1
        self.left = self.number & (1 << self.size - 1) - 1
        now = min((self.ready(bit) for column in self.bits for bit in column), default=0.0)
        while self.left or any(len(column) > 1 for column in self.bits):
            if self._flat():
                self._add([self._rest()])
                continue
            if self._round(now):
                now += ROUND
            else:
                now = min(ready for column in self.bits for bit in column if (ready := self.ready(bit)) > now)
        *low, top = [column[0] if column else ZERO for column in self.bits]
        return (*low, ~top if inverted else top)

    def _flat(self) -> bool:
        """Whether one chain is enough: no column over two, a constant one counted, but three where it begins."""
        heights = self._heights()
        start = next(place for place, height in enumerate(heights) if height > 1 or self.left >> place & 1)
        return heights[start] <= 3 and max(heights[start + 1 :], default=0) <= 2

    def _heights(self) -> list[int]:
        return [len(column) + (self.left >> place & 1) for place, column in enumerate(self.bits)]

    def _rest(self) -> tuple[int, list[list[Bit]], Bit]:
        """All that is left, for one chain: where it begins, its columns and its carry."""
        heights = self._heights()
        start = next(place for place, height in enumerate(heights) if height > 1 or self.left >> place & 1)
        rows = [[*self.bits[place], *([ONE] if self.left >> place & 1 else [])] for place in range(start, self.size)]
        for place in range(start, self.size):
            self.bits[place] = []
        self.left = 0
        carry = ONE if ONE in rows[0] else rows[0][0] if len(rows[0]) == 3 else ZERO
        if carry != ZERO:
            rows[0].remove(carry)
        return start, rows, carry

    def _round(self, now: float) -> bool:
        """Chains of what is there, as long as they pay; whether there were any."""
        made: list[tuple[int, list[list[Bit]], Bit]] = []
        there = [sorted((bit for bit in column if self.ready(bit) <= now), key=self.ready) for column in self.bits]
        waiting = any(self.ready(bit) > now for column in self.bits for bit in column)
        while (best := self._best([len(column) for column in there])) is not None:
            paid, start, end = best
            if paid < (WAIT if waiting or made else 0):
                break
            rows = [[there[place].pop(0) for _ in there[place][:2]] for place in range(start, end)]
            carry = ZERO
            if self.left >> start & 1:
                carry, self.left = ONE, self.left & ~(1 << start)
            elif there[start]:
                carry = there[start].pop(0)
            for place, row in enumerate(rows, start):
                for bit in row:
                    self.bits[place].remove(bit)
            if not carry.constant:
                self.bits[start].remove(carry)
            made.append((start, rows if end == self.size else [*rows, []], carry))
        pack: list[tuple[int, list[list[Bit]], Bit]] = []
        for chain in made:
            if pack and sum(len(rows) for _, rows, _ in pack) + len(chain[1]) > LONGEST:
                self._add(pack)
                pack = []
            pack.append(chain)
        if pack:
            self._add(pack)
        return bool(made)

    def _best(self, heights: Sequence[int]) -> tuple[float, int, int] | None:
        """The chain that takes most bits out for its cells: what each cell takes out, its first column and its end."""
        best = None
        for start in range(self.size):
            if heights[start] < 2:
                continue
            taken = 1 if heights[start] > 2 and not self.left >> start & 1 else 0
            for end in range(start + 1, self.size + 1):
                if not heights[end - 1]:
                    break
                taken += min(heights[end - 1], 2)
                made = end - start + (end < self.size)
                paid = (taken - made) / made
                if heights[end - 1] > 1 and (best is None or paid > best[0]):
                    best = paid, start, end
        return best

    def _add(self, pack: Sequence[tuple[int, Sequence[Sequence[Bit]], Bit]]) -> None:
        """Put chains one behind the other into one: where one gives out its carry, the next takes its own in."""
        first: list[Bit] = []
        second: list[Bit] = []
        places: list[int] = []
        closed = False
        for start, rows, carry in pack:
            if first:
                if closed:
                    first.append(carry)
                    second.append(carry)
                    places.append(-1)
                else:
                    first[-1] = second[-1] = carry
            first += [row[0] if row else ZERO for row in rows]
            second += [row[1] if len(row) > 1 else ZERO for row in rows]
            places += range(start, start + len(rows))
            closed = bool(rows[-1])
        for place, bit in zip(places, self.chain(first, second, pack[0][2]), strict=True):
            if place >= 0:
                self.bits[place].append(bit)
