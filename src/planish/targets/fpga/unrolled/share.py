"""Constant matrices as shared sums: canonical signed digits and greedy elimination of common pairs.

After Potkonjak, Srivastava and Chandrakasan, "Multiple constant multiplications" (1996), and Hosangadi, Fallah and
Kastner, "Optimizing polynomial expressions by algebraic factorization and common subexpression elimination" (2006):
each weight is a sum of signed powers of two, each output a set of terms `sign * (x << shift)`, and the pair of terms
whose sharing saves most becomes a new number, until no pair saves anything. Here a pair saves the *bits* by which the
columns of all its users shrink (they are added bit by bit, see `columns`), not additions, so that intervals decide.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from planish.targets.fpga.program import Integers
from planish.targets.fpga.unrolled.circuit import width

Row = dict[tuple[int, int], int]
"""(shift, number) -> sign: the sum of `sign * (number << shift)`."""
Interval = tuple[int, int]

PER_BIT = 1.15
"""What a bit of a column costs to add, in cells of the carry chains."""
TABLE_BITS = 4
"""Inputs of a look-up table."""


class Pair(NamedTuple):
    """`first + sign * (second << shift)`, but `(second << shift) - first` for a difference of a number from itself.

    Numbers are counted from the inputs on, pairs after them.
    """

    first: int
    second: int
    shift: int
    sign: int

    @property
    def factor(self) -> int:
        """What a number is multiplied with that is paired with itself."""
        return (1 << self.shift) + self.sign


def digits(number: int) -> list[tuple[int, int]]:
    """Canonical signed digits of an integer: (shift, sign), no two shifts next to each other (Avizienis, 1961)."""
    found, shift = [], 0
    while number:
        if number & 1:
            sign = 2 - (number & 3)
            found.append((shift, sign))
            number -= sign
        number >>= 1
        shift += 1
    return found


def rows_of(matrix: Integers) -> list[Row]:
    """The terms of each row of a matrix `[outputs, inputs]`."""
    return [
        {(shift, column): sign for column, weight in enumerate(row) for shift, sign in digits(weight)}
        for row in matrix.tolist()
    ]


def interval_of(pair: Pair, intervals: Sequence[Interval]) -> Interval:
    """What a pair may be."""
    (low, high), (second_low, second_high) = intervals[pair.first], intervals[pair.second]
    if pair.first == pair.second:
        return low * pair.factor, high * pair.factor
    ends = pair.sign * second_low << pair.shift, pair.sign * second_high << pair.shift
    return low + min(ends), high + max(ends)


_NUMBER = 20
_SHIFT = 6
_MASK = (1 << _NUMBER) - 1


class _Sharing:
    """Terms are integers, `shift << 20 | number`, and pairs `first, second, shift, negative` side by side: these are
    looked up millions of times."""

    def __init__(self, rows: Sequence[Row], intervals: Sequence[Interval], per_bit: float) -> None:
        self.rows = [{shift << _NUMBER | number: sign for (shift, number), sign in row.items()} for row in rows]
        self.intervals = list(intervals)
        self.widths = [width(*each) for each in intervals]
        self.per_bit = per_bit
        self.pairs: list[Pair] = []
        self.seen: defaultdict[int, int] = defaultdict(int)
        self.worth: dict[int, tuple[int, int]] = {}
        self.queue: list[tuple[float, int]] = []
        for row in self.rows:
            terms = list(row.items())
            for place, (term, sign) in enumerate(terms):
                self._count(term, sign, terms[:place], 1)
        for key in self.seen:
            self._offer(key)

    def run(self) -> None:
        """Take pairs out until none is worth it."""
        while self.queue:
            gain, key = heapq.heappop(self.queue)
            now = self._gain(key)
            if now == -gain:
                self._take(key)
            elif 0 < now < -gain:
                heapq.heappush(self.queue, (-now, key))

    def _pair(self, key: int) -> Pair:
        shift = key >> 1 & (1 << _SHIFT) - 1
        return Pair(key >> _NUMBER + _SHIFT + 1, key >> _SHIFT + 1 & _MASK, shift, -1 if key & 1 else 1)

    def _gain(self, key: int) -> float:
        saved, cost = self._worth(key)
        return self.per_bit * self.seen[key] * saved - cost

    def _offer(self, key: int) -> None:
        gain = self._gain(key)
        if gain > 0:
            heapq.heappush(self.queue, (-gain, key))

    def _worth(self, key: int) -> tuple[int, int]:
        """Bits that each use saves, and cells that making the pair takes."""
        known = self.worth.get(key)
        if known is None:
            pair = self._pair(key)
            first, second = self.widths[pair.first], self.widths[pair.second]
            if pair.shift >= first:
                known = 0, 1
            else:
                bits = width(*interval_of(pair, self.intervals))
                table = pair.first == pair.second and first <= TABLE_BITS
                known = first + second - bits, bits - pair.shift + (not table)
            self.worth[key] = known
        return known

    def _keys(self, term: int, sign: int, others: Iterable[tuple[int, int]]) -> list[int]:
        """The pairs of a term with others of its row."""
        number, keys = term & _MASK, []
        for other, other_sign in others:
            if term <= other:
                first, second, distance = number, other & _MASK, (other >> _NUMBER) - (term >> _NUMBER)
            else:
                first, second, distance = other & _MASK, number, (term >> _NUMBER) - (other >> _NUMBER)
            keys.append(((first << _NUMBER | second) << _SHIFT | distance) << 1 | (sign != other_sign))
        return keys

    def _count(self, term: int, sign: int, others: Iterable[tuple[int, int]], by: int) -> list[int]:
        seen, keys = self.seen, self._keys(term, sign, others)
        for key in keys:
            seen[key] += by
        return keys

    def _take(self, key: int) -> None:
        """Make a pair a number and put it wherever its terms stand."""
        pair, made = self._pair(key), len(self.intervals)
        self.intervals.append(interval_of(pair, self.intervals))
        self.widths.append(width(*self.intervals[-1]))
        self.pairs.append(pair)
        grown: dict[int, None] = {}
        for row in self.rows:
            for term, sign in list(row.items()):
                partner = ((term >> _NUMBER) + pair.shift) << _NUMBER | pair.second
                if term & _MASK != pair.first or term not in row or row.get(partner) != sign * pair.sign:
                    continue
                del row[term]
                self._count(term, sign, row.items(), -1)
                del row[partner]
                self._count(partner, sign * pair.sign, row.items(), -1)
                new = term >> _NUMBER << _NUMBER | made
                row[new] = sign * pair.sign if pair.first == pair.second else sign
                grown.update(dict.fromkeys(self._count(new, row[new], ((t, s) for t, s in row.items() if t != new), 1)))
        for each in grown:
            if self.seen[each] > 0:
                self._offer(each)


def share(
    rows: Sequence[Row], intervals: Sequence[Interval], per_bit: float = PER_BIT
) -> tuple[list[Pair], list[Row], list[Interval]]:
    """Take what several rows, or one row several times, have in common out of them.

    Args:
        rows: Sums of the inputs.
        intervals: Of each input.
        per_bit: What a bit of a row costs to add.

    Returns:
        The new numbers, the rows of inputs and new numbers, and the intervals of both.
    """
    work = _Sharing(rows, intervals, per_bit)
    work.run()
    shared = [{(term >> _NUMBER, term & _MASK): sign for term, sign in row.items()} for row in work.rows]
    return work.pairs, shared, work.intervals
