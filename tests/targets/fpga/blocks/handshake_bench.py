"""Runs inside the simulator, started by test_handshake: random valid and ready, and a reset in the middle of it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge

BEATS = 300


def words(beat: int, width: int, count: int) -> list[int]:
    return [beat >> (i * width) & ((1 << width) - 1) for i in range(count)]


def beat_of(numbers: list[int], width: int) -> int:
    return sum(number << (i * width) for i, number in enumerate(numbers))


def same(beats: list[int]) -> list[int]:
    return beats


def relaned(beats: list[int]) -> list[int]:
    """Rows of 10 numbers of 8 bits: 4 a beat become 6 a beat."""
    made = []
    for row in range(0, len(beats) - 2, 3):
        numbers = [word for beat in beats[row : row + 3] for word in words(beat, 8, 4)][:10]
        made += [beat_of(numbers[:6], 8), beat_of(numbers[6:], 8)]
    return made


def rounded(beats: list[int]) -> list[int]:
    """18 bits to 6 without a sign, 6 fraction bits off, half to even (as Python's `round`)."""
    signed = [beat - (beat >> 17 << 18) for beat in beats]
    return [min(max(round(number / 64), 0), 63) for number in signed]


def windows(beats: list[int]) -> list[int]:
    """3 x 3 windows with zeros around over 5 x 5 places of 2 beats."""
    made = []
    for start in range(0, len(beats) - 49, 50):
        for y in range(5):
            for x in range(5):
                for v in range(y - 1, y + 2):
                    for u in range(x - 1, x + 2):
                        inside = 0 <= v < 5 and 0 <= u < 5
                        made += [beats[start + (v * 5 + u) * 2 + i] if inside else 0 for i in range(2)]
    return made


EXPECTED: dict[str, Callable[[list[int]], list[int]]] = {
    "fifo": same,
    "skid": same,
    "lanes": relaned,
    "requantize": rounded,
    "window": windows,
}


async def stream(dut, beats: list[int], wanted: int, rng: random.Random) -> list[int]:
    """Offer beats and take them, each with a random pace, until so many came out; a beat on offer must not change."""
    taken: list[int] = []
    given, offered, promised = 0, False, None
    for _ in range(40 * (len(beats) + wanted)):
        offered = offered or (given < len(beats) and rng.random() < 0.6)
        dut.in_valid.value = int(offered)
        dut.in_data.value = beats[given] if offered else rng.getrandbits(len(dut.in_data))
        dut.out_ready.value = int(rng.random() < 0.6)
        await ReadOnly()
        valid, ready = bool(dut.out_valid.value), bool(dut.out_ready.value)
        if promised is not None:
            assert valid, "a beat on offer was taken back"
            assert dut.out_data.value == promised, "a beat on offer has changed"
        promised = dut.out_data.value if valid and not ready else None
        if valid and ready:
            taken.append(int(dut.out_data.value))
        accepted = offered and bool(dut.in_ready.value)
        await RisingEdge(dut.clk)
        given, offered = given + accepted, offered and not accepted
        if len(taken) == wanted:
            return taken
        await FallingEdge(dut.clk)
    raise AssertionError(f"{len(taken)} of {wanted} beats came out")


@cocotb.test()
async def handshakes(dut) -> None:
    rng = random.Random(int(os.environ["SEED"]))
    cocotb.start_soon(Clock(dut.clk, 10, "ns").start())
    expected = EXPECTED[os.environ["BLOCK"]]
    # Each round ends in the middle of what it should give, and the reset forgets the rest.
    for share in (0.5, 0.3, 1.0):
        dut.rst.value, dut.in_valid.value, dut.out_ready.value = 1, 0, 0
        for _ in range(3):
            await RisingEdge(dut.clk)
        await FallingEdge(dut.clk)
        dut.rst.value = 0
        beats = [rng.getrandbits(len(dut.in_data)) for _ in range(BEATS)]
        wanted = expected(beats)
        count = int(len(wanted) * share)
        assert await stream(dut, beats, count, rng) == wanted[:count]
        await FallingEdge(dut.clk)
