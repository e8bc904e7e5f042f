"""Scikit-learn's handwritten digits, and networks trained on them in seconds.

1,797 gray images of 8×8 pixels (UCI, E. Alpaydin and C. Kaynak, 1998). A fixed permutation splits them into 1,000 to
train on, 150 to calibrate with, 147 to choose options by, and 500 to judge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from planish.errors import MissingExtra
from planish.models.data import Batches, cache_folder

SPLITS = {"train": (0, 1000), "calibration": (1000, 1150), "validation": (1150, 1297), "evaluation": (1297, 1797)}


@cache
def _load() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("scikit-learn", "zoo", "the digits data") from error
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels, dtype=torch.int64)[order]


def digits(split: str, shape: tuple[int, ...] = (64,)) -> tuple[Tensor, Tensor]:
    """Images `(count, *shape)` between 0 and 1, and their labels `(count,)`, of one of `SPLITS`."""
    images, labels = _load()
    rows = slice(*SPLITS[split])
    return images[rows].reshape(-1, *shape), labels[rows]


def batches(split: str, shape: tuple[int, ...] = (64,), size: int = 50) -> Batches:
    """Images with labels as targets, in batches."""
    images, labels = digits(split, shape)
    items = [((x,), {}, y) for x, y in zip(images.split(size), labels.split(size), strict=True)]
    return Batches(items, f"{len(images)} of scikit-learn's digits ({split})")


def trained(
    build: Callable[[], nn.Module], loss: Callable[[nn.Module, Tensor, Tensor], Tensor], shape: tuple[int, ...]
) -> nn.Module:
    """A network trained on the digits for 30 epochs from a fixed seed, in evaluation mode.

    Args:
        build: Makes the untrained network.
        loss: `(network, images, labels)` to a scalar.
        shape: Of an image, as the network wants it.

    The weights are kept in the user's cache folder under a hash of everything that decides them; a file that cannot be
    read is made again.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build()
        key = hashlib.sha256(f"{torch.__version__} {shape} {loss.__qualname__} {model}".encode()).hexdigest()[:16]
        file = cache_folder() / "digits" / f"{type(model).__name__.lower()}-{key}.safetensors"
        try:
            model.load_state_dict(load_file(file))
        except (OSError, SafetensorError, RuntimeError):
            _train(model, loss, *digits("train", shape))
            _keep(model, file)
    return model.eval()


def _train(
    model: nn.Module, loss: Callable[[nn.Module, Tensor, Tensor], Tensor], images: Tensor, labels: Tensor
) -> None:
    epochs, size = 30, 50
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * len(images) // size)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(size):
            optimizer.zero_grad()
            loss(model, images[rows], labels[rows]).backward()
            optimizer.step()
            schedule.step()


def _keep(model: nn.Module, file: Path) -> None:
    draft = file.with_suffix(".draft")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), draft)
        draft.replace(file)
    except OSError:
        draft.unlink(missing_ok=True)  # a cache that cannot be written only costs time
