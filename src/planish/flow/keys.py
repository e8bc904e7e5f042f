"""What a stage was made from, as a short text: equal keys promise equal results.

Graphs and data are told apart by their contents, functions of the user by the file they stand in, everything else by
its text. A key is never read back, only compared.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planish.graph import Graph, store
from planish.models.task import Task
from planish.record import environment

_COMPUTING = ("planish", "torch", "numpy")
_RUNNING = (*_COMPUTING, "onnx", "onnxruntime", "openvino")


def key(*parts: object) -> str:
    """One key of several parts."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def graph_key(graph: Graph) -> str:
    """The operations, the tensors and the example inputs of a graph."""
    found = hashlib.sha256(f"{graph}\0{graph.fx}".encode())
    for name, tensor in sorted(graph.tensors.items()):
        found.update(name.encode())
        _add(found, tensor)
    for leaf in pytree.tree_leaves(graph.example):
        _add(found, leaf)
    return found.hexdigest()[:16]


def data_key(data: Iterable[Any]) -> str:
    """Every number of every item; reads the data once.

    Raises:
        DataError: As the data raises it where an item is not right.
    """
    found = hashlib.sha256()
    for item in data:
        for path, leaf in pytree.tree_leaves_with_path(item):
            found.update(pytree.keystr(path).encode())
            _add(found, leaf)
    return found.hexdigest()[:16]


def metrics_key(task: Task) -> str:
    """What a task judges a model by, and the data that its metrics bring."""
    parts: list[str] = []
    for metric, own in task.metrics:
        parts.append(metric if isinstance(metric, str) else _function_key(metric))
        parts.append(data_key(own) if own is not None else "")
    return key(*parts)


def folder_key(folder: Path) -> str:
    """The contents of an artifact's files; its README and what it says of the time it was made do not count."""
    found = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".onnx", ".planish", ".safetensors"):
            found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()[:16]


def computing() -> str:
    """The versions that a graph's numbers, and its file, depend on."""
    return f"{_versions(_COMPUTING)} file {store.VERSION}"


def running() -> str:
    """The versions and the machine that a time depends on."""
    machine = environment(command="")
    return f"{_versions(_RUNNING)} {machine['cpu']} {machine['cpu_features']} {machine['cores']}"


def _versions(packages: Iterable[str]) -> str:
    have = environment(command="")["versions"]
    return " ".join(f"{package} {have.get(package)}" for package in packages)


def _add(found: Any, leaf: object) -> None:
    if not isinstance(leaf, Tensor):
        found.update(repr(leaf).encode())
        return
    found.update(f"{leaf.dtype} {tuple(leaf.shape)}".encode())
    if leaf.numel():
        flat = leaf.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy())


def _function_key(function: Callable[..., Any]) -> str:
    """The file that the function, or the class of a callable object, stands in; and the object's own fields."""
    home = function if inspect.isroutine(function) or inspect.isclass(function) else type(function)
    fields = "" if home is function else data_key([getattr(function, "__dict__", {})])
    try:
        source = Path(inspect.getsourcefile(home) or "").read_bytes()
    except (OSError, TypeError):  # typed at a prompt, or compiled
        source = b""
    return key(home.__qualname__, fields, hashlib.sha256(source).hexdigest())
