"""A block of somebody else's, in two files outside of the library, used for a module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from planish.errors import UnknownName
from planish.targets.fpga.blocks import blocks
from planish.targets.fpga.emit import design
from planish.targets.fpga.netlist import block_of, connect
from planish.targets.fpga.target import Fpga
from tests.targets.fpga.test_emit import residual

PYTHON = '''
from planish.targets.fpga.blocks.base import Block, Fold, Instance

class Halve(Block):
    """The quarter of a number, rounded: what this test's requantization happens to be."""
    def folds(self, operation, inputs):
        return [Fold()]
    def instance(self, operation, inputs, fold):
        return Instance("halve", {"WIDTH": inputs[0].codes.bits}, interval=inputs[0].size)
'''
VERILOG = "module halve #(parameter int WIDTH = 8) ();\n  // ...\nendmodule\n"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "halve.py").write_text(PYTHON)
    (tmp_path / "halve.sv").write_text(VERILOG)
    spec = importlib.util.spec_from_file_location("halve_of_a_test", tmp_path / "halve.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "halve_of_a_test", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(blocks, "_all", {**blocks.table, "mine": "halve_of_a_test:Halve"})
    return "mine"


def test_it_is_used_for_its_module_alone(mine: str) -> None:
    program, folds = residual()
    chosen = {"block.act:requantize": mine}
    made = design(connect(program, folds, chosen=chosen))
    assert made.files["rtl/halve.sv"] == VERILOG
    assert "halve #(" in made.files["top.sv"]
    assert "requantize #(" not in made.files["top.sv"]
    for operation in program.operations[:1]:
        assert type(block_of(operation, {"block.act:requantize": mine})).__name__ == "LinearBlock"
    assert "requantize #(" in design(connect(program, folds, chosen={"block.fc:requantize": mine})).files["top.sv"]


def test_a_name_that_nobody_registered_is_refused() -> None:
    with pytest.raises(UnknownName, match="unknown block 'theirs'"):
        Fpga(blocks={"fc": "theirs"})
