"""Orthogonal matrices that spread every number over all channels."""

from __future__ import annotations

import torch
from torch import Tensor


def rotation(size: int, seed: int = 0) -> Tensor:
    """An orthogonal matrix `(size, size)` float64: a Hadamard matrix with random signs, each entry `±size**-0.5`.

    Hadamard matrices come from Sylvester's doubling and from Paley's first construction (1933). A size that these do
    not reach is the Kronecker product of the largest that they do with a random orthogonal matrix.
    """
    generator = torch.Generator().manual_seed(seed)
    known, left = _hadamard(size), 1
    while known is None:
        left += 1
        known = _hadamard(size // left) if size % left == 0 else None
    signs = torch.randint(0, 2, (len(known),), generator=generator).double() * 2 - 1
    matrix = known * signs[:, None] / len(known) ** 0.5
    if left > 1:
        random = torch.randn(left, left, dtype=torch.float64, generator=generator)
        matrix = torch.kron(torch.linalg.qr(random)[0].contiguous(), matrix)
    return matrix


def _hadamard(size: int) -> Tensor | None:
    """Of entries ±1; None where the two constructions have none of this size."""
    if size == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    if size % 4 == 0 and size - 1 > 2 and _is_prime(size - 1):
        return _paley(size - 1)
    half = _hadamard(size // 2) if size % 2 == 0 else None
    if half is None:
        return None
    return torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), half)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % factor for factor in range(2, int(number**0.5) + 1))


def _paley(prime: int) -> Tensor:
    """Of order `prime + 1`, for a prime of the form 4k + 3: `I + S`, S skew, of quadratic residues."""
    squares = {place * place % prime for place in range(1, prime)}
    character = torch.tensor([0.0] + [1.0 if place in squares else -1.0 for place in range(1, prime)])
    places = torch.arange(prime)
    skew = torch.zeros(prime + 1, prime + 1, dtype=torch.float64)
    skew[0, 1:], skew[1:, 0] = 1, -1
    skew[1:, 1:] = character[(places[:, None] - places) % prime].double()
    return skew + torch.eye(prime + 1, dtype=torch.float64)


def turned(tensor: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """A tensor with runs of channels along an axis multiplied from the right, all by one matrix `(size, size)`, or each
    by its own of `(runs, size, size)`."""
    moved = tensor.detach().double().movedim(axis, -1)
    runs = moved.reshape(-1, moved.shape[-1]).unflatten(-1, (-1, matrix.shape[-1])).transpose(0, 1) @ matrix
    return runs.transpose(0, 1).reshape(moved.shape).movedim(-1, axis).to(tensor.dtype).contiguous()
