"""Cold start and peak memory of an artifact, each in processes that have done nothing else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from safetensors.torch import save_file
from torch import Tensor

from planish.errors import DataError
from planish.measure import in_fresh_process
from planish.record import Measurement

_IMPORT = """\
import torch
import planish
from safetensors.torch import load_file
"""
_ANSWER = (
    _IMPORT
    + """\
import sys
inputs = load_file(sys.argv[2])
torch.set_num_threads(1)
artifact = planish.load(sys.argv[1])
places = sorted((name for name in inputs if name.isdigit()), key=int)
artifact(*(inputs[name] for name in places), **{name: inputs[name] for name in inputs if not name.isdigit()})
"""
)


def start(
    folder: str | os.PathLike[str],
    args: Sequence[Tensor] = (),
    kwargs: Mapping[str, Tensor] | None = None,
    *,
    subject: str = "chosen",
    times: int = 3,
) -> tuple[Measurement, Measurement]:
    """What the first answer costs.

    Args:
        folder: A saved artifact.
        args: Tensors of one call.
        kwargs: Likewise, by keyword.
        subject: The artifact's label.
        times: Processes to start.

    Returns:
        `cold_start`: seconds from the start of a process until it has imported Planish, loaded the artifact and
        answered; the median, with the fastest and the slowest. `peak_memory`: bytes above a process that only imports.

    Raises:
        DataError: An input is no tensor.
        OptionError: The artifact does not load or does not run; carries the end of what it printed.
    """
    inputs = {**{str(place): value for place, value in enumerate(args)}, **(kwargs or {})}
    for name, value in inputs.items():
        if not isinstance(value, Tensor):
            raise DataError(f"an input is a {type(value).__name__}, not a tensor", name, "time it in a warm process")
    with tempfile.TemporaryDirectory() as place:
        saved, idle, answer = (Path(place, name) for name in ("inputs.safetensors", "idle.py", "answer.py"))
        save_file({name: value.detach().clone().contiguous() for name, value in inputs.items()}, saved)
        idle.write_text(_IMPORT)
        answer.write_text(_ANSWER)
        bare = in_fresh_process([str(idle)], times=1)[0]
        runs = in_fresh_process([str(answer), str(folder), str(saved)], times=times)
    seconds = [run.seconds for run in runs]
    peaks = [run.peak_bytes - bare.peak_bytes for run in runs]
    details = {"processes": times}
    return (
        Measurement(
            "cold_start", median(seconds), "s", "measured", (min(seconds), max(seconds)), subject, details=details
        ),
        Measurement(
            "peak_memory",
            median(peaks),
            "B",
            "measured",
            (min(peaks), max(peaks)),
            subject,
            details={**details, "above": "a process that imports torch and planish"},
        ),
    )
