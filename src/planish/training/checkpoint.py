"""Checkpoints: one safetensors file each, everything that is no tensor as JSON in its header. No pickle.

A file is written whole or not at all, the last few are kept, and one that cannot be read gives way to the one before.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from planish.errors import UserError

KEPT = 2
"""Checkpoints that stay; the last may be torn by a failing disk."""


class Checkpoints:
    """A folder of checkpoints.

    Args:
        folder: Made if absent. A training whose options are the same continues from what is in it.
        every: Steps between two checkpoints.
    """

    def __init__(self, folder: str | os.PathLike[str], every: int = 100) -> None:
        self.folder, self.every = Path(folder), every

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint, and remove those that are too many.

        Raises:
            UserError: The disk refused; earlier checkpoints are still there.
        """
        tensors: dict[str, torch.Tensor] = {}
        header = json.dumps(_pack(state, tensors))
        target = self._file(step)
        draft = target.with_suffix(".draft")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, draft, {"training": header})
            draft.replace(target)
            for old in self._files()[:-KEPT]:
                old.unlink()
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise UserError(f"cannot write a checkpoint: {error}", str(target), "free space on disk") from error

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint that can be read; None where there is none.

        Raises:
            UserError: There are some, and none can be read.
        """
        files = self._files()
        for file in reversed(files):
            with suppress(OSError, SafetensorError, ValueError, KeyError), safe_open(file, "pt") as stream:
                return _unpack(json.loads(stream.metadata()["training"]), stream)
        if files:
            raise UserError("no checkpoint can be read", str(self.folder), "delete the folder to start again")
        return None

    def _file(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.safetensors"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"))


def _pack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Plain data, tensors moved to `tensors` under their numbers."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"$tensor": name}
    if isinstance(value, dict):
        return {"$dict": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(item, tensors) for item in value]
    return value


def _unpack(value: Any, stream: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(item, stream) for item in value]
    if isinstance(value, dict):
        if "$tensor" in value:
            return stream.get_tensor(value["$tensor"])
        return {key: _unpack(item, stream) for key, item in value["$dict"]}
    return value
