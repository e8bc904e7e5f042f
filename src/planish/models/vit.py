"""Vision transformer, ViT-tiny/16 by default.

Dosovitskiy et al., "An Image is Worth 16x16 Words" (2020); the tiny size is DeiT's (Touvron et al., 2020). Parameter
names are those of timm's checkpoints.

Axes: B batch, T tokens, D features, H heads, C features of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for query, key and value."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, D)` to the same."""
        batch, tokens, dim = x.shape
        qkv_3BHTC = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        q_BHTC, k_BHTC, v_BHTC = qkv_3BHTC.unbind(0)
        x_BHTC = functional.scaled_dot_product_attention(q_BHTC, k_BHTC, v_BHTC)
        return self.proj(x_BHTC.transpose(1, 2).reshape(batch, tokens, dim))


class MLPBlock(nn.Module):
    """Two linear layers around a GELU, applied to every token."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, D)` to the same."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Attention and a multilayer perceptron, each normalized before and added back."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), Attention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), MLPBlock(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, D)` to the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Square patches as tokens."""

    def __init__(self, patch: int, channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        """`(B, channels, height, width)` to `(B, T, D)`."""
        return self.proj(image).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """Vision transformer with a class token.

    Args:
        num_classes: Classes to tell apart.
        image: Side of the square image, in pixels.
        patch: Side of a patch, in pixels; divides `image`.
        dim: Features of a token.
        depth: Blocks.
        heads: Attention heads; divide `dim`.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        image: int = 224,
        patch: int = 16,
        dim: int = 192,
        depth: int = 12,
        heads: int = 3,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(patch, 3, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (image // patch) ** 2 + 1, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, 4 * dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """`(B, 3, image, image)` to `(B, num_classes)`."""
        x_BTD = self.patch_embed(image)
        x_BTD = torch.cat([self.cls_token.expand(x_BTD.shape[0], -1, -1), x_BTD], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(x_BTD))[:, 0])
