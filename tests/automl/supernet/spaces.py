"""Small spaces: a cell, a slimmable network and a transformer."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from planish.automl.supernet import Slot, Supernet
from planish.compress import Attention, Depth, Heads, KernelSize, Quantize, Replace, Width
from planish.frontends import capture
from planish.graph import Graph
from planish.models.digits import digits
from planish.models.vit import ViT

OPERATIONS = {"none": "none", "skip": "skip", "conv1x1": "conv1x1-bn-relu", "conv3x3": None}


class Cell(nn.Module):
    """Two edges side by side."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, 2, 1), nn.BatchNorm2d(channels), nn.ReLU())
        self.edges = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
            for _ in range(2)
        )
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((self.edges[0](x) + self.edges[1](x)).relu_().mean((2, 3)))


@cache
def cell() -> tuple[Graph, tuple[Slot, ...]]:
    torch.manual_seed(0)
    graph = capture(Cell().eval(), (torch.randn(2, 1, 8, 8),), {"x": {0: "batch"}})
    return graph, tuple(
        Slot(
            f"edge{edge}",
            tuple(OPERATIONS),
            tuple(by and Replace(by, f"path('edges.{edge}')", "modules") for by in OPERATIONS.values()),
        )
        for edge in range(2)
    )


@cache
def slim() -> tuple[Graph, tuple[Slot, ...]]:
    """Kernel, width, bits of the same layers."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    graph = capture(model.eval(), (torch.randn(2, 1, 8, 8),), {"input": {0: "batch"}})
    return graph, (
        Slot("bits", (2, 8, "float"), (Quantize("int2", where="conv"), Quantize("int8", where="conv"), None)),
        Slot(
            "kernel",
            (1, 3, 5, 7),
            (*(KernelSize(size, "path('0')") for size in (1, 3)), None, KernelSize(7, "path('0')")),
        ),
        Slot("width", (0.25, 0.5, 1.0), (Width(0.25), Width(0.5), None)),
    )


@cache
def transformer() -> tuple[Graph, tuple[Slot, ...]]:
    torch.manual_seed(2)
    graph = capture(ViT(10, 16, 8, 16, 2, 4).eval(), (torch.randn(2, 3, 16, 16),), {"image": {0: "batch"}})
    return graph, (
        Slot("attention", ("softmax", "linear", "identity"), (None, Attention("linear"), Attention("identity"))),
        Slot("heads", (2, 4), (Heads(2), None)),
        Slot("depth", (2, 4), (Depth(2), None)),
        Slot("activation", ("gelu", "relu"), (None, Replace("relu", "gelu"))),
    )


SPACES = {"cell": cell, "slim": slim, "transformer": transformer}


def supernet(name: str = "cell") -> Supernet:
    return Supernet(*SPACES[name]())


def loss(module: nn.Module, item: tuple) -> Tensor:
    return functional.cross_entropy(module(*item[0]), item[2])


@cache
def data(split: str, rows: int = 100) -> list[tuple]:
    images, labels = digits(split, (1, 8, 8))
    return [((x,), {}, y) for x, y in zip(images.split(rows), labels.split(rows), strict=True)]
