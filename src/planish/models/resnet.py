"""ResNet-18 for images and its 3-D sibling for video.

He et al., "Deep Residual Learning for Image Recognition" (2015); Tran et al., "A Closer Look at Spatiotemporal
Convolutions for Action Recognition" (2018). Parameter names are those of the published torchvision checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around a skip connection."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_channels, h, w)` to `(batch, channels, h/stride, w/stride)`."""
        skip = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + skip)


class ResNet18(nn.Module):
    """The 18-layer residual network.

    Args:
        num_classes: Classes to tell apart.
        width: Channels of the first stage; each of the three later stages doubles them.
    """

    def __init__(self, num_classes: int = 1000, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(width, width, 1), BasicBlock(width, width, 1))
        self.layer2 = nn.Sequential(BasicBlock(width, 2 * width, 2), BasicBlock(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(BasicBlock(2 * width, 4 * width, 2), BasicBlock(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(BasicBlock(4 * width, 8 * width, 2), BasicBlock(8 * width, 8 * width, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, 3, height, width)` to `(batch, num_classes)`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class BasicBlock3d(nn.Module):
    """Two 3×3×3 convolutions around a skip connection."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv3d(in_channels, channels, 3, stride, padding=1, bias=False), nn.BatchNorm3d(channels), nn.ReLU()
        )
        self.conv2 = nn.Sequential(nn.Conv3d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm3d(channels))
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv3d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm3d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_channels, t, h, w)` to `(batch, channels, t/stride, h/stride, w/stride)`."""
        skip = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + skip)


class R3D18(nn.Module):
    """The 18-layer residual network with 3-D convolutions throughout.

    Args:
        num_classes: Classes to tell apart.
        width: Channels of the first stage; each of the three later stages doubles them.
    """

    def __init__(self, num_classes: int = 400, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, width, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
        )
        self.layer1 = nn.Sequential(BasicBlock3d(width, width, 1), BasicBlock3d(width, width, 1))
        self.layer2 = nn.Sequential(BasicBlock3d(width, 2 * width, 2), BasicBlock3d(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(BasicBlock3d(2 * width, 4 * width, 2), BasicBlock3d(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(BasicBlock3d(4 * width, 8 * width, 2), BasicBlock3d(8 * width, 8 * width, 1))
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, 3, time, height, width)` to `(batch, num_classes)`."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.fc(torch.flatten(self.avgpool(x), 1))
