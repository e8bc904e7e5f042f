"""Fully parallel integer arithmetic at the level of bits: what stands between the program and the hardware.

A circuit is a list of nodes, each after those that it reads. A node makes a few bits; a word is any choice of bits with
the interval of the numbers that they hold, so shifting, slicing, negating a bit and taking parts cost nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from typing_extensions import override

from planish.targets.fpga.program import Codes, Integers


class Bit(NamedTuple):
    """A wire.

    Attributes:
        node: Which node makes it; -1 is the constant zero.
        place: Which of the node's bits, lowest first.
        inverted: Whether it is read through an inverter, which costs nothing in front of a look-up table or adder.
    """

    node: int
    place: int
    inverted: bool = False

    def __invert__(self) -> Bit:
        return Bit(self.node, self.place, not self.inverted)

    @property
    def constant(self) -> bool:
        """Whether it is always the same."""
        return self.node < 0


ZERO = Bit(-1, 0)
ONE = ~ZERO


@dataclass(frozen=True)
class Word:
    """A number on wires.

    Attributes:
        bits: Lowest first; two's complement where the number may be negative. As many as the interval needs.
        low: Smallest number.
        high: Largest number.
    """

    bits: tuple[Bit, ...]
    low: int
    high: int

    @property
    def signed(self) -> bool:
        """Whether the highest bit counts less than nothing."""
        return self.low < 0

    @classmethod
    def constant(cls, number: int) -> Word:
        """A number that is always the same."""
        return cls(tuple(ONE if number >> k & 1 else ZERO for k in range(width(number, number))), number, number)


def width(low: int, high: int) -> int:
    """Bits of the words that hold an interval."""
    return Codes(low, high).bits


@dataclass(frozen=True, eq=False)
class Node(ABC):
    """Something that makes bits.

    Attributes:
        layer: The operation of the program that it belongs to.
        width: How many bits.
        note: What they are, for people.
    """

    layer: str
    width: int
    note: str

    @property
    @abstractmethod
    def reads(self) -> Sequence[Bit]:
        """The bits that it depends on; constants may be among them."""

    @abstractmethod
    def run(self, wires: Wires) -> Integers:
        """The number that its bits stand for as an unsigned word, `(batch,)`."""


@dataclass(frozen=True, eq=False)
class Input(Node):
    """Bits that come from outside.

    Attributes:
        name: Of the input.
        lane: Its place among the input's numbers.
    """

    name: str
    lane: int

    @property
    @override
    def reads(self) -> Sequence[Bit]:
        return ()

    @override
    def run(self, wires: Wires) -> Integers:
        return wires.inputs[self.name][:, self.lane]


@dataclass(frozen=True, eq=False)
class Sum(Node):
    """`a + b + carry` modulo two to its width: one carry chain."""

    a: tuple[Bit, ...]
    b: tuple[Bit, ...]
    carry: Bit

    @property
    @override
    def reads(self) -> Sequence[Bit]:
        return (*self.a, *self.b, self.carry)

    @override
    def run(self, wires: Wires) -> Integers:
        return wires.number(self.a) + wires.number(self.b) + wires.bit(self.carry) & (1 << self.width) - 1


@dataclass(frozen=True, eq=False)
class Table(Node):
    """Any function of a few bits.

    Attributes:
        index: Lowest first.
        entries: Unsigned words, one for each index.
    """

    index: tuple[Bit, ...]
    entries: tuple[int, ...]

    @property
    @override
    def reads(self) -> Sequence[Bit]:
        return self.index

    @override
    def run(self, wires: Wires) -> Integers:
        return np.asarray(self.entries, dtype=np.int64)[wires.number(self.index)]


@dataclass(frozen=True, eq=False)
class Clamp(Node):
    """A word kept within bounds.

    Attributes:
        word: What comes in.
        low: The smallest number that may come out.
        high: The largest.
        ties: If these are all zero, the lowest bit of the word is cleared first: half to even.
    """

    word: Word
    low: int
    high: int
    ties: tuple[Bit, ...] = ()

    @property
    @override
    def reads(self) -> Sequence[Bit]:
        return (*self.word.bits, *self.ties)

    @override
    def run(self, wires: Wires) -> Integers:
        number = wires.word(self.word)
        if self.ties:
            number = np.where(wires.number(self.ties) == 0, number & ~1, number)
        return np.clip(number, self.low, self.high) & (1 << self.width) - 1


@dataclass
class Wires:
    """What is on the wires of a circuit for a batch of samples."""

    inputs: Mapping[str, Integers]
    made: list[Integers]

    def bit(self, bit: Bit) -> Integers | int:
        """`(batch,)` zeros and ones."""
        value = 0 if bit.constant else self.made[bit.node] >> bit.place & 1
        return value ^ 1 if bit.inverted else value

    def number(self, bits: Sequence[Bit]) -> Integers:
        """The unsigned number of some bits."""
        total = np.zeros((), dtype=np.int64)
        for place, bit in enumerate(bits):
            total = total + (self.bit(bit) << place)
        return total

    def word(self, word: Word) -> Integers:
        """The number of a word."""
        number = self.number(word.bits)
        return number - (((number >> len(word.bits) - 1) & 1) << len(word.bits)) if word.signed else number


@dataclass(frozen=True)
class Circuit:
    """Arithmetic as wires.

    Attributes:
        nodes: In an order in which each finds its bits made.
        outputs: The words of each output, by its name.
    """

    nodes: tuple[Node, ...]
    outputs: Mapping[str, tuple[Word, ...]]

    def run(self, inputs: Mapping[str, Integers]) -> dict[str, Integers]:
        """Codes of the outputs, `(batch, numbers)`, from those of the inputs."""
        wires = Wires(inputs, [])
        for node in self.nodes:
            wires.made.append(node.run(wires))
        batch = len(next(iter(inputs.values())))
        return {
            name: np.stack([np.broadcast_to(wires.word(word), batch) for word in words], axis=1)
            for name, words in self.outputs.items()
        }

    @cached_property
    def readers(self) -> dict[tuple[int, int], list[int]]:
        """The nodes that read each bit; the number of nodes stands for the outside."""
        found: dict[tuple[int, int], list[int]] = {}
        outside = [bit for words in self.outputs.values() for word in words for bit in word.bits]
        for reader, bits in enumerate([*(node.reads for node in self.nodes), outside]):
            for bit in dict.fromkeys((bit.node, bit.place) for bit in bits if not bit.constant):
                found.setdefault(bit, []).append(reader)
        return found
