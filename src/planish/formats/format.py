"""A number format: what one number can be, which numbers share a scale, and the format of that scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from planish.errors import DataError, OptionError
from planish.formats import definition, kernels
from planish.formats import text as text_form
from planish.formats.block import TENSOR, TOKEN, Block, channel, group
from planish.formats.codes import Codes, pack, pack_parameters
from planish.formats.element import Element, Nan, Overflow
from planish.formats.fields import check, check_types
from planish.formats.fit import fit, fit_any
from planish.formats.floating import FLOAT32
from planish.formats.integer import Int
from planish.formats.parameters import Given, Parameters, level_shapes, levels, split
from planish.formats.rounding import Rounding
from planish.formats.scaling import Rule


def _float32() -> Format:
    return Format(FLOAT32, scale=None, overflow="infinity")


@dataclass(frozen=True)
class Format:
    """How a tensor is stored: `x` is about `scale * element`, one scale a block, and the scale has a format itself.

    With an offset, `x` is about `scale * element - offset`; a residual adds what its own format holds of the rest.
    Nothing is hidden: two formats with equal fields give equal codes. `str(format)` is a text that `Format.parse`
    turns into an equal format.

    Attributes:
        element: What one number can be.
        block: Which numbers share a scale. None leaves the choice to whoever places the format; used as it is, such a
            format has one scale for the tensor.
        scale: The format of the scales (its own block, if any, runs over the tensor of scales), or None for no scale.
        zero_point: The integer type of the code of zero in an affine format; None if zero has code zero.
        rounding: Where a number between two of the element's goes.
        overflow: Where a number beyond the element's largest goes.
        rule: How the scale follows from the numbers of a block.
        is_dynamic: Whether scales are computed from the tensor each time, and are thus no parameters.
        nan: What NaN becomes; left out, NaN if the element has it and zero otherwise. A block whose scale is computed
            from NaN is NaN as a whole where the scale's element has it.
        offset: The format of a number for each block that is subtracted, so that the lowest number has code zero; it
            goes with elements from zero up (ggml's "min").
        residual: The format of the difference that is left, whose codes stand above the element's.
    """

    element: Element
    block: Block | None = None
    scale: Format | None = field(default_factory=_float32)
    zero_point: Int | None = None
    rounding: Rounding = "even"
    overflow: Overflow = "saturate"
    rule: Rule = "absmax"
    is_dynamic: bool = False
    nan: Nan = None  # type: ignore[assignment]  # filled in below, so that equal formats compare equal
    offset: Format | None = None
    residual: Format | None = None

    def __post_init__(self) -> None:
        check_types(self, Format)
        if self.nan is None:
            object.__setattr__(self, "nan", self.element.nans[0])
        check(self)

    # Text ------------------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return text_form.write(self)

    @classmethod
    def parse(cls, text: str) -> Format:
        """The format that a text stands for; the grammar is in `planish.formats.text`.

        Raises:
            OptionError: Names the part that cannot be read, and what it accepts.
        """
        return text_form.read(text, cls)

    # Variations ------------------------------------------------------------------------------------------------------

    def at(self, block: Block) -> Format:
        """This format with a scale for each `block`; a format without scales is the same everywhere."""
        residual = self.residual and self.residual.at(block)
        return replace(self, block=block if self.scale else None, residual=residual) if self.levels else self

    def per_tensor(self) -> Format:
        """One scale for the whole tensor."""
        return self.at(TENSOR)

    def per_channel(self, axis: int = 0) -> Format:
        """One scale for each index of `axis`."""
        return self.at(channel(axis))

    def per_token(self) -> Format:
        """One scale for each vector along the last axis."""
        return self.at(TOKEN)

    def group(self, size: int, axis: int = -1) -> Format:
        """One scale for each run of `size` numbers along `axis`."""
        return self.at(group(size, axis))

    def dynamic(self) -> Format:
        """Scales computed from each tensor as it comes."""
        return replace(self, is_dynamic=True) if self.levels else self

    def affine(self) -> Format:
        """With a zero point, of the element's own type."""
        if not isinstance(self.element, Int):
            raise OptionError("only whole integers have a zero point", "zero_point")
        return replace(self, zero_point=self.element)

    # Size ------------------------------------------------------------------------------------------------------------

    @property
    def bits(self) -> int:
        """Bits of one code, that of the residual included, scales not counted."""
        return self.element.bits + (self.residual.bits if self.residual else 0)

    @property
    def code_dtype(self) -> torch.dtype:
        """The tensor type of the codes: the element's, unless a residual's bits stand above them."""
        if self.residual is None:
            return self.element.code_dtype
        return torch.uint8 if self.bits <= 8 else torch.int32 if self.bits < 32 else torch.int64

    @property
    def is_affine(self) -> bool:
        """Whether there is a zero point."""
        return self.zero_point is not None

    def scale_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the scales of a tensor: `()` per tensor, otherwise the number of blocks along each axis."""
        return (self.block or TENSOR).scale_shape(shape)

    @property
    def levels(self) -> tuple[tuple[str, Element], ...]:
        """Name and element of each parameter, in order: scale, zero_point, scale.scale, offset, residual.scale, ..."""
        return levels(self)

    def level_shapes(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """The shape of each of `levels` for a tensor of `shape`."""
        return level_shapes(self, shape)

    def nbytes(self, shape: Sequence[int]) -> int:
        """Bytes of a tensor of `shape` once packed, with its scales and zero points."""
        sizes = zip(self.levels, self.level_shapes(shape), strict=True)
        own = -(-torch.Size(shape).numel() * self.bits // 8)
        return own + sum(-(-torch.Size(size).numel() * element.bits // 8) for (_, element), size in sizes)

    # Parameters ------------------------------------------------------------------------------------------------------

    def parameters(
        self, x: Tensor | None = None, *, low: Tensor | None = None, high: Tensor | None = None
    ) -> Parameters:
        """What `cast` needs beside the tensor: one for each of `levels`.

        Args:
            x: The tensor whose numbers decide.
            low: In place of `x`, the lowest number of each block, in `scale_shape(x.shape)`.
            high: The highest.

        Returns:
            `()` for a format that is dynamic or has no scale. Scales are float32 and numbers of the scale's format;
            the zero point is an integer tensor.

        Raises:
            DataError: NaN or an infinity in `x` or in the ranges.
            OptionError: The block does not fit, or a rule or residual that needs the numbers has only their range.
        """
        if self.is_dynamic or not self.levels:
            return ()
        return fit(self, None if x is None else _real(x), low, high)

    def _measure(self, x: Tensor) -> Parameters:
        return fit_any(self, x) if self.levels else ()

    def _given(self, x: Tensor, parameters: Sequence[Tensor] | None) -> Parameters:
        if parameters is None or (self.is_dynamic and not parameters):
            return self._measure(x)
        if len(parameters) != len(self.levels):
            wanted = ", ".join(name for name, _ in self.levels) or "none"
            raise OptionError(f"{self} takes the parameters ({wanted}), not {len(parameters)}", "parameters")
        return tuple(p.detach() if p.requires_grad else p for p in parameters)

    # Numbers ---------------------------------------------------------------------------------------------------------

    def cast(
        self,
        x: Tensor,
        parameters: Sequence[Tensor] | None = None,
        seed: int | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """The nearest tensor that this format can hold, bit for bit `decode(encode(x))`.

        Args:
            x: Any shape, floating point. float16 and bfloat16 are computed in float32, and so is the scale.
            parameters: From `parameters`; None computes them from `x`.
            seed: For stochastic rounding; None draws from torch's global generator.
            out: Where the result goes, of the shape and type of `x`; it may be `x` itself.

        Returns:
            `out`, or a new tensor of the shape and type of `x`, without a gradient: that is what `planish::cast` adds.

        Raises:
            DataError: `x` is not floating point.
            OptionError: The parameters are not those of this format, or do not fit `x`.
        """
        x = _real(x)
        if kernel := kernels.for_(self, x, parameters):
            return kernel.cast(x, parameters, out)
        y = self._cast(x, self._given(x, parameters), seed).to(x.dtype)
        return y if out is None else kernels.fitting(out, x).copy_(y)

    def encode(self, x: Tensor, parameters: Sequence[Tensor] | None = None, seed: int | None = None) -> Codes:
        """The integer codes of `x`; arguments and errors as for `cast`, and a DataError for a NaN scale."""
        x = _real(x)
        self._refuse_nan(parameters)
        if kernel := kernels.for_(self, x, parameters):
            codes, given = kernel.encode(x, parameters)
        else:
            given = self._given(x, parameters)
            codes = definition.codes(self, x, given, seed)
        return Codes(codes, given, self, tuple(x.shape), x.dtype)

    def pack(
        self,
        x: Tensor,
        parameters: Sequence[Tensor] | None = None,
        seed: int | None = None,
        out: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """`encode(x).pack()`, in one pass that does not store the codes one by one; `Codes.unpack` reads it.

        Args:
            x: As for `encode`, and so are `parameters` and `seed`.
            out: What an earlier call gave for a tensor of this shape; overwritten and returned.
        """
        x = _real(x)
        self._refuse_nan(parameters)
        kernel = kernels.for_(self, x, parameters) if self.bits <= 8 else None
        if kernel is not None:
            packed, given = kernel.pack(x, parameters, None if out is None else out["codes"])
        else:
            codes = self.encode(x, parameters, seed)
            packed, given = pack(codes.codes, self.bits), codes.parameters
        tensors = {"codes": packed, **pack_parameters(self, given)}
        if out is None:
            return tensors
        for name, tensor in tensors.items():
            if tensor is not out[name]:
                out[name].copy_(tensor)
        return out

    def _refuse_nan(self, parameters: Sequence[Tensor] | None) -> None:
        if parameters and any(p.isnan().any() for p in parameters):
            raise DataError(f"a scale of {self} is NaN", "parameters")

    def decode(self, codes: Codes) -> Tensor:
        """The numbers that codes stand for, in the type of the tensor that was encoded."""
        kind = torch.float64 if codes.dtype == torch.float64 or self._wide else torch.float32
        return self._decoded(codes.codes, codes.parameters, kind).to(codes.dtype)

    def inside(self, x: Tensor, parameters: Sequence[Tensor] | None = None) -> Tensor:
        """Where `x` lies between the lowest and the highest number that the format holds at these parameters (bool)."""
        x = _real(x)
        return definition.inside(self, x.to(self._kind(x)), self._given(x, parameters))

    @property
    def _wide(self) -> bool:
        return self.element.wide or (self.residual is not None and self.residual._wide)

    def _kind(self, x: Tensor) -> torch.dtype:
        return torch.float64 if x.dtype == torch.float64 or self._wide else torch.float32

    def _scale(self, given: Given, shape: Sequence[int], kind: torch.dtype) -> Tensor:
        """The effective scale, float32 rounded, as it broadcasts against the split tensor."""
        assert self.scale is not None
        assert given.scale is not None
        return (self.block or TENSOR).spread(self.scale._value(given.scale.float(), given.above), shape).to(kind)

    def _grid(self, x: Tensor, parameters: Parameters, seed: int | None = None) -> Tensor:
        """The element's number for each of `x`, zero points taken away, before the scale is put back."""
        return self._quantize(x, parameters, seed, rescale=False)

    def _first(self, x: Tensor, parameters: Parameters, seed: int | None = None) -> Tensor:
        """What the element alone, without a residual, makes of `x`."""
        return self._quantize(x, parameters, seed, rescale=True)

    def _cast(self, x: Tensor, parameters: Parameters, seed: int | None = None) -> Tensor:
        y = self._first(x, parameters, seed)
        if self.residual is None:
            return y
        left = x.to(y.dtype) - y
        return y.add_(self.residual._cast(left, split(self, parameters).residual, definition.after(seed)))

    def _quantize(self, x: Tensor, parameters: Parameters, seed: int | None, rescale: bool) -> Tensor:
        if kernel := kernels.for_element(self, x, parameters):
            return kernel.quantize(x, parameters, rescale)
        return definition.quantize(self, x, split(self, parameters), seed, rescale)

    def _value(self, values: Tensor, parameters: Parameters) -> Tensor:
        """Numbers of the element, times the scale, less the offset."""
        return definition.value(self, values, split(self, parameters))

    def _decoded(self, codes: Tensor, parameters: Parameters, kind: torch.dtype) -> Tensor:
        if kernel := kernels.for_codes(self, codes, parameters, kind):
            return kernel.decode(codes, parameters)
        return definition.decoded(self, codes, split(self, parameters), kind)


def _real(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise DataError(f"a format rounds real numbers, not {x.dtype}", hint="x.float()")
    return x.detach() if x.requires_grad else x
