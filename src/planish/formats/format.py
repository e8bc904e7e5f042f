"""A number format: what one number can be, which numbers share a scale, and the format of that scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import torch
from torch import Tensor

from planish.errors import DataError, OptionError
from planish.formats import text as text_form
from planish.formats.block import TENSOR, TOKEN, Block, channel, group
from planish.formats.codes import Codes
from planish.formats.element import Element, Overflow
from planish.formats.floating import FLOAT32
from planish.formats.integer import Int
from planish.formats.rounding import Rounding
from planish.formats.scaling import SHRINK, Rule, clamp_scale_, ranges, raw_scale, zero_point

Parameters = tuple[Tensor, ...]


def _float32() -> Format:
    return Format(FLOAT32, scale=None, overflow="infinity")


@dataclass(frozen=True)
class Format:
    """How a tensor is stored: `x` is about `scale * element`, one scale a block, and the scale has a format itself.

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
    """

    element: Element
    block: Block | None = None
    scale: Format | None = field(default_factory=_float32)
    zero_point: Int | None = None
    rounding: Rounding = "even"
    overflow: Overflow = "saturate"
    rule: Rule = "absmax"
    is_dynamic: bool = False

    def __post_init__(self) -> None:
        _one_of("rounding", self.rounding, self.element.roundings)
        _one_of("overflow", self.overflow, self.element.overflows)
        _one_of("rule", self.rule, get_args(Rule))
        if self.scale is None and (self.is_dynamic or self.rule != "absmax" or self.zero_point or self.block):
            wrong = "is_dynamic" if self.is_dynamic else "zero_point" if self.zero_point else "block"
            wrong = "rule" if self.rule != "absmax" else wrong
            raise OptionError(f"a format without a scale has no {wrong}", wrong, "give it a scale, such as float32")
        if self.scale is not None and self.scale.is_dynamic:
            raise OptionError("a scale cannot be dynamic by itself", "scale", "make the outer format dynamic")
        if self.zero_point is not None:
            if not isinstance(self.element, Int) or self.element.frac or self.element.narrow:
                raise OptionError("only whole integers have a zero point", "zero_point", "zero_point=None")
            if self.zero_point.frac:
                raise OptionError("a zero point is a whole integer", "zero_point", "Int(8, signed=False)")
            if self.rule == "floor":
                raise OptionError("the floor rule needs a range about zero", "rule", "'absmax' or 'mse'")

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
        return replace(self, block=block) if self.scale else self

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
        return replace(self, is_dynamic=True) if self.scale else self

    def affine(self) -> Format:
        """With a zero point, of the element's own type."""
        if not isinstance(self.element, Int):
            raise OptionError("only whole integers have a zero point", "zero_point")
        return replace(self, zero_point=self.element)

    # Size ------------------------------------------------------------------------------------------------------------

    @property
    def bits(self) -> int:
        """Bits of one code, scales not counted."""
        return self.element.bits

    @property
    def is_affine(self) -> bool:
        """Whether there is a zero point."""
        return self.zero_point is not None

    def scale_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the scales of a tensor: `()` per tensor, otherwise the number of blocks along each axis."""
        return (self.block or TENSOR).scale_shape(shape)

    @property
    def levels(self) -> tuple[tuple[str, Element], ...]:
        """Name and element of each stored parameter: scale, zero_point, scale.scale, ..."""
        if self.scale is None:
            return ()
        zero = (("zero_point", self.zero_point),) if self.zero_point else ()
        return ("scale", self.scale.element), *zero, *((f"scale.{name}", e) for name, e in self.scale.levels)

    def level_shapes(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """The shape of each of `levels` for a tensor of `shape`."""
        if self.scale is None:
            return ()
        own = self.scale_shape(shape)
        return (own,) * (1 + self.is_affine) + self.scale.level_shapes(own)

    def nbytes(self, shape: Sequence[int]) -> int:
        """Bytes of a tensor of `shape` once packed, with its scales and zero points."""
        sizes = zip(self.levels, self.level_shapes(shape), strict=True)
        own = -(-torch.Size(shape).numel() * self.bits // 8)
        return own + sum(-(-torch.Size(size).numel() * element.bits // 8) for (_, element), size in sizes)

    # Parameters ------------------------------------------------------------------------------------------------------

    def parameters(
        self, x: Tensor | None = None, *, low: Tensor | None = None, high: Tensor | None = None
    ) -> Parameters:
        """Scale, zero point if affine, then the scales of the scale: what `cast` needs beside the tensor.

        Args:
            x: The tensor whose numbers decide.
            low: In place of `x`, the lowest number of each block, in `scale_shape(x.shape)`.
            high: The highest.

        Returns:
            `()` for a format that is dynamic or has no scale. Scales are float32 and numbers of the scale's format;
            the zero point is an integer tensor.

        Raises:
            DataError: NaN or an infinity in `x` or in the ranges.
            OptionError: The block does not fit, or the "mse" rule has no `x` to search on.
        """
        if self.scale is None or self.is_dynamic:
            return ()
        if x is not None:
            x = _real(x)
            low, high = ranges(x, self.block or TENSOR, self._one_sided)
        elif low is None or high is None:
            raise OptionError("parameters need a tensor, or both low and high", "parameters", "parameters(x)")
        elif self.rule == "mse":
            raise OptionError("the mse rule searches on the tensor, ranges are not enough", "rule", "parameters(x)")
        if not bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
            raise DataError(f"NaN or infinity in the numbers that decide the scale of {self}", hint="clean the data")
        return self._parameters(low, high, x)

    def _measure(self, x: Tensor) -> Parameters:
        if self.scale is None:
            return ()
        low, high = ranges(x, self.block or TENSOR, self._one_sided)
        bound = torch.finfo(torch.float32).max
        return self._parameters(low.clamp(-bound, bound), high.clamp(-bound, bound), x)

    @property
    def _one_sided(self) -> bool:
        return self.is_affine or self.element.minimum >= 0

    def _parameters(self, low: Tensor, high: Tensor, x: Tensor | None) -> Parameters:
        first = self._from_range(low, high)
        if self.rule != "mse" or x is None or x.numel() == 0:
            return first
        block, count = self.block or TENSOR, 1 + self.is_affine
        best, best_error = first, None
        for shrink in SHRINK:  # scales of scales stay those of the full range
            trial = self._from_range(low * shrink, high * shrink, first[count:])
            error = block.sum((self._cast(x, trial) - x.to(self._kind(x))).square_())
            if best_error is None:
                best, best_error = trial, error
                continue
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best = tuple(torch.where(better, t, b) for t, b in zip(trial[:count], best[:count], strict=True))
        return best[:count] + first[count:]

    def _from_range(self, low: Tensor, high: Tensor, rest: Parameters | None = None) -> Parameters:
        assert self.scale is not None
        raw = raw_scale(low, high, self.element, self.rule, self.is_affine).float()
        scale = replace(self.scale, rounding="down") if self.rule == "floor" else self.scale
        if scale.scale is None:
            raw = torch.where(raw == 0, 1.0, raw)  # a block of zeros: any scale will do, one does no harm in an engine
            rest = ()
        elif rest is None:
            rest = scale._measure(raw)
        level = clamp_scale_(scale._grid(raw, rest), scale.element)
        if self.zero_point is None:
            return level, *rest
        assert isinstance(self.element, Int)
        zero = zero_point(low, scale._value(level, rest), self.element, self.zero_point)
        return level, zero, *rest

    # Numbers ---------------------------------------------------------------------------------------------------------

    def cast(self, x: Tensor, parameters: Sequence[Tensor] | None = None, seed: int | None = None) -> Tensor:
        """The nearest tensor that this format can hold, bit for bit `decode(encode(x))`.

        Args:
            x: Any shape, floating point. float16 and bfloat16 are computed in float32, and so is the scale.
            parameters: From `parameters`; None computes them from `x`.
            seed: For stochastic rounding; None draws from torch's global generator.

        Returns:
            A new tensor of the shape and type of `x`, without a gradient: that is what `planish::cast` adds.

        Raises:
            DataError: `x` is not floating point.
            OptionError: The parameters are not those of this format, or do not fit `x`.
        """
        x = _real(x)
        return self._cast(x, self._given(x, parameters), seed).to(x.dtype)

    def encode(self, x: Tensor, parameters: Sequence[Tensor] | None = None, seed: int | None = None) -> Codes:
        """The integer codes of `x`; arguments and errors as for `cast`, and a DataError for a NaN scale."""
        x = _real(x)
        given = self._given(x, parameters)
        if parameters and any(p.isnan().any() for p in given):
            raise DataError(f"a scale of {self} is NaN", "parameters")
        values = self._grid(x, given, seed)
        if self.zero_point is not None:
            block = self.block or TENSOR
            zero = block.spread(given[1], x.shape).to(values.dtype)
            values = block.join(block.split(values) + zero, x.shape)
        return Codes(self.element.to_codes(values), given, self, tuple(x.shape), x.dtype)

    def decode(self, codes: Codes) -> Tensor:
        """The numbers that codes stand for, in the type of the tensor that was encoded."""
        kind = torch.float64 if codes.dtype == torch.float64 or self.element.wide else torch.float32
        values = self.element.from_codes(codes.codes, kind)
        if self.zero_point is not None:
            block = self.block or TENSOR
            zero = block.spread(codes.parameters[1], codes.shape).to(kind)
            values = block.join(block.split(values) - zero, codes.shape)
        return self._value(values, codes.parameters).to(codes.dtype)

    def inside(self, x: Tensor, parameters: Sequence[Tensor] | None = None) -> Tensor:
        """Where `x` lies between the lowest and the highest number that the format holds at these parameters (bool)."""
        x = _real(x)
        given, block = self._given(x, parameters), self.block or TENSOR
        parts = block.split(x.to(self._kind(x)))
        if self.scale is not None:
            parts = parts / self._scale(given, x.shape, parts.dtype)
        low, high = self.element.minimum, self.element.maximum
        if self.zero_point is None:
            return block.join((parts >= low) & (parts <= high), x.shape)
        zero = block.spread(given[1], x.shape).to(parts.dtype)
        return block.join((parts >= low - zero) & (parts <= high - zero), x.shape)

    def _given(self, x: Tensor, parameters: Sequence[Tensor] | None) -> Parameters:
        if parameters is None or (self.is_dynamic and not parameters):
            return self._measure(x)
        if len(parameters) != len(self.levels):
            wanted = ", ".join(name for name, _ in self.levels) or "none"
            raise OptionError(f"{self} takes the parameters ({wanted}), not {len(parameters)}", "parameters")
        return tuple(p.detach() if p.requires_grad else p for p in parameters)

    def _kind(self, x: Tensor) -> torch.dtype:
        return torch.float64 if x.dtype == torch.float64 or self.element.wide else torch.float32

    def _scale(self, parameters: Parameters, shape: Sequence[int], kind: torch.dtype) -> Tensor:
        """The effective scale, float32 rounded, as it broadcasts against the split tensor."""
        assert self.scale is not None
        scale = self.scale._value(parameters[0].float(), parameters[1 + self.is_affine :])
        return (self.block or TENSOR).spread(scale, shape).to(kind)

    def _grid(self, x: Tensor, parameters: Parameters, seed: int | None = None) -> Tensor:
        """The element's number for each of `x`, zero points taken away, before the scale is put back."""
        return self._quantize(x, parameters, seed, rescale=False)

    def _cast(self, x: Tensor, parameters: Parameters, seed: int | None = None) -> Tensor:
        return self._quantize(x, parameters, seed, rescale=True)

    def _quantize(self, x: Tensor, parameters: Parameters, seed: int | None, rescale: bool) -> Tensor:
        block, kind = self.block or TENSOR, self._kind(x)
        generator = None if seed is None else torch.Generator(x.device).manual_seed(seed)
        if self.scale is None:
            return self.element.round_(x.to(kind, copy=True), self.rounding, self.overflow, generator)
        scale = self._scale(parameters, x.shape, kind)
        parts = block.split(x.to(kind)) / scale
        if self.zero_point is None:
            parts = self.element.round_(parts, self.rounding, self.overflow, generator)
        else:
            assert isinstance(self.element, Int)
            zero = block.spread(parameters[1], x.shape).to(kind)
            parts = self.element.round_(parts, self.rounding, self.overflow, generator, zero)
        return block.join(parts.mul_(scale) if rescale else parts, x.shape)

    def _value(self, values: Tensor, parameters: Parameters) -> Tensor:
        """Numbers of the element, times the scale."""
        if self.scale is None:
            return values
        block = self.block or TENSOR
        return block.join(block.split(values) * self._scale(parameters, values.shape, values.dtype), values.shape)


def _real(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise DataError(f"a format rounds real numbers, not {x.dtype}", hint="x.float()")
    return x.detach() if x.requires_grad else x


def _one_of(name: str, value: str, accepted: Sequence[str]) -> None:
    if value not in accepted:
        raise OptionError(f"{name} {value!r} does not go with this element", name, f"one of {', '.join(accepted)}")
