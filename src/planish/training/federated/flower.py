"""Flower, as the rest of this package uses it, and what of it is not public: isolated here."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from planish.errors import DataError, MissingExtra

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # nothing is reported to anyone unless the user says so
try:
    from flwr.app import Array, ArrayRecord, Message, RecordDict
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
    from flwr.supercore.task_identity import TaskIdentity
except ImportError as error:
    raise MissingExtra("flwr", "federated", "federated training") from error

ARRAYS, METRICS, CONFIG = "arrays", "metrics", "config"
ROWS, LOSS = "num-examples", "loss"
CLIENT = "partition-id"
"""What Flower calls a client's number in the configuration of its node."""


@contextmanager
def quiet() -> Iterator[None]:
    """Within, Flower logs errors only."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def identity() -> Iterator[None]:
    """Within, messages can be made in this process, which no SuperLink started."""
    before = TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id
    TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = 1, 1, 1
    try:
        yield
    finally:
        TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before


def nbytes(message: Message) -> int:
    """Bytes of a message as it is sent: all that Flower serializes of it."""
    with no_object_id_recompute():
        return sum(len(each.deflate()) for each in get_all_nested_objects(message).values())


def copied(content: RecordDict) -> RecordDict:
    """Records of their own, arrays shared: what comes out at the other end of a wire."""
    return RecordDict({name: record.copy() for name, record in content.items()})


def record(tensors: Mapping[str, Tensor] | Mapping[str, np.ndarray]) -> ArrayRecord:
    """Tensors as Flower sends them."""
    return ArrayRecord({name: Array(np.ascontiguousarray(np.asarray(each))) for name, each in tensors.items()})


def tensors_of(arrays: ArrayRecord) -> dict[str, Tensor]:
    """The inverse of `record`."""
    return {name: torch.from_numpy(_values(array)) for name, array in arrays.items()}


def _values(array: Array) -> np.ndarray:
    """An array's numbers, writable; without reading the header of numpy's format where Flower has said the same."""
    if array.stype != "numpy.ndarray" or b"'fortran_order': False" not in array.data[:128]:
        return np.array(array.numpy(), copy=None)
    kind, count = np.dtype(array.dtype), math.prod(array.shape)
    if kind.hasobject or len(array.data) < count * kind.itemsize:
        raise DataError(f"{len(array.data)} bytes are no {kind} of shape {tuple(array.shape)}")
    return np.frombuffer(array.data, kind, count, len(array.data) - count * kind.itemsize).reshape(array.shape).copy()
