"""Every float32 there is, rounded to every element of 8 bits or fewer: ours against `ml_dtypes`.

    python -m benchmarks.format_sweep                # all formats; stop and go on when you like
    python -m benchmarks.format_sweep e4m3 e2m1      # these
    PLANISH_KERNELS=off python -m benchmarks.format_sweep    # the torch definition in place of the C++ kernels
    python -m benchmarks.format_sweep --check        # what is kept, as a table

`Format.cast` must give the oracle's number, to the sign of zero, and `Format.encode` its bit pattern, for each of the
2^32 bit patterns. Where libraries differ by design the format's fields say which of them is meant: overflow saturates
unless it says "infinity", which the oracle is told by clipping its input; NaN into an element that has none is ours to
define (zero), and left out. The log under `results/format_sweep/` has a line for each chunk of 2^24 inputs: how many
mismatched, and the SHA-256 of our codes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch

from planish.formats import Float, Format, get
from planish.formats.kernels import library

RESULTS = Path(__file__).parent / "results" / "format_sweep"
CHUNK, SLICE = 1 << 24, 1 << 19  # what is logged, and what the caches hold
BY = "torch" if library() is None else "C++"
ORACLES: dict[str, type] = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e4m3~infinity": ml_dtypes.float8_e4m3fn,
    "e5m2~infinity": ml_dtypes.float8_e5m2,
    "e4m3ieee~infinity": ml_dtypes.float8_e4m3,
    "e3m4~infinity": ml_dtypes.float8_e3m4,
    "e4m3fnuz~infinity": ml_dtypes.float8_e4m3fnuz,
    "e5m2fnuz~infinity": ml_dtypes.float8_e5m2fnuz,
    "e4m3b11fnuz~infinity": ml_dtypes.float8_e4m3b11fnuz,
}


def compare(form: Format, oracle: type, patterns: np.ndarray[Any, np.dtype[np.uint32]]) -> tuple[int, bytes]:
    """How many of the float32 numbers with these bit patterns differ, and our codes."""
    element = form.element
    assert isinstance(element, Float)
    x = patterns.view(np.float32)
    given = x if form.overflow == "infinity" else np.clip(x, element.minimum, element.maximum)
    with np.errstate(over="ignore", invalid="ignore"):
        theirs = given.astype(oracle)
    tensor = torch.from_numpy(x)
    codes, numbers = form.encode(tensor).codes.numpy(), form.cast(tensor).numpy()
    expected, wanted = theirs.view(np.uint8), theirs.astype(np.float32)
    wrong = numbers.view(np.uint32) != wanted.view(np.uint32)
    if element.has_nan:
        nan = np.isnan(x)
        their_nan, our_nan = np.isnan(wanted), np.isnan(numbers)
        wrong = np.where(their_nan, ~our_nan, wrong | (codes != expected))  # the payload of a NaN means nothing
        wrong |= nan & ~our_nan
    else:
        nan = np.isnan(x)
        wrong = np.where(nan, numbers != 0, wrong | (codes != expected))
    return int(wrong.sum()), codes.tobytes()


def sweep(name: str, path: Path, chunks: int = (1 << 32) // CHUNK) -> dict[str, Any]:
    """All chunks of one format that the log at `path` does not have yet; returns the log."""
    versions = {"torch": torch.__version__, "numpy": np.__version__, "ml_dtypes": version("ml_dtypes")}
    form, oracle = get(name), ORACLES[name]
    fresh = {"format": name, "text": str(form), "by": BY, "oracle": oracle.__name__, "versions": versions}
    log = json.loads(path.read_text()) if path.exists() else {**fresh, "seconds": 0.0, "chunks": []}
    if log["versions"] != versions or log["text"] != fresh["text"]:
        raise SystemExit(f"{path} was made with {log['versions']} for {log['text']}: remove it to start anew")
    while len(log["chunks"]) < chunks:
        begin = time.process_time()
        start = len(log["chunks"]) * CHUNK
        wrong, digest = 0, hashlib.sha256()
        for place in range(start, start + CHUNK, SLICE):
            count, codes = compare(form, oracle, np.arange(place, place + SLICE, dtype=np.uint32))
            wrong += count
            digest.update(codes)
        log["chunks"].append([wrong, digest.hexdigest()])
        log["seconds"] = round(log["seconds"] + time.process_time() - begin, 2)
        log["inputs"], log["mismatches"] = len(log["chunks"]) * CHUNK, sum(n for n, _ in log["chunks"])
        log["sha256"] = hashlib.sha256("".join(h for _, h in log["chunks"]).encode()).hexdigest()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text(json.dumps(log, indent=0))
        path.with_suffix(".part").replace(path)
    return log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(ORACLES))
    parser.add_argument("--check", action="store_true", help="only show what is kept")
    options = parser.parse_args()
    if unknown := set(options.formats) - set(ORACLES):
        parser.error(f"no oracle for {', '.join(unknown)}; there is one for {', '.join(ORACLES)}")
    torch.set_num_threads(1)
    if options.check:
        for path in sorted(RESULTS.glob("*/*.json")):
            show(json.loads(path.read_text()))
        return
    for name in options.formats or ORACLES:
        show(sweep(name, RESULTS / BY.replace("+", "p") / f"{name.replace('~', '-')}.json"))


def show(log: dict[str, Any]) -> None:
    done = f"{log['inputs']:>13,} inputs {log['mismatches']:>3,} mismatches {log['seconds']:>6.0f} CPU-s"
    print(f"{log['format']:22} {log['by']:5} {done}", flush=True)


if __name__ == "__main__":
    main()
