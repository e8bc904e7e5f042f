"""The random generators that a training may draw from, as plain data and tensors."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def state() -> dict[str, Any]:
    """Where torch's (on each device), numpy's and Python's generators are."""
    kind, keys, *rest = np.random.get_state()  # what data loaders draw from
    version, words, gauss = random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": list(cuda),
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": [version, list(words), gauss],
    }


def restore(given: dict[str, Any]) -> None:
    """Set all generators to a `state`."""
    torch.set_rng_state(given["torch"].cpu())
    if given["cuda"]:
        torch.cuda.set_rng_state_all([each.cpu() for each in given["cuda"]])
    kind, keys, *rest = given["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, words, gauss = given["python"]
    random.setstate((version, tuple(words), gauss))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within, all generators start from `seed`; afterwards they are as they were."""
    before = state()
    sow = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed
    sow(seed)  # the former keeps a list of what to do should there be a GPU one day, with a traceback each
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        restore(before)


def order(count: int, seed: int, epoch: int) -> list[int]:
    """The numbers below `count`, in an order that only seed and epoch decide."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(count, generator=generator).tolist()
