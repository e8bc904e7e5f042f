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
        self.shifts = [shift << _NUMBER for shift in range(1 + max((s for row in rows for s, _ in row), default=0))]
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
        for key, seen in self.seen.items():
            self._offer(key, seen)

    def run(self) -> None:
        """Take pairs out until none is worth it."""
        while self.queue:
            gain, key = heapq.heappop(self.queue)
            now = self._gain(key, self.seen[key])
            if now == -gain:
                self._take(key)
            elif 0 < now < -gain:
                heapq.heappush(self.queue, (-now, key))

    def _pair(self, key: int) -> Pair:
        shift = key >> 1 & (1 << _SHIFT) - 1
        return Pair(key >> _NUMBER + _SHIFT + 1, key >> _SHIFT + 1 & _MASK, shift, -1 if key & 1 else 1)

    def _gain(self, key: int, seen: int) -> float:
        known = self.worth.get(key)
        if known is None:
            known = self.worth[key] = self._worth(self._pair(key))
        return self.per_bit * seen * known[0] - known[1]

    def _offer(self, key: int, seen: int) -> None:
        if seen > 1:  # a pair that is used once saves nothing
            gain = self._gain(key, seen)
            if gain > 0:
                heapq.heappush(self.queue, (-gain, key))

    def _worth(self, pair: Pair) -> tuple[int, int]:
        """Bits that each use saves, and cells that making the pair takes."""
        first, second = self.widths[pair.first], self.widths[pair.second]
        if pair.shift >= first:
            return 0, 1
        bits = width(*interval_of(pair, self.intervals))
        table = pair.first == pair.second and first <= TABLE_BITS
        return first + second - bits, bits - pair.shift + (not table)

    def _count(self, term: int, sign: int, others: Iterable[tuple[int, int]], by: int) -> list[int]:
        """Count the pairs of a term with others of its row; which they are."""
        seen, keys = self.seen, []
        number, shift = term & _MASK, term >> _NUMBER
        for other, other_sign in others:
            if term <= other:
                ends, distance = number << _NUMBER | other & _MASK, (other >> _NUMBER) - shift
            else:
                ends, distance = (other & _MASK) << _NUMBER | number, shift - (other >> _NUMBER)
            key = (ends << _SHIFT | distance) << 1 | (sign != other_sign)
            seen[key] += by
            keys.append(key)
        return keys

    def _take(self, key: int) -> None:
        """Make a pair a number and put it wherever its terms stand."""
        pair, made = self._pair(key), len(self.intervals)
        self.intervals.append(interval_of(pair, self.intervals))
        self.widths.append(width(*self.intervals[-1]))
        self.pairs.append(pair)
        grown: dict[int, None] = {}
        apart = (pair.shift << _NUMBER) + pair.second
        for row in self.rows:
            for shift in self.shifts:
                term = shift | pair.first
                sign = row.get(term)
                if sign is None or row.get(shift + apart) != sign * pair.sign:
                    continue
                for each in (term, shift + apart):
                    self._count(each, row.pop(each), row.items(), -1)
                after = sign * pair.sign if pair.first == pair.second else sign
                grown.update(dict.fromkeys(self._count(shift | made, after, row.items(), 1)))
                row[shift | made] = after
        for each in grown:
            self._offer(each, self.seen[each])


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
