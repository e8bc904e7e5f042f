"""Small models of each family, in float64 unless said otherwise, with data whose batches have 8 rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import planish
from planish.graph import Graph
from planish.models.vit import ViT

Item = tuple[tuple[Any, ...], dict[str, Any], Any]
ROWS, TOKENS, WORDS = 8, 6, 32


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.heads = nn.LayerNorm(width), nn.LayerNorm(width), heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        h = self.norm1(x)
        q, k, v = (
            each(h).view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
            for each in (self.q, self.k, self.v)
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """A decoder whose head is tied to its embedding."""

    def __init__(self, width: int = 16, heads: int = 4, layers: int = 4) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(WORDS, width), nn.Embedding(TOKENS, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, WORDS, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).transpose(1, 2)  # (batch, classes, tokens)


class CNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(i, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU()) for i in (1, 8, 8, 8)]
        )
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class GNN(nn.Module):
    """Graph convolutions over one graph that all rows share (arXiv 1609.02907)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(i, 8) for i in (4, 8, 8, 8)])
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        for layer in self.layers:
            x = functional.relu(adjacency @ layer(x))
        return self.head(x.mean(1))


def gpt() -> tuple[nn.Module, list[Item]]:
    data = [((torch.randint(0, WORDS, (ROWS, TOKENS)),), {}, torch.randint(0, WORDS, (ROWS, TOKENS))) for _ in range(7)]
    return GPT(), data


def vit() -> tuple[nn.Module, list[Item]]:
    made = ViT(num_classes=10, image=16, patch=8, dim=16, depth=4, heads=4)
    return made, [((torch.randn(ROWS, 3, 16, 16),), {}, torch.randint(0, 10, (ROWS,))) for _ in range(7)]


def cnn() -> tuple[nn.Module, list[Item]]:
    return CNN(), [((torch.randn(ROWS, 1, 8, 8),), {}, torch.randint(0, 10, (ROWS,))) for _ in range(7)]


def gnn() -> tuple[nn.Module, list[Item]]:
    edges = (torch.rand(8, 8) < 0.4).float() + torch.eye(8)  # as long as a batch has rows
    shared = edges / edges.sum(1, keepdim=True)
    return GNN(), [((torch.randn(ROWS, 8, 4),), {"adjacency": shared}, torch.randint(0, 10, (ROWS,))) for _ in range(7)]


FAMILIES: dict[str, Callable[[], tuple[nn.Module, list[Item]]]] = {"gpt": gpt, "vit": vit, "cnn": cnn, "gnn": gnn}
INPUTS = {"gpt": "ids", "vit": "image", "cnn": "x", "gnn": "x"}


def made(family: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, list[Item]]:
    """A model and its data, the same each time."""
    torch.manual_seed(0)
    model, data = FAMILIES[family]()

    def typed(leaf: Any) -> Any:
        return leaf.to(dtype) if leaf.is_floating_point() else leaf

    pytree = torch.utils._pytree
    return model.to(dtype).eval(), pytree.tree_map(typed, data)


@cache
def captured(family: str, dtype: torch.dtype = torch.float64) -> tuple[Graph, list[Item]]:
    """The same, as a graph."""
    model, data = made(family, dtype)
    args, kwargs, _ = data[0]
    return planish.capture(model, (args, kwargs), dynamic={INPUTS[family]: {0: "batch"}}), data
