"""U-Net: a convolutional encoder and decoder with skip connections, for segmentation.

Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015), with padded convolutions
and batch norm, as it is used today.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _double(in_channels: int, channels: int) -> nn.Sequential:
    """Twice: 3×3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """Encoder-decoder that labels every pixel.

    Args:
        num_classes: Labels of a pixel.
        in_channels: Channels of the image.
        width: Channels at full resolution; doubled at each halving.
        depth: How often the resolution is halved; image sides are multiples of 2**depth.
    """

    def __init__(self, num_classes: int = 2, in_channels: int = 3, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(_double(i, o) for i, o in zip([in_channels, *channels], channels, strict=False))
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, stride=2) for c in channels[:-1])
        self.merge = nn.ModuleList(_double(2 * c, c) for c in channels[:-1])
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_channels, height, width)` to `(batch, num_classes, height, width)`."""
        skips = []
        for level in self.down[:-1]:
            x = level(x)
            skips.append(x)
            x = self.pool(x)
        x = self.down[-1](x)
        for skip, up, merge in zip(reversed(skips), reversed(self.up), reversed(self.merge), strict=True):
            x = merge(torch.cat([skip, up(x)], dim=1))
        return self.head(x)
