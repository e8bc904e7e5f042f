"""`planish::cast` in every way a graph is used: eager, exported, compiled, trained, with symbolic sizes."""

# ruff: noqa: A001
from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from planish.errors import OptionError
from planish.formats import get
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


def test_compiles_as_one_graph_and_backward() -> None:
    model, x = Quantized(gradient="clipped"), torch.randn(4, 16)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    assert torch.equal(compiled(x), model(x))
    (expected,) = torch.autograd.grad(model(x).square().sum(), model.inner.weight)
    (found,) = torch.autograd.grad(compiled(x).square().sum(), model.inner.weight)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("text", "gradient"),
    [("int8@channel0", "straight-through"), ("int4@g4", "lsq"), ("uint8@tensor", "clipped"), ("e4m3*float32", "lsq")],
)
def test_keeps_the_promises_of_an_operator(text: str, gradient: str) -> None:
    x = torch.randn(8, 6).t()
    parameters = [p.requires_grad_() if p.is_floating_point() else p for p in get(text).parameters(x)]
    torch.library.opcheck(op.default, (x.clone().requires_grad_(), parameters, text, gradient))


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
    with pytest.raises(OptionError, match="no stored scale"):
        cast(x, "int8@token~dynamic", gradient="lsq")
    with pytest.raises(OptionError, match=r"takes the parameters \(scale\), not 0"):
        cast(x, "int8", ())
