"""The one operation that Planish adds to ATen: `planish::cast`, rounding a tensor to a number format."""

# ruff: noqa: A001, A002  (`format` is the word for it everywhere else)
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from planish.errors import OptionError
from planish.formats import TENSOR, Format, get

Gradient = Literal["straight-through", "clipped", "lsq"]
"""`straight-through`: the gradient passes. `clipped`: it passes where the number was inside the format's range. `lsq`:
as clipped, and the scale learns (Learned Step Size Quantization, arXiv 1902.08153)."""

_LIBRARY = torch.library.Library("planish", "DEF")
_LIBRARY.define(
    'cast(Tensor x, Tensor[] parameters, str format, str gradient="straight-through", int? seed=None) -> Tensor',
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
        gradient: What stands in for the gradient of rounding.
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
    if parsed.is_dynamic and gradient == "lsq":
        raise OptionError(f"{format} has no stored scale that could learn", "gradient", "'straight-through'")
    return parsed


@torch.library.impl(_LIBRARY, "cast", "CompositeExplicitAutograd")
def _eager(
    x: Tensor, parameters: Sequence[Tensor], format: str, gradient: str = "straight-through", seed: int | None = None
) -> Tensor:
    y = _check(x, parameters, format, gradient).cast(x, parameters, seed)
    if y.is_contiguous() and x.is_contiguous():
        return y
    like = torch.empty_like(x)  # the fake kernel promises these strides
    return y if y.stride() == like.stride() else like.copy_(y)


@torch.library.register_fake("planish::cast", lib=_LIBRARY)
def _fake(
    x: Tensor, parameters: Sequence[Tensor], format: str, gradient: str = "straight-through", seed: int | None = None
) -> Tensor:
    _check(x, parameters, format, gradient)
    return torch.empty_like(x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, parameters, ctx.format, ctx.gradient, _ = inputs
    if ctx.gradient != "straight-through":
        ctx.save_for_backward(x, output, *parameters)
    ctx.count = len(parameters)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    to_parameters: list[Tensor | None] = [None] * ctx.count
    if ctx.gradient == "straight-through":
        to_x = grad
    else:
        x, y, *parameters = ctx.saved_tensors
        format = _parse(ctx.format)
        inside = format.inside(x, parameters)
        to_x = grad * inside
        if ctx.gradient == "lsq" and parameters:
            to_parameters[0] = _scale_gradient(format, x, y, inside, grad, parameters)
    # the dispatcher drops trailing arguments that have their default, and wants one gradient for each that is left
    return (to_x, to_parameters, None, None, None)[: len(ctx.needs_input_grad)]


def _scale_gradient(
    format: Format, x: Tensor, y: Tensor, inside: Tensor, grad: Tensor, parameters: list[Tensor]
) -> Tensor:
    """Of `y` by the scale: what rounding added where inside, the bound itself where outside, in units of the scale;
    divided, as in LSQ, by the root of the numbers in a block times the highest code."""
    block, scale = format.block or TENSOR, parameters[0]
    total = block.sum((y - x * inside).float() * grad).reshape(scale.shape) / scale
    share = x.numel() / max(1, total.numel()) * format.element.maximum
    return (total / share**0.5).to(scale.dtype)


torch.library.register_autograd("planish::cast", _backward, setup_context=_save, lib=_LIBRARY)
