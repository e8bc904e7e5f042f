"""How an operation of the integer program becomes hardware: one block of SystemVerilog and this description of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from planish.targets.fpga.program import Integers, Operation, Value


@dataclass(frozen=True)
class Fold:
    """How much of an operation is done in a cycle.

    Attributes:
        simd: Numbers taken in at once: lanes of the block's inputs.
        pe: Numbers given out at once: lanes of the block's output.
        dsp: Multiply in DSP blocks, otherwise in LUTs.
    """

    simd: int = 1
    pe: int = 1
    dsp: bool = True


@dataclass(frozen=True)
class Memory:
    """Words that a block reads from a file as it starts.

    Attributes:
        words: Two's complement integers, `(depth,)`; or `(depth, numbers)`, then each word packs the numbers of a row,
            the first in the low bits.
        bits: Width of a number.
    """

    words: Integers
    bits: int


@dataclass(frozen=True)
class Instance:
    """A block with its parameters.

    Attributes:
        module: Name of the SystemVerilog module; its file is `rtl/<module>.sv`.
        parameters: Integers by the module's names; a memory's parameter holds its file's name.
        memories: By the parameter that names the file.
        lanes_in: Numbers in a beat of each input.
        lanes_out: Numbers in a beat of the output.
        interval: Cycles from a sample's first beat to the next one's, when nothing waits (initiation interval).
        latency: Cycles from the first beat in to the first beat out.
    """

    module: str
    parameters: Mapping[str, int]
    memories: Mapping[str, Memory] = field(default_factory=dict)
    lanes_in: tuple[int, ...] = (1,)
    lanes_out: int = 1
    interval: int = 1
    latency: int = 1


class Block(ABC):
    """A block of the library: which folds an operation can have, and the instance for one of them."""

    @abstractmethod
    def folds(self, operation: Operation, inputs: tuple[Value, ...]) -> list[Fold]:
        """From the smallest to the fastest; never empty. Sizes that do not divide are padded."""

    @abstractmethod
    def instance(self, operation: Operation, inputs: tuple[Value, ...], fold: Fold) -> Instance:
        """The block folded so."""
