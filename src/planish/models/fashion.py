"""FashionMNIST, and two networks trained on it.

70,000 gray images of 28×28 pixels in ten classes of clothing: Xiao, Rasul and Vollgraf, "Fashion-MNIST" (2017), MIT
license, in the Debian package dataset-fashion-mnist. The 60,000 of the training part are split, in their own order,
into 50,000 to train on, 5,000 to calibrate with and 5,000 to choose options by; the 10,000 of the test part judge.
"""

from __future__ import annotations

import gzip
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from planish.models.data import Batches, debian_file
from planish.models.task import Task
from planish.models.vit import PatchEmbed, ViT
from planish.models.weights import read_weights

_FOLDER = "usr/share/datasets/fashion-mnist"
FILES = {
    name: ("dataset-fashion-mnist", f"{_FOLDER}/{name}-ubyte.gz", sha256)
    for name, sha256 in {
        "train-images-idx3": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
        "train-labels-idx1": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
        "t10k-images-idx3": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
        "t10k-labels-idx1": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
    }.items()
}
Split = Literal["train", "calibration", "validation", "evaluation"]
SPLITS: dict[Split, tuple[str, int, int]] = {
    "train": ("train", 0, 50_000),
    "calibration": ("train", 50_000, 55_000),
    "validation": ("train", 55_000, 60_000),
    "evaluation": ("t10k", 0, 10_000),
}


@cache
def _read(part: str, kind: str, header: int) -> np.ndarray:
    path = debian_file(*FILES[f"{part}-{kind}"])
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def images(split: Split, count: int | None = None) -> tuple[Tensor, Tensor]:
    """The first `count` images `(count, 1, 28, 28)` of a split, mean 0 and variance 1, and labels `(count,)`.

    Raises:
        DataError: The data is not installed and cannot be fetched.
    """
    part, first, last = SPLITS[split]
    last = last if count is None else min(last, first + count)
    pixels = _read(part, "images-idx3", 16).reshape(-1, 1, 28, 28)[first:last]
    labels = _read(part, "labels-idx1", 8)[first:last]
    return (torch.tensor(pixels, dtype=torch.float32) / 255 - 0.286) / 0.353, torch.tensor(labels, dtype=torch.int64)


def batches(split: Split, count: int | None = None, size: int = 50) -> Batches:
    """Images with labels as targets, in batches."""
    x, y = images(split, count)
    items = [((a,), {}, b) for a, b in zip(x.split(size), y.split(size), strict=True)]
    return Batches(items, f"{len(x):,} images of FashionMNIST ({split})")


class ConvBlock(nn.Module):
    """A 3×3 convolution with batch norm and ReLU; pooled by two if asked to."""

    def __init__(self, in_channels: int, channels: int, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn, self.relu = nn.BatchNorm2d(channels), nn.ReLU()
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_channels, h, w)` to `(batch, channels, h, w)`, or half of h and w."""
        return self.pool(self.relu(self.bn(self.conv(x))))


class FashionNet(nn.Module):
    """Five convolutions, most of the work in the last three: easy images need less."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            ConvBlock(1, 16, pool=True),
            ConvBlock(16, 32, pool=False),
            ConvBlock(32, 64, pool=True),
            ConvBlock(64, 128, pool=False),
            ConvBlock(128, 128, pool=False),
        )
        self.fc = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, 1, 28, 28)` to `(batch, 10)`."""
        return self.fc(self.blocks(x).mean((2, 3)))


class Patches(PatchEmbed):
    """Tokens of 4×4 pixels, one every two pixels, so that neighbors overlap."""

    def __init__(self, dim: int) -> None:
        super().__init__(2, 1, dim)
        self.proj = nn.Conv2d(1, dim, 4, stride=2, padding=1)


def fashion_vit() -> ViT:
    """A vision transformer of six blocks on 196 tokens and a class token."""
    model = ViT(num_classes=10, image=28, patch=2, dim=96, depth=6, heads=3)
    model.patch_embed = Patches(96)
    return model


def _task(name: str, model: nn.Module, family: str, argument: str, count: int) -> Task:
    accuracy = read_weights(name, model)
    return Task(
        model=model,
        example_inputs=(images("calibration", 2)[0],),
        calibration=batches("calibration", 500),
        evaluation=batches("evaluation", count),
        validation=batches("validation"),
        metric=("accuracy", "sqnr"),
        name=name,
        dynamic={argument: {0: "batch"}},
        family=family,
        description=f"trained on FashionMNIST by benchmarks/train_tasks.py, {accuracy}",
    )


def cnn(count: int = 10_000) -> Task:
    """A convolutional network on FashionMNIST, judged on `count` images."""
    return _task("fashion_cnn", FashionNet(), "convolutional network", "x", count)


def vit(count: int = 10_000) -> Task:
    """A vision transformer with many tokens on FashionMNIST, judged on `count` images."""
    return _task("fashion_vit", fashion_vit(), "transformer encoder", "image", count)
