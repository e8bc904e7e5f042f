"""MobileNetV2: inverted residuals with linear bottlenecks.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018). Parameter names are those of the
published torchvision checkpoint.
"""

from __future__ import annotations

from torch import Tensor, nn

# expansion, channels, blocks, stride of the first block: table 2 of the paper
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _scaled(channels: int, width: float) -> int:
    """Channels times the width multiplier, to the nearest multiple of 8 that is not more than 10 % short."""
    nearest = max(8, int(channels * width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels * width else nearest


class ConvNormActivation(nn.Sequential):
    """Convolution, batch norm, ReLU6."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(),
        )


class InvertedResidual(nn.Module):
    """Widen by a pointwise, filter by a depthwise, narrow by a linear pointwise convolution, add what came in."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        widen = [] if expansion == 1 else [ConvNormActivation(in_channels, hidden, 1)]
        self.conv = nn.Sequential(
            *widen,
            ConvNormActivation(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.has_skip = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_channels, h, w)` to `(batch, channels, h/stride, w/stride)`."""
        return x + self.conv(x) if self.has_skip else self.conv(x)


class MobileNetV2(nn.Module):
    """Depthwise-separable network for phones.

    Args:
        num_classes: Classes to tell apart.
        width: Multiplier of all channel counts.
        dropout: Share of features dropped before the classifier while training.
    """

    def __init__(self, num_classes: int = 1000, width: float = 1.0, dropout: float = 0.2) -> None:
        super().__init__()
        channels = _scaled(32, width)
        last = _scaled(1280, max(1.0, width))
        features: list[nn.Module] = [ConvNormActivation(3, channels, 3, stride=2)]
        for expansion, base, blocks, stride in STAGES:
            for block in range(blocks):
                out = _scaled(base, width)
                features.append(InvertedResidual(channels, out, stride if block == 0 else 1, expansion))
                channels = out
        self.features = nn.Sequential(*features, ConvNormActivation(channels, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, 3, height, width)` to `(batch, num_classes)`."""
        return self.classifier(self.features(x).mean((2, 3)))
