"""A transformer as people write one, small or without storage."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

import planish
from planish.graph import Graph
from planish.training.planning.hardware import Hardware, Link


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        y = self.norm1(x)
        parts = (
            each(y).view(batch, length, self.heads, -1).transpose(1, 2) for each in (self.query, self.key, self.value)
        )
        y = functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, layers: int, width: int, heads: int, vocabulary: int, length: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def small(layers: int = 2, dtype: torch.dtype = torch.float32) -> Graph:
    """Real weights; batch 4 of 16 tokens."""
    torch.manual_seed(0)
    model = Transformer(layers, 32, 4, 64, 16).to(dtype)
    return planish.capture(model, (torch.randint(0, 64, (4, 16)),))


def large(layers: int, width: int = 4096, length: int = 1024) -> Graph:
    """No storage at all; batch 2."""
    with torch.device("meta"):
        model = Transformer(layers, width, 32, 32000, length)
        return planish.capture(model, (torch.zeros(2, length, dtype=torch.long),))


def toy(memory: float = 1e9) -> Hardware:
    """Slow arithmetic and quick links, on which dividing pays even for small products."""
    peak = {"fp32": 1e9, "bf16": 1e9}
    return Hardware("toy", "a toy", peak, memory, 1e10, 8, Link(1e9, 1e-9), Link(1e8, 1e-9), "none")
