"""The sweep of all float32: its log is whole and clean, it goes on where it stopped, and it sees a mismatch."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from benchmarks import format_sweep
from planish.formats import get

NARROW = ("e4m3", "e5m2", "e2m1", "e3m2")


@pytest.mark.parametrize("name", format_sweep.ORACLES)
def test_the_log_has_every_float32_and_no_mismatch(name: str) -> None:
    file = f"{name.replace('~', '-')}.json"
    logs = [json.loads(path.read_text()) for path in format_sweep.RESULTS.glob(f"*/{file}")]
    assert "C++" in {log["by"] for log in logs}
    assert name not in NARROW or len(logs) == 2
    for log in logs:
        assert (log["inputs"], log["mismatches"], len(log["chunks"])) == (1 << 32, 0, 256)
        assert log["text"] == str(get(name))
    assert len({log["sha256"] for log in logs}) == 1, "the kernels give the codes of the torch definition"


def test_it_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_sweep, "CHUNK", 8192)
    monkeypatch.setattr(format_sweep, "SLICE", 4096)
    path = tmp_path / "e4m3.json"
    first = format_sweep.sweep("e4m3", path, 2)
    assert (first["inputs"], first["mismatches"]) == (16384, 0)
    then = format_sweep.sweep("e4m3", path, 3)
    assert then["chunks"][:2] == first["chunks"]
    assert then["inputs"] == 3 * 8192
    assert format_sweep.sweep("e4m3", tmp_path / "again.json", 3)["sha256"] == then["sha256"]


def test_a_wrong_format_mismatches() -> None:
    patterns = np.arange(0x3F000000, 0x3F200000, 16, dtype=np.uint32)
    assert format_sweep.compare(get("e4m3"), ml_dtypes.float8_e4m3fn, patterns)[0] == 0
    for wrong in ("e4m3~away", "e3m4", "e4m3fnuz"):
        assert format_sweep.compare(get(wrong), ml_dtypes.float8_e4m3fn, patterns)[0] > 0
