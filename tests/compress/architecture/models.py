"""The networks that the passes are held to."""

from __future__ import annotations

from functools import cache

import torch

from planish.frontends import capture
from planish.graph import Graph
from planish.models.convnet import ConvNet
from planish.models.mlp import MLP
from planish.models.resnet import ResNet18
from planish.models.vit import ViT


def example(name: str, rows: int = 2) -> torch.Tensor:
    shape = {"mlp": (64,), "convnet": (1, 8, 8), "resnet": (3, 32, 32), "vit": (3, 32, 32)}[name]
    return torch.randn(rows, *shape, generator=torch.Generator().manual_seed(rows))


@cache
def graph(name: str) -> Graph:
    """With batch norms that have seen something, and no tensor at its start."""
    torch.manual_seed(0)
    model = {
        "mlp": MLP,
        "convnet": ConvNet,
        "resnet": lambda: ResNet18(10, 4),
        "vit": lambda: ViT(10, 32, 8, 32, 2, 4),
    }[name]()
    with torch.no_grad():
        for tensor in [*model.parameters(), *(b for n, b in model.named_buffers() if "running" in n)]:
            tensor += 0.05 * torch.rand_like(tensor)
    return capture(model.eval(), (example(name),), {"image" if name == "vit" else "x": {0: "batch"}})
