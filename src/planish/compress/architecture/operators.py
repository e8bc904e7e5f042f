"""What can stand in the place of an operation or a module: factories by name.

A factory is given tensors of the shapes that go in and come out for the graph's example, and makes a module from one
to the other. To add one, name it in the entry-point group `planish.operator`, or here:

    "conv7x7": "planish.compress.architecture.operators:conv7x7",
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from planish.errors import OptionError
from planish.registry import Registry

Factory = Callable[[Tensor, Tensor], nn.Module]
"""`(example of what goes in, example of what comes out) -> module`."""
Pair = tuple[int, int]
KEEP = "keep"
_HERE = "planish.compress.architecture.operators"

operators = Registry(
    "operator",
    {
        "average-pool": f"{_HERE}:average_pool",
        "conv1x1": f"{_HERE}:conv1x1",
        "conv1x1-bn-relu": f"{_HERE}:conv1x1_block",
        "conv3x3": f"{_HERE}:conv3x3",
        "conv3x3-bn-relu": f"{_HERE}:conv3x3_block",
        "conv5x5": f"{_HERE}:conv5x5",
        "conv5x5-bn-relu": f"{_HERE}:conv5x5_block",
        "depthwise3x3": f"{_HERE}:depthwise3x3",
        "depthwise5x5": f"{_HERE}:depthwise5x5",
        "gelu": f"{_HERE}:gelu",
        "hardswish": f"{_HERE}:hardswish",
        "identity": f"{_HERE}:identity",
        "linear": f"{_HERE}:linear",
        "max-pool": f"{_HERE}:max_pool",
        "none": f"{_HERE}:zero",
        "relu": f"{_HERE}:relu",
        "relu6": f"{_HERE}:relu6",
        "sigmoid": f"{_HERE}:sigmoid",
        "silu": f"{_HERE}:silu",
        "skip": f"{_HERE}:identity",
        "tanh": f"{_HERE}:tanh",
        "zero": f"{_HERE}:zero",
    },
)


def make(name: str, x: Tensor, y: Tensor, seed: int, place: str) -> nn.Module:
    """A registered operator for a place; its parameters depend on the seed and the place only.

    Raises:
        OptionError: It cannot go from the one shape to the other; names the place.
    """
    factory: Factory = operators[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((seed * 1_000_003 + zlib.crc32(place.encode())) % 2**63)
        try:
            module = factory(x, y)
        except OptionError as error:
            raise OptionError(f"{name!r} cannot stand here: {error.what}", place, error.hint) from error
    return module.eval()


class Zero(nn.Module):
    """Zeros of the output's shape, whatever goes in.

    Args:
        x: Example of what goes in.
        y: Example of what comes out.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.same = x.shape == y.shape
        rows = len(x) // len(y) if len(y) and x.ndim and len(x) % len(y) == 0 else 0
        if not self.same and rows != 1:
            raise OptionError(f"{tuple(x.shape)} and {tuple(y.shape)} have not the same rows")
        self.sizes = tuple(y.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, ...)` to zeros of `(batch, *sizes)`."""
        return torch.zeros_like(x) if self.same else x.new_zeros((x.shape[0], *self.sizes))


def identity(x: Tensor, y: Tensor) -> nn.Module:
    """What goes in comes out; where an image gets smaller, every n-th pixel."""
    if x.shape == y.shape:
        return nn.Identity()
    if x.ndim == y.ndim == 4 and x.shape[:2] == y.shape[:2]:
        down, across = (-(-size // fewer) for size, fewer in zip(x.shape[2:], y.shape[2:], strict=True))
        if (-(-x.shape[2] // down), -(-x.shape[3] // across)) == tuple(y.shape[2:]):
            return nn.AvgPool2d(1, (down, across))
    raise _unlike(x, y)


def zero(x: Tensor, y: Tensor) -> nn.Module:
    """Zeros: an edge that is not there."""
    return Zero(x, y)


def linear(x: Tensor, y: Tensor) -> nn.Module:
    """A linear layer over the last axis, with bias."""
    if x.shape[:-1] != y.shape[:-1]:
        raise _unlike(x, y)
    return nn.Linear(x.shape[-1], y.shape[-1])


def _convolution(side: int, x: Tensor, y: Tensor) -> nn.Module:
    return _conv(x, y, side)


def _block(side: int, x: Tensor, y: Tensor) -> nn.Module:
    return nn.Sequential(_conv(x, y, side, bias=False), nn.BatchNorm2d(y.shape[1]), nn.ReLU())


def _depthwise(side: int, x: Tensor, y: Tensor) -> nn.Module:
    if x.ndim != 4 or y.shape[1] % x.shape[1]:
        raise OptionError(f"each of {x.shape[1]} channels would make as many of {y.shape[1]}", hint="'conv3x3'")
    return _conv(x, y, side, groups=x.shape[1])


conv1x1, conv3x3, conv5x5 = (partial(_convolution, side) for side in (1, 3, 5))
conv1x1_block, conv3x3_block, conv5x5_block = (partial(_block, side) for side in (1, 3, 5))
depthwise3x3, depthwise5x5 = (partial(_depthwise, side) for side in (3, 5))


def average_pool(x: Tensor, y: Tensor) -> nn.Module:
    """The mean of 3×3 pixels, those outside of the image left out."""
    strides, padding = _pooled(x, y)
    return nn.AvgPool2d(3, strides, padding, count_include_pad=False)


def max_pool(x: Tensor, y: Tensor) -> nn.Module:
    """The largest of 3×3 pixels."""
    return nn.MaxPool2d(3, *_pooled(x, y))


def _activation(kind: type[nn.Module], x: Tensor, y: Tensor) -> nn.Module:
    if x.shape != y.shape:
        raise _unlike(x, y)
    return kind()


relu, relu6, gelu, silu = (partial(_activation, kind) for kind in (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU))
hardswish, sigmoid, tanh = (partial(_activation, kind) for kind in (nn.Hardswish, nn.Sigmoid, nn.Tanh))


def _conv(x: Tensor, y: Tensor, side: int, groups: int = 1, bias: bool = True) -> nn.Conv2d:
    strides, padding = _windows(x, y, side)
    return nn.Conv2d(x.shape[1], y.shape[1], side, strides, padding, groups=groups, bias=bias)


def _pooled(x: Tensor, y: Tensor) -> tuple[Pair, Pair]:
    if x.shape[:2] != y.shape[:2]:
        raise _unlike(x, y)
    return _windows(x, y, 3)


def _windows(x: Tensor, y: Tensor, side: int) -> tuple[Pair, Pair]:
    """Strides and paddings by which windows of `side` pixels go from one image's size to the other's."""
    if x.ndim != 4 or y.ndim != 4 or len(x) != len(y):
        raise OptionError(f"it makes images of images, not {tuple(y.shape)} of {tuple(x.shape)}")
    down, across = (_window(size, wanted, side) for size, wanted in zip(x.shape[2:], y.shape[2:], strict=True))
    if down is None or across is None:
        raise OptionError(f"no stride and padding of {side}×{side} windows lead from {_sides(x)} to {_sides(y)} pixels")
    return (down[0], across[0]), (down[1], across[1])


def _window(size: int, wanted: int, side: int) -> Pair | None:
    """Stride and padding along one axis."""
    for stride in range(1, size + 1):
        for padding in range(side // 2, -1, -1):
            if (size + 2 * padding - side) // stride + 1 == wanted:
                return stride, padding
    return None


def _unlike(x: Tensor, y: Tensor) -> OptionError:
    return OptionError(f"it would make {tuple(y.shape)} of {tuple(x.shape)}")


def _sides(image: Tensor) -> str:
    return "×".join(map(str, image.shape[2:]))
