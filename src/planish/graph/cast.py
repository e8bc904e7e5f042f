"""The one operation that Planish adds to ATen: `planish::cast`, rounding a tensor to a number format."""

# ruff: noqa: A001, A002  (`format` is the word for it everywhere else)
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, get_args

import torch
from torch import Tensor, library

from planish.errors import OptionError
from planish.formats import Format, Lut, get
from planish.formats.learning import Gradient, gradients

_LIBRARY = library.Library("planish", "DEF")
_LIBRARY.define(
    'cast(Tensor x, Tensor[] parameters, str format, str gradient="straight-through", int? seed=None) -> Tensor',
    tags=(torch.Tag.pt2_compliant_tag,),
)
_LIBRARY.define(
    "cast_gradients(Tensor grad, Tensor x, Tensor[] parameters, str format, str gradient) -> Tensor[]",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_parse = lru_cache(maxsize=4096)(Format.parse)


def cast(
    x: Tensor,
    format: Format | str,
    parameters: Sequence[Tensor] | None = None,
    gradient: Gradient = "straight-through",
    seed: int | None = None,
) -> Tensor:
    """`x` rounded to `format`, differentiable and visible to `torch.export` as one `planish::cast`.

    Args:
        x: Any shape, floating point.
        format: A format, its name, or its text form.
        parameters: From `format.parameters`; None computes them from `x`, `()` is for a format that has none.
        gradient: What stands in for the gradient of rounding; `planish.formats.learning` tells what learns by which.
        seed: For stochastic rounding.

    Returns:
        A new tensor of the shape and type of `x`.
    """
    format = get(format)
    if parameters is None:
        parameters = format.parameters(x)
    return torch.ops.planish.cast(x, list(parameters), str(format), gradient, seed)


def _check(x: Tensor, parameters: Sequence[Tensor], format: str, gradient: str) -> Format:
    if gradient not in get_args(Gradient):
        raise OptionError(f"unknown gradient {gradient!r}", "gradient", f"one of {', '.join(get_args(Gradient))}")
    parsed = _parse(format)
    if parsed.is_dynamic and gradient in ("lsq", "pact"):
        raise OptionError(f"{format} has no stored scale that could learn", "gradient", "'straight-through'")
    return parsed


@library.impl(_LIBRARY, "cast", "CompositeExplicitAutograd")
def _eager(
    x: Tensor, parameters: Sequence[Tensor], format: str, gradient: str = "straight-through", seed: int | None = None
) -> Tensor:
    y = _check(x, parameters, format, gradient).cast(x, parameters, seed)
    if y.is_contiguous() and x.is_contiguous():
        return y
    like = torch.empty_like(x)  # the fake kernel promises these strides
    return y if y.stride() == like.stride() else like.copy_(y)


@library.register_fake("planish::cast", lib=_LIBRARY)
def _fake(
    x: Tensor, parameters: Sequence[Tensor], format: str, gradient: str = "straight-through", seed: int | None = None
) -> Tensor:
    _check(x, parameters, format, gradient)
    return torch.empty_like(x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, parameters, ctx.format, ctx.gradient, _ = inputs
    ctx.count = len(parameters)
    ctx.looks = ctx.gradient != "straight-through" or (ctx.count > 0 and _has_codebook(_parse(ctx.format)))
    if ctx.looks:
        ctx.save_for_backward(x, *parameters)


def _has_codebook(format: Format) -> bool:
    return isinstance(format.element, Lut) or (format.residual is not None and _has_codebook(format.residual))


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    to_x, to_parameters = grad, [None] * ctx.count
    if ctx.looks:
        x, *parameters = ctx.saved_tensors
        to_x, *found = torch.ops.planish.cast_gradients(grad, x, parameters, ctx.format, ctx.gradient)
        to_parameters = [each if each.dtype.is_floating_point else None for each in found]
    # the dispatcher drops trailing arguments that have their default, and wants one gradient for each that is left
    return (to_x, to_parameters, None, None, None)[: len(ctx.needs_input_grad)]


@library.impl(_LIBRARY, "cast_gradients", "CompositeExplicitAutograd")
def _gradients(grad: Tensor, x: Tensor, parameters: Sequence[Tensor], format: str, gradient: str) -> list[Tensor]:
    """To `x`, and to each of the parameters; one that does not learn has an empty tensor of integers."""
    parsed = _parse(format)
    to_x, found = gradients(parsed, x, parsed._given(x, parameters), grad, gradient)  # type: ignore[arg-type]
    found = found[: len(parameters)]  # none of those that a dynamic format computes
    none = torch.empty(0, dtype=torch.int64, device=x.device)
    return [to_x.clone() if to_x is grad else to_x, *(none if each is None else each for each in found)]


@library.register_fake("planish::cast_gradients", lib=_LIBRARY)
def _fake_gradients(grad: Tensor, x: Tensor, parameters: Sequence[Tensor], format: str, gradient: str) -> list[Tensor]:
    return _gradients(grad, x, parameters, format, gradient)


library.register_autograd("planish::cast", _backward, setup_context=_save, lib=_LIBRARY)
