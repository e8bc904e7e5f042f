"""Tensors in their stored form: integer codes beside the parameters that give them meaning."""

# ruff: noqa: A002  (`format` is the word for it everywhere else)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad as pad_zeros

from planish.errors import DataError
from planish.formats import kernels
from planish.formats.element import Element

if TYPE_CHECKING:
    from planish.formats.format import Format


@dataclass(frozen=True)
class Codes:
    """What `Format.encode` gives.

    Attributes:
        codes: One integer a number, in the tensor's own shape; of type `format.code_dtype`.
        parameters: As `Format.parameters` gives them, one for each of `format.levels`; scales as numbers.
        format: What codes and parameters mean.
        shape: The shape of the tensor.
        dtype: The type of the tensor.
    """

    codes: Tensor
    parameters: tuple[Tensor, ...]
    format: Format
    shape: tuple[int, ...]
    dtype: torch.dtype

    def decode(self) -> Tensor:
        """The numbers."""
        return self.format.decode(self)

    def pack(self) -> dict[str, Tensor]:
        """Bytes: one uint8 tensor for the codes ("codes") and one for each parameter ("scale", "zero_point",
        "scale.scale", ...), each of `ceil(bits * count / 8)` bytes, lowest bits first."""
        return {"codes": pack(self.codes, self.format.bits), **pack_parameters(self.format, self.parameters)}

    @classmethod
    def unpack(
        cls, tensors: Mapping[str, Tensor], format: Format, shape: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> Codes:
        """The inverse of `pack`.

        Raises:
            DataError: A tensor is missing, or has not as many bytes as `shape` needs.
        """
        shape, wanted = tuple(shape), ("codes", *(name for name, _ in format.levels))
        if missing := ", ".join(name for name in wanted if name not in tensors):
            raise DataError(f"{missing} of {format} missing", "tensors", f"what pack gave: {', '.join(wanted)}")
        codes = unpack(tensors["codes"], format.bits, shape)
        codes = format.element.from_bits(codes) if format.residual is None else codes.to(format.code_dtype)
        parameters = []
        for (name, element), size in zip(format.levels, format.level_shapes(shape), strict=True):
            level = element.from_bits(unpack(tensors[name], element.bits, size))
            parameters.append(level if name.endswith("zero_point") else element.from_codes(level, torch.float32))
        return cls(codes, tuple(parameters), format, shape, dtype)


def pack_parameters(format: Format, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """Bytes for each of the format's levels, by name."""
    tensors = {}
    for (name, element), parameter in zip(format.levels, parameters, strict=True):
        codes = parameter if name.endswith("zero_point") else kernels.to_codes(element, parameter)
        tensors[name] = pack(codes, element.bits)
    return tensors


def pack(codes: Tensor, bits: int) -> Tensor:
    """The low `bits` bits of each integer, one after the other, lowest first: uint8 of `ceil(bits * count / 8)`."""
    flat = codes.reshape(-1)
    if bits == 8:
        return flat.contiguous().view(torch.uint8).clone() if flat.element_size() == 1 else flat.to(torch.uint8)
    if (packed := kernels.pack(flat, bits)) is not None:
        return packed
    place = torch.arange(bits, device=codes.device)
    stream = (flat.long().unsqueeze(-1) >> place & 1).reshape(-1)
    stream = pad_zeros(stream, (0, -stream.numel() % 8)).reshape(-1, 8)
    return (stream << torch.arange(8, device=codes.device)).sum(-1).to(torch.uint8)


def unpack(data: Tensor, bits: int, shape: Sequence[int]) -> Tensor:
    """The inverse of `pack`: patterns of `bits` bits, uint8 or int64, that `Element.from_bits` turns into codes.

    Raises:
        DataError: There are not as many bytes as `shape` needs.
    """
    count = torch.Size(shape).numel()
    if data.numel() != (needed := -(-count * bits // 8)) or data.dtype != torch.uint8:
        raise DataError(f"{count} codes of {bits} bits are {needed} bytes of uint8, not {data.numel()} {data.dtype}")
    if (codes := kernels.unpack(data, bits, count)) is not None:
        return codes.reshape(tuple(shape))
    stream = (data.unsqueeze(-1) >> torch.arange(8, device=data.device, dtype=torch.uint8) & 1).reshape(-1)
    stream = stream[: count * bits].reshape(count, bits).long()
    return (stream << torch.arange(bits, device=data.device)).sum(-1).reshape(tuple(shape))


def joined(codes: Tensor, element: Element, above: Tensor, residual: Format) -> Tensor:
    """One integer (int64) for the code of an element and, above its bits, that of the residual."""
    return codes.long() & ((1 << element.bits) - 1) | (above.long() & ((1 << residual.bits) - 1)) << element.bits


def parted(codes: Tensor, element: Element, residual: Format) -> tuple[Tensor, Tensor]:
    """The inverse of `joined`."""
    codes = codes.long()
    above = codes >> element.bits & ((1 << residual.bits) - 1)
    mine = element.from_bits(codes & ((1 << element.bits) - 1))
    return mine, residual.element.from_bits(above) if residual.residual is None else above
