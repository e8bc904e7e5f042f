"""Small models and data that the tests of compression share."""

from __future__ import annotations

import torch
from torch import nn

from planish.frontends import capture
from planish.graph import Graph


class Attention(nn.Module):
    """Self-attention with separate projections, a residual and a layer norm, then a wide layer with GELU."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.after = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.before(x)
        split = [p(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.query, self.key, self.value)]
        mixed = nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        x = self.after(x + self.out(mixed))
        return x + self.down(nn.functional.gelu(self.up(x)))


def attention(seed: int = 0) -> Graph:
    """With outlier channels in the input of `up`."""
    torch.manual_seed(seed)
    model = Attention()
    with torch.no_grad():
        model.after.weight[::11] *= 20
    return capture(model.eval(), (torch.randn(2, 6, 32),), dynamic={"x": {0: "batch"}})


def mlp(seed: int = 0) -> Graph:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
    return capture(model.eval(), (torch.randn(4, 16),), dynamic={"input": {0: "batch"}})


def convnet(seed: int = 0) -> Graph:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.Linear(8 * 16, 5)
    )
    return capture(model.eval(), (torch.randn(2, 3, 8, 8),))


def items(
    graph: Graph, count: int = 4, seed: int = 1
) -> list[tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]]:
    """Random calibration data of the shape of the example."""
    generator = torch.Generator().manual_seed(seed)
    (example,), _ = graph.example
    return [((torch.randn(example.shape, generator=generator),), {}) for _ in range(count)]


def error(graph: Graph, other: Graph, seed: int = 2) -> float:
    """Relative error of the output on data of its own."""
    total = signal = 0.0
    for args, _ in items(graph, seed=seed):
        exact = graph(*args)
        total += float((other(*args) - exact).square().sum())
        signal += float(exact.square().sum())
    return (total / signal) ** 0.5
