"""A format computed by a kernel and by torch, on inputs chosen to part them."""

# ruff: noqa: A002
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor

from planish.formats import Codes, Format, fit, kernels, scaling
from tests.formats.contract import fits, numbers, same


@contextmanager
def torch_only() -> Iterator[None]:
    """Everything by the definition, as where there is no compiler."""
    nothing = {name: mock.Mock(return_value=None) for name in ("for_", "for_element", "for_codes", "pack", "unpack")}
    plain = mock.Mock(side_effect=lambda element, values: element.to_codes(values))
    with (
        mock.patch.multiple(kernels, **nothing, to_codes=plain),
        mock.patch.object(fit, "ranges", scaling.ranges),
    ):
        yield


def around(format: Format, scale: float) -> Tensor:
    """Every number of a small element, every midpoint, and their float32 neighbors, times a scale."""
    grid = format.element.grid
    grid = grid[grid.isfinite()].unique()
    points = torch.cat([grid, (grid[1:] + grid[:-1]) / 2]).float() * scale
    far = torch.tensor(torch.inf)
    return torch.cat([points, points.nextafter(far), points.nextafter(-far)])


def inputs(format: Format) -> Iterator[Tensor]:
    """Tensors of many shapes, types and sizes of numbers."""
    patterns = (torch.arange(65536, dtype=torch.int32) << 16).view(torch.float32)
    yield patterns.reshape(256, 256)
    yield patterns[patterns.isfinite()][::5].reshape(-1, 192)[:, :190]
    yield torch.tensor([3.4e38, -torch.inf, 1e38, 2.0, torch.inf, 1e-45, -0.0, 3e-39]).repeat(9).reshape(2, 36)
    yield torch.tensor([3e38, -3e38, 1e-45, -1e-40, 0.0, -0.0, 2.0**-126, 1.0]).repeat(8).reshape(2, 32)
    yield torch.tensor([1e-45, -1e-45, 1e-44, 0.0, -0.0, 3e-39]).repeat(12).reshape(2, 36)
    yield torch.tensor([[torch.nan, 1.0], [-torch.inf, torch.inf]])
    yield numbers(6, 70) * 1e-40
    yield numbers(3, 5, 77)
    yield numbers(70, 33).t()
    yield numbers(2, 8, 5, 6).contiguous(memory_format=torch.channels_last)
    yield numbers(20, 70).bfloat16()
    yield numbers(20, 70).half()
    yield torch.zeros(4, 64)
    yield torch.tensor(0.3)
    if format.bits <= 8:
        for scale in (1.0, 0.37, 2.0**-9):
            yield around(format, scale).reshape(1, -1)


def results(format: Format, x: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """Everything that a format computes."""
    codes = format.encode(x)
    found = {
        "cast": (format.cast(x),),
        "codes": (codes.codes,),
        "decoded": (codes.decode(),),
        "parameters": codes.parameters,
        "packed": tuple(codes.pack().values()),
    }
    back = Codes.unpack(codes.pack(), format, x.shape, x.dtype)
    found["unpacked"] = (back.codes, back.decode())
    if x.isfinite().all():
        given = format.parameters(x)
        found |= {"fitted": given, "static": (format.cast(x, given),), "static codes": (format.encode(x, given).codes,)}
    return found


def differences(format: Format) -> list[str]:
    """What a kernel computes otherwise than torch."""
    found = []
    for x in inputs(format):
        if not fits(format, x.shape):
            continue
        ours = results(format, x)
        with torch_only():
            theirs = results(format, x)
        for what, tensors in ours.items():
            for a, b in zip(tensors, theirs[what], strict=True):
                # a zero point or an offset of a block that holds zeros of both signs has either
                equal = same(a, b) if what not in ("parameters", "fitted") else _equal(a, b)
                if a.shape != b.shape or not equal:
                    found.append(f"{what} of {tuple(x.shape)} {x.dtype}")
    return found


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and bool(((a == b) | a.isnan() & b.isnan()).all())
