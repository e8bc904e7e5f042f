"""A small convolutional network for small images."""

from __future__ import annotations

from torch import Tensor, nn


class ConvNet(nn.Module):
    """Three 3×3 convolutions with batch norm, pooled twice, and a linear layer.

    Args:
        num_classes: Classes to tell apart.
        in_channels: Channels of the image.
        width: Channels of the first convolution; doubled by each pooling.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, width: int = 16) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.BatchNorm2d(2 * width)
        self.conv3, self.bn3 = nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False), nn.BatchNorm2d(4 * width)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, in_channels, height, width)` to `(batch, num_classes)`."""
        x = self.pool(self.bn1(self.conv1(x)).relu())
        x = self.pool(self.bn2(self.conv2(x)).relu())
        x = self.bn3(self.conv3(x)).relu()
        return self.fc(x.mean((2, 3)))
