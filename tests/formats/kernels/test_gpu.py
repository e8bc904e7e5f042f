"""The Triton kernel gives the numbers and codes of the torch definition, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import require_package

NAMES = "uint8@channel1 int4@g7 q3.4 e4m3~infinity e5m2fnuz tf32 float32 mxfp8 mxfp4~nan-max nvfp4 nf4@g64 se4m0z"


@pytest.mark.long
def test_equals_torch_in_the_interpreter() -> None:
    require_package("triton")
    result = subprocess.run(
        [sys.executable, "-m", "tests.formats.kernels.interpreted", *NAMES.split()],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout == ""
