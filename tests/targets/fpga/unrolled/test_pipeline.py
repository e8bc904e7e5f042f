"""Registers of unrolled circuits: where they may stand, that they are few, and that no stage is too long."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planish.errors import OptionError
from planish.targets.fpga.program import Codes, Linear, Program, Requantize, Value
from planish.targets.fpga.unrolled import delay
from planish.targets.fpga.unrolled.circuit import Circuit, Input
from planish.targets.fpga.unrolled.pipeline import pipeline, registers
from planish.targets.fpga.unrolled.unroll import unroll


def perceptron(seed: int = 0, widths: tuple[int, int, int] = (5, 4, 3)) -> Circuit:
    """Two layers of random weights of four bits."""
    rng, wide = np.random.default_rng(seed), Codes(-(2**20), 2**20)
    taken, hidden, given_out = widths
    operations = (
        Linear(("x",), Value("s", (hidden,), wide), rng.integers(-8, 8, (hidden, taken))),
        Requantize(("s",), Value("a", (hidden,), Codes(0, 15, -3)), np.array(1), 3, "up"),
        Linear(("a",), Value("y", (given_out,), Codes(-(2**20), 2**20, -3)), rng.integers(-8, 8, (given_out, hidden))),
    )
    return unroll(Program((Value("x", (taken,), Codes(0, 15)),), operations, ("y",)))


def sources(circuit: Circuit, node: int) -> set[int]:
    return {bit.node for bit in circuit.nodes[node].reads if not bit.constant}


@given(st.integers(0, 2**31), st.sampled_from([3.5, 5.0, 8.0, 30.0]))
@settings(max_examples=15)
def test_no_stage_is_longer_than_the_clock(seed: int, period: float) -> None:
    circuit = perceptron(seed)
    cut = pipeline(circuit, period)
    time: list[float] = []
    for index, node in enumerate(circuit.nodes):
        assert all(cut.stage[each] <= cut.stage[index] for each in sources(circuit, index))
        own = max((time[each] for each in sources(circuit, index) if cut.stage[each] == cut.stage[index]), default=0.0)
        time.append(own + (0.0 if isinstance(node, Input) else delay.through(node)))
    assert max(time) + delay.REGISTER == pytest.approx(cut.period)
    assert cut.period <= period + 1e-9
    assert max(cut.stage) < cut.stages
    assert all(stage == 0 for stage, node in zip(cut.stage, circuit.nodes, strict=True) if isinstance(node, Input))


@given(st.integers(0, 2**31))
@settings(max_examples=15)
def test_two_stages_have_the_fewest_registers(seed: int) -> None:
    circuit = perceptron(seed, (2, 1, 1))
    free = [index for index, node in enumerate(circuit.nodes) if not isinstance(node, Input)]
    assume(len(free) <= 8)
    for period in np.arange(3.5, 14.0, 0.5):
        try:
            cut = pipeline(circuit, float(period))
        except OptionError:
            continue
        if cut.stages != 2:
            continue
        fewest = min(
            registers(circuit, stage, 2)
            for chosen in product((0, 1), repeat=len(free))
            if fits(circuit, stage := stages_of(circuit, free, chosen), float(period))
        )
        assert cut.registers == fewest


def stages_of(circuit: Circuit, free: list[int], chosen: tuple[int, ...]) -> list[int]:
    stage = [0] * len(circuit.nodes)
    for index, each in zip(free, chosen, strict=True):
        stage[index] = each
    return stage


def fits(circuit: Circuit, stage: list[int], period: float) -> bool:
    time = [0.0] * len(stage)
    for index, node in enumerate(circuit.nodes):
        if any(stage[each] > stage[index] for each in sources(circuit, index)):
            return False
        if not isinstance(node, Input):
            begin = max((time[e] for e in sources(circuit, index) if stage[e] == stage[index]), default=0.0)
            time[index] = begin + delay.through(node)
    return max(time) + delay.REGISTER <= period + 1e-9


def test_a_bit_is_kept_until_its_last_reader() -> None:
    circuit = perceptron()
    inputs = sum(node.width for node in circuit.nodes if isinstance(node, Input))
    outputs = len({(bit.node, bit.place) for word in circuit.outputs["y"] for bit in word.bits if not bit.constant})
    cut = pipeline(circuit, 100.0)
    assert cut.stages == 1
    assert cut.registers == inputs + outputs


def test_a_faster_clock_takes_more_stages() -> None:
    circuit = perceptron()
    found = [pipeline(circuit, period) for period in (100.0, 12.0, 8.0, 5.0, 4.0)]
    assert [cut.stages for cut in found] == sorted(cut.stages for cut in found)
    assert found[-1].stages > found[0].stages
    assert found[-1].registers > found[0].registers


def test_a_clock_that_is_too_fast_is_refused_with_the_fastest() -> None:
    circuit = perceptron()
    with pytest.raises(OptionError, match="a single step takes") as told:
        pipeline(circuit, 1.0)
    slowest = max(delay.through(node) for node in circuit.nodes if not isinstance(node, Input)) + delay.REGISTER
    assert str(int(1e3 / slowest)) in str(told.value)
