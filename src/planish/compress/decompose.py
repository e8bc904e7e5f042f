"""A weight as a chain of smaller ones: what each kind of decomposition gives, costs and loses."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from planish.compress.factors import Spectrum
from planish.errors import OptionError

Kind = Literal["svd", "tucker", "cp"]
STEPS = 16
"""Ranks of a convolution that are tried, as shares of its channels."""
SWEEPS, CLOSE = 60, 1e-7
"""Iterations end after as many rounds, or when a round gains less, as a share of the weight's square."""

Ranks = tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """One way to take a layer apart.

    Attributes:
        ranks: One rank, or those of Tucker's output and input channels; `()` leaves the layer whole.
        cost: Numbers, or multiply-accumulates.
        loss: Squared error as a share of the square.
    """

    ranks: Ranks
    cost: float
    loss: float


def candidates(kind: Kind, shape: tuple[int, ...]) -> list[Ranks]:
    """The ranks that are worth a look, falling, each with fewer numbers than the weight `(out, in, *kernel)`."""
    out, width, kernel = shape[0], shape[1], math.prod(shape[2:])
    whole = math.prod(shape)
    if kind == "tucker":
        found = {(-(-out * step // STEPS), -(-width * step // STEPS)) for step in range(1, STEPS + 1)}
        return sorted((ranks for ranks in found if _numbers(kind, shape, ranks) < whole), reverse=True)
    if kind == "cp":
        most = (whole - 1) // (out + width + kernel)
        return [(rank,) for rank in sorted({-(-most * step // STEPS) for step in range(1, STEPS + 1)}, reverse=True)]
    return [(rank,) for rank in range(min(out, width * kernel, (whole - 1) // (out + width * kernel)), 0, -1)]


def sizes(kind: Kind, shape: tuple[int, ...], ranks: Ranks) -> list[tuple[int, ...]]:
    """Shapes of the weights of the chain, the first one first; the kernel lies in the one that is not 1 wide."""
    out, width, *kernel = shape
    ones = [1] * len(kernel)
    if kind == "svd":
        return [(ranks[0], width, *kernel), (out, ranks[0], *ones)]
    core = (*ranks, *kernel) if kind == "tucker" else (ranks[0], 1, *kernel)
    return [(ranks[-1], width, *ones), core, (out, ranks[0], *ones)]


def _numbers(kind: Kind, shape: tuple[int, ...], ranks: Ranks) -> int:
    return sum(map(math.prod, sizes(kind, shape, ranks)))


def chain(kind: Kind, weight: Tensor, ranks: Ranks, scale: Tensor | None = None) -> list[Tensor]:
    """The weights of the chain nearest to `weight`, `(out, in, *kernel)` float64.

    Args:
        kind: "svd": a kernel to `rank` channels and a product; "tucker": a product, a kernel between fewer channels,
            and a product (Kim et al., arXiv 1511.06530); "cp": a product, a kernel for each channel, and a product
            (Lebedev et al., arXiv 1412.6553, the axes of the kernel taken as one).
        weight: What to take apart.
        ranks: As in `candidates`.
        scale: For "svd" the norm, as in `Spectrum.of`.
    """
    shape = tuple(weight.shape)
    if kind == "svd":
        left, right = Spectrum.of(weight.flatten(1), scale).factors(ranks[0])
        parts = [right, left]
    else:
        solve = _tucker if kind == "tucker" else _cp
        parts = solve(weight.flatten(2), ranks)
    return [part.reshape(size) for part, size in zip(parts, sizes(kind, shape, ranks), strict=True)]


def losses(kind: Kind, weight: Tensor, found: list[Ranks], scale: Tensor | None = None) -> list[float]:
    """For each of `candidates` the squared error as a share of the square, in the norm of `scale` for "svd"."""
    if kind == "svd":
        squares = Spectrum.of(weight.flatten(1), scale).values.square()
        left = squares.flip(0).cumsum(0).flip(0) / squares.sum().clamp_min(1e-30)
        tail = [*left.tolist(), 0.0]
        return [tail[ranks[0]] for ranks in found]
    square = weight.square().sum().clamp_min(1e-30)
    return [float((product(chain(kind, weight, ranks)) - weight).square().sum() / square) for ranks in found]


def product(parts: list[Tensor]) -> Tensor:
    """The weight that a chain stands for."""
    if len(parts) == 2:
        return torch.einsum("rik,or->oik", parts[0].flatten(2), parts[1].flatten(1)).reshape(
            parts[1].shape[0], *parts[0].shape[1:]
        )
    a, core, b = parts[0].flatten(1), parts[1], parts[2].flatten(1)
    flat = core.flatten(2)
    whole = torch.einsum("ri,rk,or->oik", a, flat[:, 0], b) if _each_channel(parts) else None
    whole = torch.einsum("si,rsk,or->oik", a, flat, b) if whole is None else whole
    return whole.reshape(b.shape[0], a.shape[1], *core.shape[2:])


def _each_channel(parts: list[Tensor]) -> bool:
    return parts[1].shape[1] == 1 and parts[0].shape[0] == parts[1].shape[0]


def least_loss(choices: Mapping[str, list[Choice]], budget: float) -> dict[str, Choice]:
    """One choice a layer such that the sum of the losses is about the least that the budget buys.

    Each layer climbs its lower convex hull of losses over costs, the steepest step of all layers first: optimal but for
    the last step, which may not be taken whole.

    Raises:
        OptionError: Even the cheapest choices cost more.
    """
    hulls = {name: _hull(found) for name, found in choices.items()}
    taken = dict.fromkeys(hulls, 0)
    budget -= sum(hull[0].cost for hull in hulls.values())
    if budget < 0:
        raise OptionError("rank 1 everywhere costs more than the budget", "budget", "a larger share")
    heap = [(_slope(hull, 0), name) for name, hull in hulls.items() if len(hull) > 1]
    heapq.heapify(heap)
    while heap:
        _, name = heapq.heappop(heap)
        hull, place = hulls[name], taken[name] + 1
        price = hull[place].cost - hull[place - 1].cost
        if price > budget:
            continue
        budget -= price
        taken[name] = place
        if place + 1 < len(hull):
            heapq.heappush(heap, (_slope(hull, place), name))
    return {name: hulls[name][place] for name, place in taken.items()}


def _slope(hull: list[Choice], place: int) -> float:
    here, there = hull[place : place + 2]
    return (there.loss - here.loss) / (there.cost - here.cost)


def _hull(found: list[Choice]) -> list[Choice]:
    """The choices on the lower convex hull, by rising cost and falling loss."""
    hull: list[Choice] = []
    for choice in sorted(found, key=lambda choice: (choice.cost, choice.loss)):
        if hull and (choice.cost == hull[-1].cost or choice.loss >= hull[-1].loss):
            continue
        while len(hull) > 1 and _slope(hull, len(hull) - 2) >= _slope([hull[-1], choice], 0):
            hull.pop()
        hull.append(choice)
    return hull


def _tucker(weight: Tensor, ranks: Ranks) -> list[Tensor]:
    """Higher-order orthogonal iteration (De Lathauwer et al., 2000), over the two axes of channels."""
    left = torch.linalg.svd(weight.flatten(1), full_matrices=False)[0][:, : ranks[0]]
    right = torch.linalg.svd(weight.transpose(0, 1).flatten(1), full_matrices=False)[0][:, : ranks[1]]
    core, before, square = weight, -1.0, float(weight.square().sum())
    for _ in range(SWEEPS):
        left = torch.linalg.svd(torch.einsum("oik,is->osk", weight, right).flatten(1), full_matrices=False)[0]
        left = left[:, : ranks[0]]
        right = torch.linalg.svd(torch.einsum("oik,or->irk", weight, left).flatten(1), full_matrices=False)[0]
        right = right[:, : ranks[1]]
        core = torch.einsum("oik,or,is->rsk", weight, left, right)
        if float(core.square().sum()) - before <= CLOSE * square:
            break
        before = float(core.square().sum())
    return [right.T, core, left]


def _cp(weight: Tensor, ranks: Ranks) -> list[Tensor]:
    """Alternating least squares, begun at the leading singular vectors of each axis."""
    rank = ranks[0]
    generator = torch.Generator().manual_seed(0)
    factors = []
    for axis in range(3):
        flat = weight.movedim(axis, 0).flatten(1)
        found = torch.linalg.svd(flat, full_matrices=False)[0][:, :rank]
        more = torch.randn(len(flat), rank - found.shape[1], dtype=weight.dtype, generator=generator)
        factors.append(torch.cat([found, more / math.sqrt(len(flat))], 1))
    before, square = math.inf, float(weight.square().sum())
    for _ in range(SWEEPS):
        for axis in range(3):
            one, other = (factors[place] for place in range(3) if place != axis)
            gram = (one.T @ one) * (other.T @ other)
            level = 1e-9 * gram.diag().mean().clamp_min(1e-30)
            flat = weight.movedim(axis, 0).flatten(1)
            mixed = torch.einsum("ir,kr->ikr", one, other).flatten(0, 1)
            found = torch.linalg.solve(gram + level * torch.eye(rank, dtype=gram.dtype), (flat @ mixed).T).T
            size = found.norm(dim=0).clamp_min(1e-30)
            factors[axis] = found if axis == 2 else found / size
        left = float((torch.einsum("or,ir,kr->oik", *factors) - weight).square().sum())
        if before - left <= CLOSE * square:
            break
        before = left
    out, width, kernel = factors
    size = kernel.norm(dim=0).clamp_min(1e-30) ** (1 / 3)  # the same size in all three, so that all can be quantized
    return [(width * size).T, (kernel / size**2).T[:, None], out * size]
