"""What every number format keeps, whoever wrote it: one function a promise, each taking the format."""

# ruff: noqa: A002
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from safetensors import torch as safetensors
from torch import Tensor

from planish.errors import OptionError
from planish.formats import Codes, Format, Lut, Posit
from planish.graph.cast import cast


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers over a wide range of sizes, with zeros and an outlier."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator) * torch.exp2(torch.randint(-6, 4, shape, generator=generator))
    x.view(-1)[::17] = 0.0
    x.view(-1)[-1] *= 20.0
    return x


def same(a: Tensor, b: Tensor) -> bool:
    """Equal to the bit, the sign of zero included; NaN equals NaN."""
    return a.dtype == b.dtype and bool(((a == b) & (a.signbit() == b.signbit()) | a.isnan() & b.isnan()).all())


def fits(format: Format, shape: Sequence[int]) -> bool:
    """Whether the format's block has its axes in a tensor of `shape`."""
    try:
        format.scale_shape(shape)
    except OptionError:
        return False
    return True


def cast_is_decode_of_encode(format: Format) -> None:
    for x in (numbers(6, 70), numbers(6, 70)[:, ::3], numbers(6, 70).t(), numbers(64), numbers(2, 3, 4, 5)):
        if not fits(format, x.shape):
            continue
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            y = format.cast(x.to(dtype))
            assert y.dtype == dtype
            assert y.shape == x.shape
            assert same(y, format.decode(format.encode(x.to(dtype))))


def _typical(format: Format, x: Tensor) -> Tensor:
    """What decides the scales: a residual is greedy, and needs scales that fall, which blocks of outliers can break."""
    return x if format.residual is None else torch.randn(x.shape, generator=torch.Generator().manual_seed(1))


def is_idempotent(format: Format) -> None:
    x = numbers(6, 64)
    parameters = format.parameters(_typical(format, x))
    y = format.cast(x, parameters)
    assert same(format.cast(y, parameters), y)


def is_monotone(format: Format) -> None:
    x, whole = numbers(1024).sort().values, format.per_tensor()
    y = whole.cast(x, whole.parameters(_typical(format, x)))
    assert (y.diff() >= 0).all()


def is_odd(format: Format) -> None:
    if format.is_affine or format.bits > 8 or format.rounding not in ("even", "away"):
        return
    grid = format.element.grid
    grid = grid[grid.isfinite()].sort().values
    if torch.equal(grid, -grid.flip(0)):
        x = numbers(6, 64)
        parameters, inside = format.parameters(x), (x != 0) | bool((grid == 0).any())
        assert torch.equal(format.cast(-x, parameters)[inside], -format.cast(x, parameters)[inside])


def goes_to_the_nearest(format: Format) -> None:
    """No number of the element is nearer than the one chosen, for elements small enough to list.

    Posits are rounded as their standard says, which is not by distance.
    """
    if format.bits > 8 or format.rounding != "even" or isinstance(format.element, Posit):
        return
    if isinstance(format.element, Lut):  # whose numbers are a parameter
        whole, x = replace(format.per_tensor(), residual=None, is_dynamic=False), numbers(2000).double()
        parameters, places = whole.parameters(x), torch.arange(format.element.count, dtype=torch.uint8)
        y, grid = whole.cast(x, parameters), Codes(places, parameters, whole, places.shape, x.dtype).decode()
    else:
        grid = format.element.grid
        grid = grid[grid.isfinite()]
        x = numbers(2000).double() * format.element.maximum / 20
        y = format.element.round_(x.clone())
    assert ((x.unsqueeze(1) - grid).abs().amin(1) == (x - y).abs()).all()


def keeps_codes_in_range(format: Format) -> None:
    codes = format.encode(numbers(6, 70)).codes
    assert codes.shape == (6, 70)
    assert codes.dtype == format.code_dtype
    if format.residual is None:
        assert same(format.element.to_codes(format.element.from_codes(codes, torch.float64)).double(), codes.double())
    else:
        assert codes.amin() >= 0
        assert codes.amax() < 2**format.bits


def has_a_text_form(format: Format) -> None:
    assert Format.parse(str(format)) == format
    assert str(Format.parse(str(format))) == str(format)


def packs_to_the_byte(format: Format) -> None:
    for shape in filter(partial(fits, format), ((6, 70), (3,), (), (0, 4), (1, 1, 33))):
        x = numbers(*shape) if torch.Size(shape).numel() else torch.zeros(shape)
        codes = format.encode(x)
        packed = codes.pack()
        assert all(data.dtype == torch.uint8 for data in packed.values())
        assert sum(data.numel() for data in packed.values()) == format.nbytes(shape)
        back = Codes.unpack(safetensors.load(safetensors.save(packed)), format, shape)
        assert torch.equal(back.codes, codes.codes)
        assert same(back.decode(), codes.decode())


def takes_empty_and_single(format: Format) -> None:
    for shape in filter(partial(fits, format), ((), (0,), (0, 8), (4, 0), (1,))):
        x = torch.full(shape, 0.5)
        assert format.cast(x).shape == x.shape
    assert format.cast(torch.zeros(4, 8)).isfinite().all()


def leaves_its_input_alone(format: Format) -> None:
    x = numbers(6, 64)
    before = x.clone()
    y = format.cast(x.requires_grad_())
    format.encode(x)
    assert not y.requires_grad
    assert torch.equal(x, before)
    assert y.data_ptr() != x.data_ptr()


def survives_extremes(format: Format) -> None:
    x = torch.tensor([3e38, -3e38, 1e-45, -1e-40, 0.0, -0.0, 2.0**-126, 1.0]).repeat(8).reshape(2, 32)
    y = format.cast(x)
    assert not y.isnan().any()
    assert same(y, format.decode(format.encode(x)))
    with_nan = torch.tensor([[torch.nan, 1.0], [-torch.inf, torch.inf]])
    dynamic = replace(format, is_dynamic=True, rule="absmax") if format.scale else format
    assert same(dynamic.cast(with_nan), dynamic.decode(dynamic.encode(with_nan)))


def passes_gradients(format: Format) -> None:
    """The operation of graphs gives the same numbers; its gradient is one, or one in the range, and reaches scales."""
    x = numbers(6, 64).requires_grad_()
    parameters = list(format.parameters(x))
    y = cast(x, format, parameters)
    assert same(y.detach(), format.cast(x, parameters))
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.ones_like(x))
    (clipped,) = torch.autograd.grad(cast(x, format, parameters, "clipped").sum(), x)
    inside = format.inside(x, parameters)
    assert torch.equal(clipped, inside.to(x.dtype))
    assert inside[y.detach() == x.detach()].all(), "what the format holds lies inside its range"
    if format.scale is not None and not format.is_dynamic:
        parameters[0] = parameters[0].clone().requires_grad_()
        (learned,) = torch.autograd.grad(cast(x, format, parameters, "lsq").square().sum(), parameters[0])
        assert learned.shape == parameters[0].shape
        assert learned.isfinite().all()
        assert learned.any()


CONTRACT = (
    cast_is_decode_of_encode,
    is_idempotent,
    is_monotone,
    is_odd,
    goes_to_the_nearest,
    keeps_codes_in_range,
    has_a_text_form,
    packs_to_the_byte,
    takes_empty_and_single,
    leaves_its_input_alone,
    survives_extremes,
    passes_gradients,
)
