"""The C++ kernels as a library of this machine: compiled on first use, kept in the user's cache directory.

Without a compiler, or where `PLANISH_KERNELS=off`, there is no library, and formats compute with torch: the same bits,
slower. `PLANISH_KERNELS=portable` compiles for any processor of this family, to test that path.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from planish.errors import EngineError

FOLDER = Path(__file__).parent
SOURCES = ("formats.cpp", "packing.cpp")
HEADERS = ("vector.h", "elements.h", "blocks.h", "packing.h")
# contraction would fuse a product and a sum into one rounding; the definition has two
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fwrapv", "-fPIC", "-shared", "-pthread")
NATIVE = "-march=native" if platform.machine().lower() in ("x86_64", "amd64") else "-mcpu=native"

_POINTER, _INT, _LONG, _REAL = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float
_ARGUMENTS = {
    "planish_cast": (*[_POINTER] * 5, *[_INT] * 4),
    "planish_measure_and_cast": (*[_POINTER] * 8, _INT, _INT, *[_POINTER] * 3, _INT, _INT),
    "planish_ranges": (*[_POINTER] * 4, _INT, _INT),
    "planish_decode": (*[_POINTER] * 3, _INT, _INT, _REAL, _POINTER, _POINTER, _INT),
    "planish_pack": (_POINTER, _INT, _LONG, _INT, _POINTER, _INT),
    "planish_unpack": (_POINTER, _LONG, _INT, _INT, _POINTER, _INT, _INT),
}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where there is no compiler or they are switched off.

    Raises:
        EngineError: A working compiler refuses our source.
    """
    wanted = os.environ.get("PLANISH_KERNELS", "native")
    return None if wanted == "off" else load(FLAGS if wanted == "portable" else (*FLAGS, NATIVE))


@cache
def load(flags: tuple[str, ...]) -> ctypes.CDLL | None:
    """As `library`, with the compiler's flags."""
    compiler = find_compiler()
    file = build(compiler, flags) if compiler else None
    if file is None:
        return None
    loaded = ctypes.CDLL(str(file))
    for name, arguments in _ARGUMENTS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, None
    return loaded


def find_compiler() -> str | None:
    """`$CXX`, else the first of g++, clang++ and c++ on the PATH."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++", "c++")))), None)


def build(compiler: str, flags: tuple[str, ...]) -> Path | None:
    """The library's file, compiled unless it is kept from before; None where the compiler cannot compile anything.

    Several processes may build at once: each compiles to a file of its own and then renames it.
    """
    folder = _folder()
    file = folder / f"formats-{_key(compiler, flags)}.so"
    if file.exists():
        return file
    with tempfile.TemporaryDirectory(dir=folder) as place:
        result = Path(place, "library.so")
        failure = _compile(compiler, flags, [FOLDER / name for name in SOURCES], result)
        if not failure:
            result.replace(file)
            return file
        probe = Path(place, "probe.cpp")
        probe.write_text("#include <thread>\nint main() { std::thread([] {}).join(); }\n")
        if reason := _compile(compiler, ("-std=c++17", "-pthread"), [probe], Path(place, "probe")):
            logging.getLogger("planish").warning(
                "%s cannot compile a small program, so number formats are computed by torch: %s", compiler, reason
            )
            return None
    raise EngineError(f"{compiler} refuses the kernels of planish.formats:\n{failure}", str(FOLDER))


def _compile(compiler: str, flags: tuple[str, ...], sources: list[Path], result: Path) -> str:
    """Why it failed; empty where it did not."""
    command = [compiler, *flags, *map(str, sources), "-o", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr.strip()[-2000:] or f"exit code {done.returncode}") if done.returncode else ""


def _folder() -> Path:
    """`$XDG_CACHE_HOME/planish/kernels`, or below `~/.cache`; one for this process where that cannot be written."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "planish" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="planish-kernels-"))


def _key(compiler: str, flags: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in (*SOURCES, *HEADERS):
        digest.update((FOLDER / name).read_bytes())
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    digest.update("\0".join([*flags, compiler, version, _processor()]).encode())
    return digest.hexdigest()[:24]


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    return platform.machine() + "".join({line: None for line in lines if line.startswith(wanted)})
