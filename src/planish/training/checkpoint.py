"""Checkpoints: a folder each, tensors as safetensors by torch's distributed checkpoint, the rest as JSON. No pickle.

Every process writes what it has; what is read may be spread otherwise, over more or fewer processes. A checkpoint
counts once `state.json` is in it, which comes last and names every file with its size; one that is torn gives way to
the one before.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save
from torch.distributed.tensor import DTensor

from planish.errors import UserError

KEPT = 2
"""Checkpoints that stay; the last may be torn by a failing disk."""
STATE = "state.json"
Like = Callable[[str, torch.Size, torch.dtype], Tensor | None]
"""`(name, shape, type) -> ` a tensor to read into, spread as its reader wants it; None leaves it."""


class Checkpoints:
    """A folder of checkpoints, shared by all processes of a training.

    Args:
        folder: Made if absent. A training whose options are the same continues from what is in it.
        every: Steps between two checkpoints.
    """

    def __init__(self, folder: str | os.PathLike[str], every: int = 100) -> None:
        self.folder, self.every = Path(folder), every
        self._pending: tuple[Path, Future[None]] | None = None
        self._group: dist.ProcessGroup | None = None
        self._world: dist.ProcessGroup | None = None

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "checkpoint")

    def save(self, step: int, tensors: Mapping[str, Tensor], rest: dict[str, Any]) -> None:
        """Begin to write a checkpoint, once the one before is whole; training goes on meanwhile.

        Args:
            step: Its number.
            tensors: This process's, by name; what is spread is a `DTensor`, and what several have is equal.
            rest: Plain data, of which tensors are a part.

        Raises:
            UserError: The disk refused this one or the one before; earlier ones are still there.
        """
        self.finish()
        own = {name: tensor.detach().clone() for name, tensor in tensors.items()}  # training goes on to change them
        plain = _pack(rest, own)
        draft = self.folder / f"step-{step:09d}.draft"
        with self._refusing(draft):
            if _rank() == 0:
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir(parents=True)
            writer = HuggingFaceStorageWriter(str(draft), save_distributed=True)
            if not dist.is_initialized():
                with _one_process():
                    save(own, storage_writer=writer, no_dist=True)
                self._count(draft, plain)
                return
            if self._world is not dist.group.WORLD:  # of its own, since it talks while training does
                self._group = dist.new_group(backend="gloo")  # pyright: ignore[reportAttributeAccessIssue]  # all are members
                self._world = dist.group.WORLD
            dist.barrier(self._group)
            written = async_save(own, storage_writer=writer, process_group=self._group)
        self._pending = draft, self._threads.submit(self._close, written, draft, plain)

    def finish(self) -> None:
        """Wait for the checkpoint that is being written.

        Raises:
            UserError: As for `save`.
        """
        if self._pending is not None:
            (draft, closed), self._pending = self._pending, None
            with self._refusing(draft):
                closed.result()

    def _close(self, written: Any, draft: Path, plain: dict[str, Any]) -> None:
        written.result()
        dist.barrier(self._group)
        if _rank() == 0:
            self._count(draft, plain)

    def _count(self, draft: Path, plain: dict[str, Any]) -> None:
        """Make a draft count, and remove those that are too many."""
        sizes = {file.name: file.stat().st_size for file in sorted(draft.iterdir())}
        (draft / STATE).write_text(json.dumps({"files": sizes, "state": plain}))
        target = draft.with_suffix("")
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
        for old in self._folders()[:-KEPT]:
            shutil.rmtree(old)

    def load(self, like: Like) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last checkpoint that is whole, or None where there is none: its tensors by name, and the rest.

        Args:
            like: Says what each tensor is read into.

        Raises:
            UserError: There are some, and none can be read.
        """
        folder = self._agreed()
        if folder is None:
            return None
        reader = HuggingFaceStorageReader(str(folder))
        state = json.loads((folder / STATE).read_text())["state"]
        wanted: dict[str, Tensor] = {}
        for name, known in reader.read_metadata().state_dict_metadata.items():
            dtype = known.properties.dtype  # type: ignore[union-attr]  # all are tensors
            own = name.startswith(OWN)
            place = torch.empty(known.size, dtype=dtype) if own else like(name, known.size, dtype)  # type: ignore[union-attr]
            if place is not None:
                wanted[name] = place
        with _one_process():
            load(wanted, storage_reader=reader, no_dist=not dist.is_initialized())
        rest = _unpack(state, wanted)
        return {name: tensor for name, tensor in wanted.items() if not name.startswith(OWN)}, rest

    def _agreed(self) -> Path | None:
        """The same on all processes."""
        found: list[Any] = [None, 0]
        if _rank() == 0:
            folders = self._folders()
            found = [next((each.name for each in reversed(folders) if _is_whole(each)), None), len(folders)]
        if dist.is_initialized():
            dist.broadcast_object_list(found, 0)
        if found[0] is None and found[1]:
            raise UserError("no checkpoint can be read", str(self.folder), "delete the folder to start again")
        return self.folder / found[0] if found[0] else None

    @contextmanager
    def _refusing(self, draft: Path) -> Iterator[None]:
        """Within, what the disk refuses is told, and the draft removed."""
        try:
            yield
        except (OSError, CheckpointException) as error:
            with suppress(OSError):
                shutil.rmtree(draft)
            where = str(draft.with_suffix(""))
            raise UserError(f"cannot write a checkpoint: {error}", where, "free space on disk") from error

    def _folders(self) -> list[Path]:
        return sorted(each for each in self.folder.glob("step-*") if each.suffix != ".draft")


def _is_whole(folder: Path) -> bool:
    """Whether every file is there, at its size."""
    try:
        files = json.loads((folder / STATE).read_text())["files"]
        return bool(files) and all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError):
        return False


@contextmanager
def _one_process() -> Iterator[None]:
    """Within, torch does not warn that there is no process group."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


OWN = "state."
"""What names of tensors that are a part of plain data begin with."""


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Plain data, tensors moved to `tensors` under numbered names."""
    if isinstance(value, Tensor):
        name = f"{OWN}{len(tensors)}"
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"$tensor": name}
    if isinstance(value, dict):
        return {"$dict": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(item, tensors) for item in value]
    return value


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if isinstance(value, dict):
        if "$tensor" in value:
            return tensors[value["$tensor"]]
        return {key: _unpack(item, tensors) for key, item in value["$dict"]}
    return value


def like(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """An empty tensor, spread as another one is."""
    if isinstance(tensor, DTensor):
        return torch.empty_like(tensor, dtype=dtype)
    return torch.empty(tensor.shape, dtype=dtype)
