"""Rounding of distributed tensors: `planish::cast`, and what comes back through it, where each device has a part.

Blocks that lie on one device are rounded there. Where a block spans devices and its scale is computed on the fly, the
devices agree on the ends of its range (an all-reduced maximum) and each computes the same scale from them; where such
scales have a scale of their own (NVFP4), the ends of all blocks are gathered. What is left is rounded whole, by each
device: formats that look at all numbers of a block (codebooks, least error, residuals), blocks that devices cut in
pieces, and stochastic rounding, whose noise would be another in each part.
"""

# ruff: noqa: A001, A002  (`format` is the word for it everywhere else)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed import _functional_collectives as collectives
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement

from planish.formats import Format
from planish.formats.block import TENSOR
from planish.formats.fit import ends, fit_ends


@dataclass(frozen=True)
class Part:
    """How a tensor is divided: along one axis, in equal parts."""

    axis: int
    mesh: DeviceMesh
    along: int
    """Which axis of the mesh."""

    @staticmethod
    def of(x: DTensor) -> Part | None:
        """None where it is divided in another way, or not at all."""
        divided = [(along, each) for along, each in enumerate(x.placements) if not isinstance(each, Replicate)]
        along, placement = divided[0] if len(divided) == 1 else (0, None)
        if not isinstance(placement, Shard):
            return None
        mesh = x.device_mesh
        return Part(placement.dim, mesh, along) if x.shape[placement.dim] % mesh.size(along) == 0 else None

    @property
    def count(self) -> int:
        """Of the devices."""
        return self.mesh.size(self.along)

    def own(self, tensor: Tensor) -> Tensor:
        """This device's part of a whole tensor."""
        length = tensor.shape[self.axis] // self.count
        return tensor.narrow(self.axis, self.mesh.get_local_rank(self.along) * length, length)

    def placements(self, placement: Placement) -> list[Placement]:
        """This placement along the axis of the mesh, and copies along the others."""
        return [placement if along == self.along else Replicate() for along in range(self.mesh.ndim)]

    def highest(self, tensor: Tensor) -> Tensor:
        """Over the devices; NaN where one has NaN."""
        marked = torch.where(tensor.isnan(), torch.inf, tensor)
        found = collectives.wait_tensor(collectives.all_reduce(marked, "max", (self.mesh, self.along)))
        return torch.where(found.isposinf(), torch.nan, found)

    def joined(self, tensor: Tensor) -> Tensor:
        """The devices' tensors behind each other."""
        gathered = collectives.all_gather_tensor(tensor, self.axis, (self.mesh, self.along))
        return collectives.wait_tensor(gathered)


def cast(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DTensor:
    """`planish::cast` of a distributed tensor; what it gives is divided as it is."""
    x, parameters, text, gradient, seed = _arguments(args, kwargs)
    mesh = next(each for each in (x, *parameters) if isinstance(each, DTensor)).device_mesh
    x, format = _distributed(x, mesh), Format.parse(text)
    part = Part.of(x) if seed is None else None
    if part is not None:
        given = _parameters(format, x, parameters, part)
        if given is not None:
            return _made(operator(x.to_local(), given, text, gradient), mesh, x.placements)
    x = _whole(x)
    y = operator(x.to_local(), [_local(each) for each in parameters], text, gradient, seed)
    return _made(y, mesh, x.placements)


def gradients(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[DTensor]:
    """`planish::cast_gradients`, of distributed tensors."""
    grad, x, parameters, text, gradient = args
    mesh = next(each for each in (x, grad, *parameters) if isinstance(each, DTensor)).device_mesh
    x, grad, format = _distributed(x, mesh), _distributed(grad, mesh), Format.parse(text)
    part = Part.of(x)
    given = _parameters(format, x, parameters, part) if part is not None else None
    if part is None or given is None or not _apart(format, x, given, part):
        x, grad = _whole(x), _whole(grad)
        found = operator(grad.to_local(), x.to_local(), [_local(each) for each in parameters], text, gradient)
        return [_made(each, mesh, x.placements) for each in found]
    grad = grad.redistribute(placements=x.placements)
    to_x, *rest = operator(grad.to_local(), x.to_local(), given, text, gradient)[: 1 + len(parameters)]
    own = [part.placements(Shard(part.axis) if each.numel() else Replicate()) for each in rest]
    return [_made(each, mesh, how) for each, how in zip((to_x, *rest), (x.placements, *own), strict=True)]


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    x, parameters, text, *rest = args
    gradient = rest[0] if rest else kwargs.get("gradient", "straight-through")
    return x, parameters, text, gradient, rest[1] if len(rest) > 1 else kwargs.get("seed")


def _parameters(format: Format, x: DTensor, given: Sequence[Tensor], part: Part) -> list[Tensor] | None:
    """What rounds this device's part of the tensor as the whole is rounded; None where there are no such."""
    if not format.levels:
        return []
    blocks, size = (format.block or TENSOR).layout(x.shape)[part.axis]
    if blocks > 1 and x.shape[part.axis] // part.count % size:
        return None
    if not given:
        if blocks > 1 and not _looks_up(format):
            return []  # each block has all that decides on it
        low, high = ends(format, x.to_local())
        if blocks > 1:
            low, high = part.joined(low), part.joined(high)
        else:
            low, high = -part.highest(-low), part.highest(high)
        found = fit_ends(format, low, high)
        if found is None:
            return None
        given = found
    if blocks == 1:
        return [_local(each) for each in given]
    own: list[Tensor] = []
    for each in given:
        if each.numel() == 1 or (each.dim() == x.dim() and each.shape[part.axis] == 1):
            own.append(_local(each))
        elif each.dim() == x.dim() and each.shape[part.axis] == blocks:
            divided = isinstance(each, DTensor) and tuple(each.placements) == tuple(x.placements)
            own.append(each.to_local() if divided else part.own(_local(each)))  # type: ignore[attr-defined]
        else:
            return None
    return own


def _looks_up(format: Format) -> bool:
    """Whether something above the scales of blocks is computed from all of them."""
    above = (format.scale, format.offset, format.residual)
    return any(each is not None and each.levels for each in above)


def _apart(format: Format, x: DTensor, given: Sequence[Tensor], part: Part) -> bool:
    """Whether what comes back to each parameter comes from numbers of one device."""
    blocks, _ = (format.block or TENSOR).layout(x.shape)[part.axis]
    own = blocks // part.count
    return not given or (blocks > 1 and all(each.dim() == x.dim() and each.shape[part.axis] == own for each in given))


def _distributed(tensor: Tensor, mesh: DeviceMesh) -> DTensor:
    """A plain tensor counts as a copy on each device; sums that are still apart are added up."""
    if not isinstance(tensor, DTensor):
        return _made(tensor, mesh, [Replicate()] * mesh.ndim)
    kept = [Replicate() if isinstance(each, Partial) else each for each in tensor.placements]
    return tensor.redistribute(placements=kept)


def _whole(tensor: DTensor) -> DTensor:
    return tensor.redistribute(placements=[Replicate()] * tensor.device_mesh.ndim)


def _local(tensor: Tensor) -> Tensor:
    """The whole of a tensor, as a plain one."""
    return _whole(tensor).to_local() if isinstance(tensor, DTensor) else tensor


def _made(tensor: Tensor, mesh: DeviceMesh, placements: Sequence[Placement]) -> DTensor:
    return DTensor.from_local(tensor, mesh, list(placements), run_check=False)
