"""A recurrent classifier of sequences."""

from __future__ import annotations

from torch import Tensor, nn


class LSTMClassifier(nn.Module):
    """A stack of LSTM layers; the last step's state decides.

    Args:
        features: Features of a step.
        hidden: Units of each layer.
        num_classes: Classes to tell apart.
        num_layers: Layers.
    """

    def __init__(self, features: int = 8, hidden: int = 64, num_classes: int = 10, num_layers: int = 2) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, num_layers, batch_first=True)
        self.fc = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, steps, features)` to `(batch, num_classes)`."""
        states, _ = self.lstm(x)
        return self.fc(states[:, -1])
