"""Sums, tables and clamps put into a circuit, with the delay of each on ECP5 beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from planish.targets.fpga.unrolled import delay
from planish.targets.fpga.unrolled.circuit import ONE, ZERO, Bit, Clamp, Input, Node, Sum, Table, Word, width
from planish.targets.fpga.unrolled.columns import Columns
from planish.targets.fpga.unrolled.share import TABLE_BITS, Pair, Row, share

NOTE = 60
"""Letters of a formula that is told in the text of the design."""


@dataclass
class Builder:
    """A circuit being made.

    Attributes:
        nodes: So far.
        arrival: When the bits of each node are there, without registers (ns).
        layer: The operation that nodes belong to from now on.
    """

    nodes: list[Node] = field(default_factory=list)
    arrival: list[float] = field(default_factory=list)
    layer: str = ""

    def put(self, node: Node) -> tuple[Bit, ...]:
        """Add a node; its bits."""
        start = max((self.ready(bit) for bit in node.reads), default=0.0)
        self.nodes.append(node)
        self.arrival.append(start + delay.through(node))
        return tuple(Bit(len(self.nodes) - 1, index) for index in range(node.width))

    def ready(self, bit: Bit) -> float:
        """When a bit is there (ns)."""
        return 0.0 if bit.constant else self.arrival[bit.node]

    def input(self, name: str, lane: int, low: int, high: int) -> Word:
        """A number from outside."""
        return Word(self.put(Input(self.layer, width(low, high), f"{name}[{lane}]", name, lane)), low, high)

    def add(self, a: Sequence[Bit], b: Sequence[Bit], carry: Bit, note: str = "") -> tuple[Bit, ...]:
        """One carry chain."""
        return self.put(Sum(self.layer, len(a), note, tuple(a), tuple(b), carry))

    def pair(self, first: Word, second: Word, pair: Pair, low: int, high: int, note: str) -> Word:
        """`first + sign * (second << shift)`."""
        size = width(low, high)
        if pair.first == pair.second and len(first.bits) <= TABLE_BITS:
            return self._multiple(first, pair.factor, low, high, note)
        a, b = _extended(first, size), (ZERO,) * pair.shift + _extended(second, size - pair.shift)
        if pair.sign < 0 and pair.first == pair.second:
            return Word(self.add([~bit for bit in a], b, ONE, note), low, high)
        passed, a, b = a[: pair.shift], a[pair.shift :], b[pair.shift :]
        if pair.sign < 0:
            b = tuple(~bit for bit in b)
        made = self.add(a, b, ONE if pair.sign < 0 else ZERO, note)
        return Word((*passed, *made), low, high)

    def _multiple(self, word: Word, factor: int, low: int, high: int, note: str) -> Word:
        """A small number times a constant, by tables."""
        size = width(low, high)
        entries = tuple(
            (code - (1 << len(word.bits)) if word.signed and code >> len(word.bits) - 1 else code) * factor
            & (1 << size) - 1
            for code in range(1 << len(word.bits))
        )
        return Word(self.put(Table(self.layer, size, note, word.bits, entries)), low, high)

    def linear(
        self, words: Sequence[Word], rows: Sequence[Row], constants: Sequence[int], names: Sequence[str]
    ) -> list[Word]:
        """Sums of shifted words and constants, one for each row, sharing what they have in common."""
        bounds = [_bounds(words, row, constant) for row, constant in zip(rows, constants, strict=True)]
        pairs, rows, intervals = share(rows, [(word.low, word.high) for word in words])
        known = list(words)
        notes = list(names)
        for pair in pairs:
            first, second = known[pair.first], known[pair.second]
            note = _named(pair, notes[pair.first], notes[pair.second])
            notes.append(note if len(note) < NOTE else f"p{len(notes)}")
            known.append(self.pair(first, second, pair, *intervals[len(known)], note))
        sums = zip(rows, constants, bounds, strict=True)
        return [self._row(known, row, constant, *ends) for row, constant, ends in sums]

    def shifted(self, word: Word, shift: int, rounding: str, low: int, high: int) -> Word:
        """`clamp(round(word * 2**-shift), low, high)`, where half a step was added to the word unless it is floored."""
        if shift <= 0:
            kept, ties = Word((ZERO,) * -shift + word.bits, word.low << -shift, word.high << -shift), ()
        else:
            ends = word.low >> shift, word.high >> shift
            top = word.bits[-1] if word.signed else ZERO
            bits = (*word.bits[shift:], top)[: width(*ends)]
            kept, ties = Word(bits, *ends), word.bits[:shift] if rounding == "even" else ()
        lowest = kept.low & ~1 if ties else kept.low
        bounds = min(max(lowest, low), high), max(min(kept.high, high), low)
        if not ties and bounds == (kept.low, kept.high):
            return kept
        if bounds[0] == bounds[1]:
            return Word.constant(bounds[0])
        return Word(self.put(Clamp(self.layer, width(*bounds), f"kept in {low}..{high}", kept, *bounds, ties)), *bounds)

    def lookup(self, word: Word, table: Sequence[int], base: int) -> Word:
        """A word's entry of a table, which begins with that of `base`."""
        size = len(word.bits)
        numbers = [code - (1 << size) if word.signed and code >> size - 1 else code for code in range(1 << size)]
        entries = [table[number - base] if word.low <= number <= word.high else 0 for number in numbers]
        reached = [entry for number, entry in zip(numbers, entries, strict=True) if word.low <= number <= word.high]
        low, high = min(reached), max(reached)
        if low == high:
            return Word.constant(low)
        wide = width(low, high)
        coded = tuple(entry & (1 << wide) - 1 for entry in entries)
        return Word(self.put(Table(self.layer, wide, f"table of {len(table)} entries", word.bits, coded)), low, high)

    def _row(self, known: Sequence[Word], row: Row, constant: int, low: int, high: int) -> Word:
        if constant == 0 and len(row) == 1:
            (((shift, number), sign),) = row.items()
            if sign > 0:
                word = known[number]
                return Word((ZERO,) * shift + word.bits, word.low << shift, word.high << shift)
        size = width(low, high)
        columns = Columns(size, self.add, self.ready)
        columns.constant(constant)
        for (shift, number), sign in row.items():
            columns.add(known[number].bits, shift, sign, signed=known[number].signed)
        return Word(columns.total(), low, high)


def _bounds(words: Sequence[Word], row: Row, constant: int) -> tuple[int, int]:
    """What a row may be: each word counts once, however many terms it has."""
    weights: dict[int, int] = {}
    for (shift, number), sign in row.items():
        weights[number] = weights.get(number, 0) + sign * (1 << shift)
    ends = [sorted((weight * words[n].low, weight * words[n].high)) for n, weight in weights.items()]
    return constant + sum(low for low, _ in ends), constant + sum(high for _, high in ends)


def _extended(word: Word, size: int) -> tuple[Bit, ...]:
    """The word's bits up to a width."""
    return (*word.bits, *((word.bits[-1] if word.signed else ZERO,) * (size - len(word.bits))))[:size]


def _named(pair: Pair, first: str, second: str) -> str:
    if pair.first == pair.second:
        return f"{pair.factor} * {_bracketed(first)}"
    return f"{first} {'-+'[pair.sign > 0]} {f'{1 << pair.shift} * ' if pair.shift else ''}{_bracketed(second)}"


def _bracketed(note: str) -> str:
    return f"({note})" if " " in note else note
