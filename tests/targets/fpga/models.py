"""Small networks of every kind that the FPGA target takes, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

import planish
from planish.compress import Quantize
from planish.graph import Graph
from planish.models.vit import Block, ViT
from planish.targets.fpga.lower import lower
from planish.targets.fpga.prepare import Prepare
from planish.targets.fpga.program import Program


class Residual(nn.Module):
    """Two convolutions with batch norms, and a sum with what came in."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.norm2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.skip = nn.Identity() if stride == 1 and channels == out else nn.Conv2d(channels, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, channels, H, W)` to `(B, out, H / stride, W / stride)`."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.skip(x))


class Cnn(nn.Module):
    """A residual network on gray images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(16, 10)
        self.blocks, self.pool = nn.Sequential(Residual(8, 8), Residual(8, 16, 2)), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 1, 14, 14)` to `(B, 10)`."""
        x = functional.max_pool2d(functional.relu(self.stem(x)), 2)
        return self.head(self.pool(self.blocks(x)).flatten(1))


class Flat(nn.Module):
    """A convolution whose channels are flattened for a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 6, 3), nn.Linear(96, 5)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 2, 6, 6)` to `(B, 5)`."""
        return self.head(functional.relu(self.conv(x)).flatten(1))


class Depthwise(nn.Module):
    """Depthwise and grouped convolutions, and activations that need tables."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth, self.norm = (
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8),
            nn.BatchNorm2d(8),
        )
        self.point, self.grouped, self.head = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 12, 3, groups=3), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 3, 12, 12)` to `(B, 4)`."""
        x = functional.hardswish(self.norm(self.depth(functional.relu6(self.stem(x)))))
        x = functional.avg_pool2d(self.grouped(functional.silu(self.point(x))), 2)
        return self.head(x.mean((2, 3)))


class Cnn3d(nn.Module):
    """Convolutions over time, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 8, 3, stride=2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 1, 8, 8, 8)` to `(B, 3)`."""
        x = functional.max_pool3d(functional.relu(self.conv1(x)), 2)
        return self.head(functional.relu(self.conv2(x)).mean((2, 3, 4)))


class Cnn1d(nn.Module):
    """A dilated convolution over a signal."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(2, 5, 3, padding=2, dilation=2), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 2, 9)` to `(B, 3)`."""
        return self.head(torch.tanh(self.conv(x)).amax(2))


class Decoder(nn.Module):
    """The decoder of a variational autoencoder: transposed convolutions and nearest-neighbor upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.up1 = nn.Linear(4, 72), nn.ConvTranspose2d(8, 6, 4, 2, 1)
        self.up2 = nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1)
        self.conv = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 4)` to `(B, 1, 24, 24)`."""
        y = functional.relu(self.start(x)).view(-1, 8, 3, 3)
        y = functional.relu(self.up2(functional.relu(self.up1(y))))
        return torch.sigmoid(self.conv(functional.interpolate(y, scale_factor=2, mode="nearest")))


class Groups(nn.Module):
    """A group norm between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm, self.conv2 = nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 1, 7, 7)` to `(B, 3, 3, 3)`."""
        return self.conv2(functional.silu(self.norm(self.conv1(x))))


class Gated(nn.Module):
    """Channels scaled by what they hold on average (squeeze and excitation)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.gate, self.conv2 = nn.Conv2d(1, 8, 3), nn.Linear(8, 8), nn.Conv2d(8, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 1, 8, 8)` to `(B, 3, 4, 4)`."""
        y = functional.relu(self.conv1(x))
        return self.conv2(y * torch.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None])


class Attention(nn.Module):
    """torch's own attention, and its own encoder layer, with an RMS norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.RMSNorm(16), nn.MultiheadAttention(16, 2, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 6, 16)` to the same."""
        y = self.norm(x)
        return self.layer(x + self.attention(y, y, y, need_weights=False)[0])


class Words(nn.Module):
    """An embedding, positions and a transformer block."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(20, 16), nn.Parameter(torch.randn(5, 16))
        self.block, self.head = Block(16, 2, 32), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, 5)` whole numbers below 20 to `(B, 3)`."""
        return self.head(self.block(self.embedding(x) + self.places)[:, -1])


class GraphNet(nn.Module):
    """Two layers of a graph convolution over a fixed graph (Kipf and Welling, arXiv 1609.02907, eq. 2)."""

    def __init__(self, nodes: int = 12) -> None:
        super().__init__()
        edges = (torch.rand(nodes, nodes) < 0.2).float() + torch.eye(nodes)
        degree = edges.sum(1).rsqrt()
        self.register_buffer("edges", degree[:, None] * edges * degree)
        self.first, self.second = nn.Linear(7, 9), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`(nodes, 7)` to `(nodes, 3)`."""
        return self.edges @ self.second(functional.relu(self.edges @ self.first(x)))


@dataclass(frozen=True)
class Example:
    """A network and the shape of what it takes: `(None, ...)` for one sample without a batch, an int for words."""

    build: Callable[[], nn.Module]
    shape: tuple[int | None, ...]
    words: int = 0

    def inputs(self, count: int, seed: int = 0) -> Tensor:
        """So many random samples."""
        generator = torch.Generator().manual_seed(seed)
        if self.words:
            return torch.randint(0, self.words, (count, *self.shape), generator=generator)  # type: ignore[arg-type]
        sizes = [size for size in self.shape if size is not None]
        return torch.randn(sizes if None in self.shape else (count, *sizes), generator=generator)


MODELS = {
    "flat": Example(Flat, (2, 6, 6)),
    "cnn": Example(Cnn, (1, 14, 14)),
    "depthwise": Example(Depthwise, (3, 12, 12)),
    "cnn3d": Example(Cnn3d, (1, 8, 8, 8)),
    "cnn1d": Example(Cnn1d, (2, 9)),
    "decoder": Example(Decoder, (4,)),
    "groups": Example(Groups, (1, 7, 7)),
    "gated": Example(Gated, (1, 8, 8)),
    "attention": Example(Attention, (6, 16)),
    "words": Example(Words, (5,), 20),
    "graph": Example(GraphNet, (None, 12, 7)),
    "block": Example(lambda: Block(64, 4, 128), (16, 64)),
    "vit": Example(lambda: ViT(10, 16, 4, 32, 2, 4), (3, 16, 16)),
}


def quantized(name: str, weights: str = "int8", activations: str | None = "int8", seed: int = 0) -> Graph:
    """A network in integers with scales, its norms moved from where they start."""
    example = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = example.build().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0.0, 0.2)  # type: ignore[arg-type]  # it has statistics
                nn.init.uniform_(module.running_var, 0.3, 1.5)  # type: ignore[arg-type]
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm):
                nn.init.normal_(module.weight, 1.0, 0.3)
    argument = next(iter(model.forward.__annotations__))
    dynamic = None if None in example.shape else {argument: {0: "batch"}}
    graph = planish.capture(model, (example.inputs(2),), dynamic=dynamic)
    return Quantize(weights, activations)(graph, calibration(name))


def calibration(name: str) -> list[tuple[tuple[Tensor], dict[str, object]]]:
    """Items to calibrate on."""
    return [((MODELS[name].inputs(16, seed),), {}) for seed in (1, 2)]


@cache
def prepared(name: str) -> Graph:
    """A network in fixed point of 8 bits."""
    return Prepare()(quantized(name), calibration(name))


@cache
def program(name: str) -> Program:
    """Its integers."""
    return lower(prepared(name))
