"""What unrolled circuits take, against yosys and against tables whose size is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planish.targets.fpga.program import Codes, Linear, Lookup, Program, Requantize, Value
from planish.targets.fpga.toolchain.synthesize import synthesize
from planish.targets.fpga.toolchain.utilization import OUTSIDE, Utilization, total
from planish.targets.fpga.unrolled.area import areas, logic
from planish.targets.fpga.unrolled.circuit import ONE, ZERO, Bit, Clamp, Input, Sum, Table, Word
from planish.targets.fpga.unrolled.emit import design
from planish.targets.fpga.unrolled.pipeline import pipeline
from planish.targets.fpga.unrolled.unroll import unroll
from tests.support import require_package

BITS = tuple(Bit(0, place) for place in range(12))


def table(inputs: int, *functions: object) -> Table:
    """Functions `code -> bit` side by side."""
    entries = tuple(sum(int(each(code)) << k for k, each in enumerate(functions)) for code in range(1 << inputs))  # type: ignore[operator]
    return Table("y", len(functions), "", BITS[:inputs], entries)


def parity(code: int) -> int:
    return code.bit_count() & 1


@pytest.mark.parametrize(
    ("node", "cells"),
    [
        (table(4, parity), 1),
        (table(5, parity), 2),  # both halves, joined by a multiplexer
        (table(4, parity, parity), 1),
        (table(6, lambda code: code >> 3 & 1, lambda code: not code & 1, lambda code: 1), 0),  # wires
        (table(7, lambda code: code > 100), 1),  # and the multiplexers between it, zeros and ones
        (Sum("y", 2, "", BITS[:2], BITS[2:4], ZERO), 2),
        (Clamp("y", 4, "", Word(BITS[:7], -64, 63), 0, 15), 5),
    ],
)
def test_tables(node: Table | Sum | Clamp, cells: int) -> None:
    assert logic(node) == Utilization(lut4=cells)


@pytest.mark.parametrize(
    ("size", "carry", "chain", "tables"), [(4, ZERO, 2, 1), (4, ONE, 2, 1), (5, ZERO, 3, 0), (4, BITS[9], 3, 0)]
)
def test_chains(size: int, carry: Bit, chain: int, tables: int) -> None:
    node = Sum("y", size, "", BITS[:size], BITS[:size], carry)
    assert logic(node) == Utilization(lut4=tables, ccu2c=chain)


def small() -> Program:
    rng, wide = np.random.default_rng(5), Codes(-(2**20), 2**20)
    operations = (
        Linear(("x",), Value("s", (6,), wide), rng.integers(-8, 8, (6, 7)), rng.integers(-20, 20, 6)),
        Requantize(("s",), Value("a", (6,), Codes(0, 15, -3)), np.array(1), 3, "even"),
        Lookup(("a",), Value("t", (6,), Codes(-31, 31)), rng.integers(-31, 32, 16), 0),
        Linear(("t",), Value("z", (3,), wide), rng.integers(-8, 8, (3, 6))),
        Requantize(("z",), Value("y", (3,), Codes(-128, 127, -2)), np.array(1), 2, "up"),
    )
    return Program((Value("x", (7,), Codes(0, 15)),), operations, ("y",))


def test_layers_add_up() -> None:
    circuit = unroll(small())
    cut = pipeline(circuit, 6.0)
    found = areas(circuit, cut)
    assert set(found) == {OUTSIDE, "x", "s", "a", "t", "z", "y"}
    assert total(found.values()).ff == cut.registers + cut.stages + 1
    assert found["x"].ff >= sum(node.width for node in circuit.nodes if isinstance(node, Input))
    assert found["s"].ccu2c > found["z"].ccu2c > 0 == found["t"].ccu2c


@pytest.mark.long
@pytest.mark.parametrize("period", [5.0, 20.0])
def test_yosys_finds_the_same(tmp_path: Path, period: float) -> None:
    require_package("pyosys")
    program = small()
    circuit = unroll(program)
    cut = pipeline(circuit, period)
    for name, text in design(program, circuit, cut).files.items():
        (tmp_path / "design" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "design" / name).write_text(text)
    there, here = synthesize(tmp_path / "design", tmp_path / "out").total, total(areas(circuit, cut).values())
    assert here.ccu2c == there.ccu2c
    assert here.ff == pytest.approx(there.ff, rel=0.02)  # equal registers are merged
    assert here.lut == pytest.approx(there.lut, rel=0.05)
