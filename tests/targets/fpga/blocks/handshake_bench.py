"""Runs inside the simulator, started by test_handshake: random valid and ready at every port, and resets in between."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge

from planish.targets.fpga.streams import Stream
from tests.targets.fpga.blocks.every import every, samples

SAMPLES = 3
PACE = 0.6
PATIENCE = 20_000
"""Cycles in which all must come out."""


@dataclass
class Input:
    """Offers beats; one on offer stays until it is taken."""

    dut: object
    stream: Stream
    beats: list[int]
    rng: random.Random
    offered: bool = False

    def drive(self) -> None:
        self.offered = self.offered or (bool(self.beats) and self.rng.random() < PACE)
        self.signal("valid").value = int(self.offered)
        self.signal("data").value = self.beats[0] if self.offered else self.rng.getrandbits(self.stream.width)

    def look(self) -> None:
        if self.offered and bool(self.signal("ready").value):
            self.offered = False
            self.beats.pop(0)

    def signal(self, name: str):
        return getattr(self.dut, f"{self.stream.name}_{name}")


@dataclass
class Output:
    """Takes beats; one on offer must not change or go away."""

    dut: object
    stream: Stream
    wanted: int
    rng: random.Random
    taken: list[int] = field(default_factory=list)
    promised: int | None = None

    def drive(self) -> None:
        self.signal("ready").value = int(len(self.taken) < self.wanted and self.rng.random() < PACE)

    def look(self) -> None:
        valid, ready = bool(self.signal("valid").value), bool(self.signal("ready").value)
        if self.promised is not None:
            assert valid, f"{self.stream.name}: a beat on offer was taken back"
            assert int(self.signal("data").value) == self.promised, f"{self.stream.name}: a beat on offer has changed"
        if valid and ready:
            self.taken.append(int(self.signal("data").value))
        self.promised = int(self.signal("data").value) if valid and not ready else None

    def check(self, expected: np.ndarray) -> None:
        """The rows that were taken whole are the first ones of what is expected."""
        row, stream = -(-self.stream.value.row // self.stream.lanes), self.stream
        count = len(self.taken) // row * stream.value.row
        words = np.zeros((len(expected) * stream.beats, stream.words), np.uint32)
        for at, beat in enumerate(self.taken):
            words[at] = [beat >> 32 * i & 0xFFFFFFFF for i in range(stream.words)]
        assert stream.unpack(words).reshape(-1)[:count].tolist() == expected.reshape(-1)[:count].tolist(), stream.name

    def signal(self, name: str):
        return getattr(self.dut, f"{self.stream.name}_{name}")


@cocotb.test()
async def handshakes(dut) -> None:
    rng = random.Random(int(os.environ["SEED"]))
    cocotb.start_soon(Clock(dut.clk, 10, "ns").start())
    design = every()
    # Each round ends somewhere in what should come out, and the reset forgets the rest.
    for share in (0.3, 0.6, 1.0):
        given, expected = samples(SAMPLES, rng.getrandbits(30))
        inputs = [
            Input(dut, stream, [int.from_bytes(beat.tobytes(), "little") for beat in stream.pack(codes)], rng)
            for stream, codes in zip(design.inputs, given, strict=True)
        ]
        outputs = [Output(dut, stream, max(int(SAMPLES * stream.beats * share), 1), rng) for stream in design.outputs]
        dut.rst.value = 1
        for each in inputs:
            each.signal("valid").value = 0
        for _ in range(3):
            await RisingEdge(dut.clk)
        await FallingEdge(dut.clk)
        dut.rst.value = 0
        for _ in range(PATIENCE):
            for each in (*inputs, *outputs):
                each.drive()
            await ReadOnly()
            for each in (*inputs, *outputs):
                each.look()
            await FallingEdge(dut.clk)
            if all(len(each.taken) == each.wanted for each in outputs):
                break
        else:
            waiting = [each.stream.name for each in outputs if len(each.taken) < each.wanted]
            raise AssertionError(f"nothing more comes out of {waiting}")
        for each, wanted in zip(outputs, expected, strict=True):
            each.check(wanted)
