"""Tensors of codes as beats of a stream, and back: the layout on the wires.

Numbers go row-major, channels last; `lanes` of them, counted along the last axis, are a beat, lane 0 in the low bits.
The last beat of a row is padded with zeros, which readers ignore.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planish.targets.fpga.program import Integers, Value

Beats = NDArray[np.uint32]


@dataclass(frozen=True)
class Stream:
    """A value on wires.

    Attributes:
        name: Prefix of its three signals.
        value: What flows.
        lanes: Numbers in a beat.
    """

    name: str
    value: Value
    lanes: int

    @property
    def width(self) -> int:
        """Bits of a beat."""
        return self.lanes * self.value.codes.bits

    @property
    def beats(self) -> int:
        """Beats of a sample."""
        return self.value.size // self.value.row * -(-self.value.row // self.lanes)

    @property
    def words(self) -> int:
        """32-bit words of a beat, as the simulator sees it."""
        return -(-self.width // 32)

    def pack(self, codes: Integers) -> Beats:
        """The beats, `(samples * beats, words)`, of codes `(samples, *shape)`."""
        rows = codes.reshape(-1, self.value.row)
        padded = np.pad(rows, ((0, 0), (0, -self.value.row % self.lanes))).reshape(-1, self.lanes)
        places = np.arange(self.value.codes.bits, dtype=np.int64)
        beats = np.empty((len(padded), self.words), np.uint32)
        for start in range(0, len(padded), _CHUNK):
            part = padded[start : start + _CHUNK]
            bits = ((part[..., None] >> places) & 1).astype(np.uint8).reshape(len(part), -1)
            filled = np.pad(bits, ((0, 0), (0, self.words * 32 - self.width)))
            beats[start : start + _CHUNK] = np.packbits(filled, axis=1, bitorder="little").view("<u4")
        return beats

    def unpack(self, beats: Beats) -> Integers:
        """The inverse of `pack`: codes `(samples, *shape)`."""
        codes = np.empty((len(beats), self.lanes), np.int64)
        scale = np.int64(1) << np.arange(self.value.codes.bits, dtype=np.int64)
        if self.value.codes.signed:
            scale[-1] = -scale[-1]
        for start in range(0, len(beats), _CHUNK):
            part = np.ascontiguousarray(beats[start : start + _CHUNK], "<u4")
            bits = np.unpackbits(part.view(np.uint8), axis=1, bitorder="little")[:, : self.width]
            codes[start : start + _CHUNK] = bits.reshape(len(part), self.lanes, -1) @ scale
        rows = codes.reshape(-1, -(-self.value.row // self.lanes) * self.lanes)[:, : self.value.row]
        return rows.reshape(-1, *self.value.shape)


_CHUNK = 4096  # beats that are taken apart into bits at once
