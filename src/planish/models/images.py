"""Pictures from no camera: the dead-leaves model.

Disks of random color fall on each other until almost nothing is left bare; their radii follow a power law. Edges,
occlusion, scale invariance and the 1/f spectrum of photographs come out (Lee, Mumford and Huang, "Occlusion Models for
Natural Images", 2001), which white noise has none of. They exercise a network's numerics; they carry no labels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from planish.models.data import Batches


def dead_leaves(count: int, size: int = 224, seed: int = 0, leaves: int = 400) -> Tensor:
    """`(count, 3, size, size)` images with zero mean and unit variance per channel over the whole set."""
    generator = torch.Generator().manual_seed(seed)
    smallest = (0.03 * size) ** -2
    images = torch.zeros(count, 3, size, size)
    for image in images:
        draws = torch.rand(leaves, 6, generator=generator)
        # inverse of the cumulative distribution of radii, density r^-3 between 3 % and 50 % of the side
        radii = (smallest + draws[:, 2] * ((0.5 * size) ** -2 - smallest)).rsqrt()
        image += torch.rand(3, 1, 1, generator=generator)
        for (row, column, _, *color), radius in zip(draws.tolist(), radii.tolist(), strict=True):
            _drop(image, row * size, column * size, radius, color)
    images += 0.02 * torch.randn(images.shape, generator=generator)
    return (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), keepdim=True)


def _drop(image: Tensor, row: float, column: float, radius: float, color: list[float]) -> None:
    """Paint one disk over the image, within the square that bounds it."""
    size = image.shape[-1]
    top, left = max(0, int(row - radius)), max(0, int(column - radius))
    y = torch.arange(top, min(size, int(row + radius) + 1))[:, None]
    x = torch.arange(left, min(size, int(column + radius) + 1))[None, :]
    inside = (y - row) ** 2 + (x - column) ** 2 < radius**2
    window = image[:, top : top + y.shape[0], left : left + x.shape[1]]
    window.copy_(torch.where(inside, torch.tensor(color)[:, None, None], window))


def clips(count: int, frames: int = 8, size: int = 112, seed: int = 0) -> Tensor:
    """`(count, 3, frames, size, size)` clips: a window that moves over a larger picture."""
    pictures = dead_leaves(count, size + 4 * frames, seed)
    return torch.stack([pictures[:, :, 2 * t : 2 * t + size, 4 * t : 4 * t + size] for t in range(frames)], dim=2)


def batches(images: Tensor, size: int = 8) -> Batches:
    """Images in batches, without targets."""
    items = [((batch.contiguous(),), {}) for batch in images.split(size)]
    return Batches(items, f"{len(images)} synthetic images (dead leaves)")
