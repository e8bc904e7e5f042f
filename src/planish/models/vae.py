"""Variational autoencoder for small images.

Kingma and Welling, "Auto-Encoding Variational Bayes" (2013). The noise is an input: the model itself is a function, the
same while training and after, and whoever calls it decides how to sample.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class VAE(nn.Module):
    """Multilayer perceptrons to and from a small latent space.

    Args:
        pixels: Elements of a flattened image.
        hidden: Width of both hidden layers.
        latent: Dimensions of the latent space.
    """

    def __init__(self, pixels: int = 64, hidden: int = 128, latent: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, hidden), nn.ReLU())
        self.mean = nn.Linear(hidden, latent)
        self.log_variance = nn.Linear(hidden, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, pixels), nn.Sigmoid())

    def forward(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct an image from a sample of its latent distribution.

        Args:
            image: `(batch, pixels)`, between 0 and 1.
            noise: `(batch, latent)`, standard normal; zeros for the most likely reconstruction.

        Returns:
            Reconstruction `(batch, pixels)`, mean and log-variance `(batch, latent)`.
        """
        features = self.encoder(image)
        mean, log_variance = self.mean(features), self.log_variance(features)
        return self.decoder(mean + noise * torch.exp(0.5 * log_variance)), mean, log_variance
