"""Output registers go into block memories, and only where nothing else needs what is before them."""

from __future__ import annotations

from pathlib import Path

import pytest

from planish.targets.fpga.toolchain.synthesize import synthesize
from tests.support import require_package

DESIGN = """
module top (input logic clk, input logic ce, input logic rst, input logic [8:0] address, output logic [17:0] word);
  (* rom_style = "block" *) logic [17:0] words[512];
  initial for (int i = 0; i < 512; i++) words[i] = 18'(i * 577);
  logic [17:0] found;
  always_ff @(posedge clk) begin
    if (ce) found <= words[address];
    REGISTER
  end
endmodule
"""


@pytest.mark.parametrize(
    ("register", "left"),
    [
        ("if (ce) word <= found;", 0),
        ("word <= found;", 0),
        ("if (rst) word <= '0; else word <= found;", 18),
        ("word <= found ^ {18{ce}};", 18),
    ],
)
def test_only_plain_registers_are_moved(tmp_path: Path, register: str, left: int) -> None:
    require_package("pyosys")
    (tmp_path / "design").mkdir()
    (tmp_path / "design" / "top.sv").write_text(DESIGN.replace("REGISTER", register))
    found = synthesize(tmp_path / "design", tmp_path / "made")
    assert found.total.bram == 1
    assert found.total.ff == left
    assert ("OUTREG" in (found.folder / "netlist.json").read_text()) == (left == 0)
