"""The kernels are compiled once, by whatever compiler there is, and its absence is no error."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from planish.errors import EngineError
from planish.formats.kernels import compiled, library
from tests.support import require_tool

BUILD = """
import sys
from planish.formats.kernels import compiled
compiled.SOURCES = ("packing.cpp",)
print(compiled.build(sys.argv[1], compiled.FLAGS))
"""


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and the smaller source, which compiles in a second."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "SOURCES", ("packing.cpp",))
    return tmp_path / "planish" / "kernels"


def program(folder: Path, text: str) -> str:
    """A compiler that does what `text` says."""
    file = folder / "compiler"
    file.write_text("#!/bin/sh\n" + text)
    file.chmod(0o755)
    return str(file)


def test_no_compiler_means_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert compiled.find_compiler() is None
    assert compiled.load.__wrapped__(("-O0",)) is None


def test_off_means_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANISH_KERNELS", "off")
    assert library.__wrapped__() is None


def test_cxx_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = program(tmp_path, "exit 0\n")
    monkeypatch.setenv("CXX", mine)
    assert compiled.find_compiler() == mine


def test_a_broken_toolchain_is_reported_once_and_counts_as_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = program(tmp_path, "echo no linker >&2; exit 1\n")
    with caplog.at_level(logging.WARNING, "planish"):
        assert compiled.build(broken, compiled.FLAGS) is None
    assert [record.getMessage().endswith("computed by torch: no linker") for record in caplog.records] == [True]


def test_a_compiler_that_refuses_our_source_is_an_error(tmp_path: Path, cache_folder: Path) -> None:
    picky = program(tmp_path, 'case "$*" in *packing.cpp*) echo our fault >&2; exit 1;; esac\nexit 0\n')
    with pytest.raises(EngineError, match="our fault"):
        compiled.build(picky, compiled.FLAGS)
    assert list(cache_folder.iterdir()) == []


def test_a_library_is_compiled_once(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = require_tool("g++", "clang++", "c++")
    file = compiled.build(compiler, compiled.FLAGS)
    assert file is not None
    monkeypatch.setattr(compiled, "_compile", lambda *_: pytest.fail("compiled again"))
    assert compiled.build(compiler, compiled.FLAGS) == file
    assert list(cache_folder.iterdir()) == [file]


@pytest.mark.long
def test_two_processes_may_compile_at_once(cache_folder: Path) -> None:
    compiler = require_tool("g++", "clang++", "c++")
    command = [sys.executable, "-c", BUILD, compiler]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) for _ in range(2)]
    files = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert files == {str(next(cache_folder.iterdir()))}
    assert len(list(cache_folder.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = compiled._folder()
    assert folder.name.startswith("planish-kernels-")
    folder.rmdir()


@pytest.mark.long
@pytest.mark.parametrize("source", ["formats.cpp", "packing.cpp"])
def test_the_avx512_path_compiles(source: str) -> None:
    """This needs no such processor: only the types are checked."""
    compiler = require_tool("g++", "clang++")
    if compiled.NATIVE != "-march=native":
        pytest.skip("not an x86-64 processor")
    flags = ["-std=c++17", "-fsyntax-only", "-mavx2", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]
    done = subprocess.run(
        [compiler, *flags, str(compiled.FOLDER / source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
