"""Cold start and peak memory of a model, each in processes that have done nothing else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from planish.errors import DataError, UserError
from planish.measure import Fresh, in_fresh_process
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
from planish.errors import PlanishError
inputs = load_file(sys.argv[2])
torch.set_num_threads(1)
try:
    model = planish.load(sys.argv[1])
except PlanishError as error:
    sys.exit(error.what)
places = sorted((name for name in inputs if name.isdigit()), key=int)
model(*(inputs[name] for name in places), **{name: inputs[name] for name in inputs if not name.isdigit()})
"""
)


def start(
    models: Mapping[str, str | os.PathLike[str]],
    args: Sequence[Tensor] = (),
    kwargs: Mapping[str, Tensor] | None = None,
    *,
    times: int = 3,
) -> Iterator[tuple[Measurement, Measurement]]:
    """What the first answer costs.

    Args:
        models: Label -> a saved artifact, or a graph (`.planish`), which PyTorch then runs eagerly.
        args: Tensors of one call.
        kwargs: Likewise, by keyword.
        times: Processes to start for each.

    Yields:
        For each model, as soon as it is known: `cold_start`, seconds from the start of a process until it has imported
        Planish, loaded the model and answered, the median, with the fastest and the slowest; and `peak_memory`, bytes
        above a process that only imports.

    Raises:
        DataError: An input is no tensor.
        UserError: The disk refused a temporary file.
        OptionError: A model does not load or does not run; carries the end of what it printed.
    """
    inputs = {**{str(place): value for place, value in enumerate(args)}, **(kwargs or {})}
    for name, value in inputs.items():
        if not isinstance(value, Tensor):
            raise DataError(f"an input is a {type(value).__name__}, not a tensor", name, "time it in a warm process")
    with tempfile.TemporaryDirectory() as place:
        saved, idle, answer = (Path(place, name) for name in ("inputs.safetensors", "idle.py", "answer.py"))
        try:
            save_file({name: value.detach().clone().contiguous() for name, value in inputs.items()}, saved)
            idle.write_text(_IMPORT)
            answer.write_text(_ANSWER)
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot write a temporary file: {error}", place, "TMPDIR=another folder") from error
        bare = in_fresh_process([str(idle)], times=1)[0]
        for label, path in models.items():
            runs = in_fresh_process([str(answer), str(path), str(saved)], times=times)
            yield _rows(label, runs, bare)


def _rows(label: str, runs: Sequence[Fresh], bare: Fresh) -> tuple[Measurement, Measurement]:
    def row(name: str, unit: str, values: list[float], details: dict[str, object]) -> Measurement:
        spread = (min(values), max(values)) if len(values) > 1 else None
        return Measurement(name, median(values), unit, "measured", spread, label, details=details)

    details: dict[str, object] = {"processes": len(runs)}
    above = {**details, "above": "a process that imports torch and planish"}
    return (
        row("cold_start", "s", [run.seconds for run in runs], details),
        row("peak_memory", "B", [run.peak_bytes - bare.peak_bytes for run in runs], above),
    )
