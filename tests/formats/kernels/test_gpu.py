"""The Triton kernel gives the numbers and codes of the torch definition, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import require_package

NAMES = (
    "int8 uint8 int8@channel1 uint4@g32 int4@g7 int8@token q3.4 e4m3 e5m2 e4m3~infinity e5m2fnuz bfloat16 tf32 float16 "
    "float32 e3m2 e2m3 mxfp8 mxfp6 mxfp4 mxfp4~nan-max mxint8 bfp8 nvfp4 nf4@g64 posit8 se4m0z"
)


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
