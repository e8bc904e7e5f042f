"""What rounding a tensor to a format loses."""

# ruff: noqa: A002  (`format` is the word for it everywhere else)
from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from planish.errors import DataError
from planish.formats.format import Format
from planish.formats.named import get


@dataclass(frozen=True)
class Loss:
    """The error of a tensor rounded to a format.

    Attributes:
        sqnr: `10 log10(sum x^2 / sum error^2)` in dB; infinite where nothing is lost.
        rms: Root of the mean squared error, in units of the tensor's.
        largest: The largest magnitude of an error, in units of the tensor's.
        mean_ulps: The mean error in units in the last place: of the distance between the two numbers of the format
            that enclose a number. None where a format does not round up and down (posits, residuals).
        largest_ulps: The largest such error; half for rounding to the nearest.
        saturated: Share of the numbers that lie beyond the format's range.
        vanished: Share of the numbers that were not zero and became zero.
        errors: `cast(x) - x`, in the tensor's shape.
    """

    sqnr: float
    rms: float
    largest: float
    mean_ulps: float | None
    largest_ulps: float | None
    saturated: float
    vanished: float
    errors: Tensor


def loss(x: Tensor, format: Format | str) -> Loss:
    """Round a tensor to a format, with scales from the tensor, and tell what is lost.

    Args:
        x: Any shape, floating point, with at least one number that is not zero.
        format: A format, its name, or its text form.

    Raises:
        DataError: There is no number, all are zero, or one is NaN or infinite.
    """
    form, x = get(format), x.detach()
    if not x.is_floating_point() or not bool(torch.isfinite(x).all()) or not bool((x != 0).any()):
        raise DataError("an error is told of finite real numbers, not all of them zero", "x")
    parameters = None if form.is_dynamic else form.parameters(x)
    y = form.cast(x, parameters)
    errors = (y.double() - x.double()).to(torch.float64)
    power, noise = float(x.double().square().sum()), float(errors.square().sum())
    gaps = _gaps(form, x, parameters)
    ulps = None if gaps is None else (errors.abs() / gaps)[gaps > 0]
    return Loss(
        sqnr=10 * math.log10(power / noise) if noise else math.inf,
        rms=math.sqrt(noise / x.numel()),
        largest=float(errors.abs().amax()),
        mean_ulps=None if gaps is None or ulps is None else float(ulps.sum() / gaps.numel()),
        largest_ulps=None if ulps is None else float(ulps.amax()) if ulps.numel() else 0.0,
        saturated=float((~form.inside(x, parameters)).double().mean()),
        vanished=float(((y == 0) & (x != 0)).double().mean()),
        errors=errors,
    )


def _gaps(form: Format, x: Tensor, parameters: tuple[Tensor, ...] | None) -> Tensor | None:
    """The distance between the numbers of the format on both sides of each; 0 where it is one, or beyond all."""
    if form.residual or not {"up", "down"} <= set(form.element.roundings):
        return None
    up, down = (replace(form, rounding=side).cast(x.double(), parameters) for side in ("up", "down"))
    return (up - down).nan_to_num_(0.0, 0.0, 0.0)
