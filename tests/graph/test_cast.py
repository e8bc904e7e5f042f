"""`planish::cast` in every way a graph is used: eager, exported, compiled, trained, with symbolic sizes."""

# ruff: noqa: A001
from __future__ import annotations

import pytest
import torch
from torch import Tensor, library, nn

from planish.errors import OptionError
from planish.formats import TENSOR, get
from planish.graph.cast import cast

op = torch.ops.planish.cast


class Quantized(nn.Module):
    """A linear layer with int8 weights per channel and affine activations."""

    def __init__(self, activations: str = "uint8@tensor", gradient: str = "straight-through") -> None:
        super().__init__()
        self.inner = nn.Linear(16, 8)
        self.activations, self.gradient = activations, gradient
        low, high = torch.tensor(-3.0), torch.tensor(2.0)
        self.register_buffer("weight__scale", get("int8@channel0").parameters(self.inner.weight)[0])
        for index, parameter in enumerate(get(activations).parameters(low=low, high=high)):
            self.register_buffer(f"input__{index}", parameter)

    def forward(self, x: Tensor) -> Tensor:
        weight = op(self.inner.weight, [self.weight__scale], "int8@channel0", self.gradient)
        given = [b for name, b in self.named_buffers() if name.startswith("input__")]
        return nn.functional.linear(op(x, given, self.activations, self.gradient), weight, self.inner.bias)


@pytest.mark.parametrize("activations", ["uint8@tensor", "int8@token~dynamic", "int8@g8~dynamic", "mxfp8"])
def test_exports_with_a_dynamic_batch_and_trains(activations: str) -> None:
    activations = str(get(activations).dynamic()) if activations == "mxfp8" else activations
    model, x = Quantized(activations), torch.randn(4, 16)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
    assert sum(node.target is op.default for node in program.graph.nodes) == 2
    back = program.module(check_guards=False)
    for batch in (2, 4, 12):
        more = torch.randn(batch, 16)
        assert torch.equal(back(more), model(more))
    back(x).square().sum().backward()
    model(x).square().sum().backward()
    assert torch.equal(back.get_parameter("inner.weight").grad, model.inner.weight.grad)


@pytest.mark.parametrize("gradient", ["clipped", "lsq", "pact"])
def test_compiles_as_one_graph_and_backward(gradient: str) -> None:
    model, x = Quantized(gradient=gradient), torch.randn(4, 16)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    assert torch.equal(compiled(x), model(x))
    (expected,) = torch.autograd.grad(model(x).square().sum(), model.inner.weight)
    (found,) = torch.autograd.grad(compiled(x).square().sum(), model.inner.weight)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("text", "gradient"),
    [
        ("int8@channel0", "straight-through"),
        ("int4@g4", "lsq"),
        ("uint8@tensor", "clipped"),
        ("e4m3*float32", "lsq"),
        ("nvfp4", "lsq"),
        ("q4_1", "pact"),
        ("lut2@channel0", "straight-through"),
        ("lut2", "pact"),
    ],
)
def test_keeps_the_promises_of_an_operator(text: str, gradient: str) -> None:
    x = torch.randn(8, 6).t()
    parameters = [p.requires_grad_() if p.is_floating_point() else p for p in get(text).parameters(x)]
    library.opcheck(op.default, (x.clone().requires_grad_(), parameters, str(get(text)), gradient))


def test_keeps_strides_and_type() -> None:
    x = torch.randn(2, 4, 6, 6).to(memory_format=torch.channels_last)
    for text in ("int8@channel1", "uint8@tensor~dynamic", "int8@g4axis1~dynamic"):
        assert op(x, list(get(text).parameters(x)), text).stride() == x.stride()
    half = x.bfloat16()
    assert op(half, [], "int8@token~dynamic").dtype == torch.bfloat16


def test_straight_through_passes_everything_and_clipped_what_is_inside() -> None:
    x = torch.tensor([-300.0, -100.0, 0.4, 100.0, 300.0], requires_grad=True)
    scale = torch.ones(())
    (all_,) = torch.autograd.grad(cast(x, "int8", (scale,)).sum(), x)
    assert all_.tolist() == [1, 1, 1, 1, 1]
    (inside,) = torch.autograd.grad(cast(x, "int8", (scale,), "clipped").sum(), x)
    assert inside.tolist() == [0, 1, 1, 1, 0]
    zero = torch.tensor(100, dtype=torch.uint8)
    (inside,) = torch.autograd.grad(cast(x, "uint8", (scale, zero), "clipped").sum(), x)
    assert inside.tolist() == [0, 1, 1, 1, 0]
    x = torch.tensor([-101.0, 156.0, 155.0], requires_grad=True)
    (inside,) = torch.autograd.grad(cast(x, "uint8", (scale, zero), "clipped").sum(), x)
    assert inside.tolist() == [0, 0, 1]


def test_the_scale_learns_as_lsq_says() -> None:
    """Equation 3 of arXiv 1902.08153: -v/s + round(v/s) inside, -Qn or Qp outside; gradient scale 1/sqrt(N Qp)."""
    x = torch.tensor([0.3, -0.74, 2.6, -9.0, 9.0, 0.0])
    scale = torch.tensor(0.5, requires_grad=True)
    weights = torch.arange(1.0, 7.0)
    (found,) = torch.autograd.grad((cast(x, "int4", (scale,), "lsq") * weights).sum(), scale)
    v = x / 0.5
    slope = torch.where(v <= -8, -8.0, torch.where(v >= 7, 7.0, v.round() - v))
    torch.testing.assert_close(found, (slope * weights).sum() / (6 * 7) ** 0.5)


def test_the_scale_learns_as_torch_says() -> None:
    """Away from the half step at each end, which rounds into the range and which torch counts as inside."""
    x = torch.tensor([0.3, -0.74, 2.4, -9.0, 9.0, 0.0, 1.26]).requires_grad_()
    weights = torch.arange(1.0, 8.0)
    scale, zero = torch.tensor(0.25, requires_grad=True), torch.tensor(5, dtype=torch.uint8)
    theirs = torch._fake_quantize_learnable_per_tensor_affine(
        x, learned := scale.detach().reshape(1).requires_grad_(), torch.tensor([5.0]), 0, 15, (len(x) * 15) ** -0.5
    )
    ours = cast(x, "uint4", (scale, zero), "lsq")
    assert torch.equal(ours, theirs)
    wanted = torch.autograd.grad((theirs * weights).sum(), (x, learned))
    found = torch.autograd.grad((ours * weights).sum(), (x, scale))
    torch.testing.assert_close(found, (wanted[0], wanted[1].reshape(())))


LEVELS = ["int4@g8", "nvfp4", "e2m1@g16*(e4m3*float32)", "mxfp4", "int8@channel0*(int8@channel0*float32)",
          "uint4@g8*(uint6-zp@g2*float16)-(uint6-zp@g2*float16)", "uint4@g8", "int3@g8&int4@g16*float16"]  # fmt: skip


def by_hand(x: Tensor, text: str, parameters: list[Tensor], inside: bool) -> Tensor:
    """The cast written out with autograd's own rules: rounding passes gradients, clamping stops them."""
    format, levels = get(text), iter(parameters)

    def stored(form, level: Tensor, left: list[Tensor]) -> Tensor:
        """What a level stands for, by multiplication alone."""
        if form.scale is None:
            return level.float()
        block, above = form.block or TENSOR, left.pop(0)
        spread = block.spread(stored(form.scale, above, left), level.shape)
        return block.join(block.split(level.float()) * spread, level.shape)

    block, element = format.block or TENSOR, format.element
    scale, zero = next(levels), next(levels) if format.is_affine else torch.tensor(0)
    left = list(levels)
    effective = block.spread(stored(format.scale, scale, left), x.shape)
    offset = block.spread(stored(format.offset, left.pop(0), left), x.shape) if format.offset else 0.0
    zero = block.spread(zero, x.shape).float()
    counts = x.numel() / torch.Size(format.scale_shape(x.shape)).numel()
    share = (counts * element.maximum) ** -0.5 if inside else 1.0
    effective = effective * share + (effective * (1 - share)).detach()  # LSQ's step for the scale
    if format.offset:
        offset = offset * share + (offset * (1 - share)).detach()
    units = (block.split(x) + offset) / effective
    rounded = element.round_((units + zero).detach().clone())
    if not inside:  # PACT: the step inside the range is a constant
        units = (block.split(x) + offset.detach() if format.offset else block.split(x)) / effective.detach()
        kept = ((units + zero) >= element.minimum) & ((units + zero) <= element.maximum)
        bound = (rounded - zero) * effective - offset
        passed = block.split(x) + ((rounded - zero) * effective - offset - block.split(x)).detach()
        return block.join(torch.where(kept, passed, bound), x.shape)
    clamped = (units + zero).clamp(element.minimum, element.maximum)
    y = (clamped + (rounded - clamped).detach() - zero) * effective - offset
    y = block.join(y, x.shape)
    if format.residual is None:
        return y
    return y + by_hand(x - y, str(format.residual), left, inside)


@pytest.mark.parametrize("gradient", ["lsq", "pact"])
@pytest.mark.parametrize("text", LEVELS)
def test_every_level_learns_by_the_chain_rule(text: str, gradient: str) -> None:
    if gradient == "pact" and "&" in text:
        return
    generator = torch.Generator().manual_seed(1)
    x, weights = (torch.randn(4, 64, generator=generator) for _ in range(2))
    parameters = [p * 0.71 if p.is_floating_point() else p for p in get(text).parameters(x)]  # so that some are clipped
    x.requires_grad_()
    given = [p.clone().requires_grad_() if p.is_floating_point() else p for p in parameters]
    learned = [x, *(p for p in given if p.is_floating_point())]
    ours, theirs = cast(x, text, given, gradient), by_hand(x, text, given, gradient == "lsq")
    torch.testing.assert_close(ours, theirs)
    found = torch.autograd.grad((ours * weights).sum(), learned)
    wanted = torch.autograd.grad((theirs * weights).sum(), learned)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert all(bool(grad.any()) for grad in found)


@pytest.mark.parametrize("text", ["int4n", "uint4-zp", "e4m3*float32", "int4n@channel0", "mxfp4"])
def test_the_clip_learns_as_pact_says(text: str) -> None:
    """Equation 3 of arXiv 1805.06085, by finite differences of the clip itself: steps within play no part."""
    generator = torch.Generator().manual_seed(0)
    x, weights = (torch.randn(4, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    format = get(text)
    (scale,) = format.parameters(x)
    scale = (scale.double() * 0.6).requires_grad_()
    (found,) = torch.autograd.grad((cast(x, text, (scale,), "pact") * weights).sum(), scale)

    def clipped(scale: Tensor) -> Tensor:
        block, low, high = format.block or TENSOR, format.element.minimum, format.element.maximum
        wide = block.spread(scale, x.shape)
        y = torch.minimum(torch.maximum(block.split(x), low * wide), high * wide)
        return block.sum(block.join(y, x.shape) * weights)

    step = 1e-7 * scale.detach()
    wanted = (clipped(scale.detach() + step) - clipped(scale.detach() - step)) / (2 * step)
    torch.testing.assert_close(found, wanted.reshape(found.shape), rtol=1e-4, atol=1e-4)


def test_scales_learn_by_no_other_estimator() -> None:
    x = torch.randn(4, 8, requires_grad=True)
    for gradient in ("straight-through", "clipped"):
        scale = torch.tensor(0.05, requires_grad=True)
        y = cast(x, "int4", (scale,), gradient)  # type: ignore[arg-type]
        _, to_scale = torch.autograd.grad(y.sum(), (x, scale), allow_unused=True)
        assert to_scale is None or not to_scale.any()


@pytest.mark.parametrize("gradient", ["straight-through", "clipped", "lsq", "pact"])
@pytest.mark.parametrize("text", ["lut3", "lut2@channel0", "lut2@g16", "lut2@channel0*(int8@channel0*float32)"])
def test_codebooks_learn_what_comes_to_their_numbers(text: str, gradient: str) -> None:
    x, weights = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))
    format = get(text)
    codebook, *above = format.parameters(x)
    codebook.requires_grad_()
    (found,) = torch.autograd.grad((cast(x, text, (codebook, *above), gradient) * weights).sum(), codebook)
    codes = format.encode(x, (codebook, *above)).codes.long()
    scale = above[0] if above else torch.ones(())
    rows = {"lut3": 1, "lut2@g16": 8}.get(text, 4)
    books = (codebook * scale.unsqueeze(-1) if scale.dim() == 2 else codebook * scale).reshape(rows, -1)
    y = books[torch.arange(rows).unsqueeze(1), codes.reshape(rows, -1)].reshape(x.shape)
    assert torch.equal(y, format.cast(x, (codebook, *above)))
    (wanted,) = torch.autograd.grad((y * weights).sum(), codebook)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("text", ["int4@channel0", "int4@g4*float16", "e2m1@g4*float32", "uint4@channel0"])
def test_learning_the_scale_lowers_the_error(text: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 64)
    format = get(text)
    scale, *zero = format.parameters(x)
    scale = (scale * 1.7).requires_grad_()

    def error() -> Tensor:
        return (cast(x, text, (scale, *zero), "lsq") - x).square().sum()

    before = float(error().detach())
    optimizer = torch.optim.Adam([scale], lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    assert float(error().detach()) < 0.9 * before


def test_wrapper_takes_names_and_computes_parameters() -> None:
    x = torch.randn(4, 64)
    assert torch.equal(cast(x, "mxfp4"), get("mxfp4").cast(x))
    assert torch.equal(cast(x, get("int8").per_token().dynamic()), get("int8@token").cast(x))
    assert torch.equal(cast(x, "q3.4~stochastic", (), seed=3), cast(x, "q3.4~stochastic", (), seed=3))


def test_errors_come_before_work() -> None:
    x = torch.randn(4, 8)
    with pytest.raises(OptionError, match="unknown gradient"):
        cast(x, "int8", gradient="guess")  # type: ignore[arg-type]
    for gradient in ("lsq", "pact"):
        with pytest.raises(OptionError, match="no stored scale"):
            cast(x, "int8@token~dynamic", gradient=gradient)
    with pytest.raises(OptionError, match=r"takes the parameters \(scale\), not 0"):
        cast(x, "int8", ())
