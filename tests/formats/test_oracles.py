"""Whole formats against code that is not ours: torch's fake quantization, ONNX's reference, loops."""

# ruff: noqa: A001
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from planish.formats import get
from tests.formats.contract import numbers
from tests.support import require


@pytest.mark.parametrize(
    "text", ["uint8", "int8", "int8+zp", "uint4", "int8n@channel0", "int8@channel1", "uint8@channel0"]
)
def test_codes_equal_onnx_quantize_linear(text: str) -> None:
    """The reference evaluates the standard's formula: saturate(round(x / scale) + zero_point)."""
    onnx = require("onnx")
    require("onnx.reference")
    format, x = get(text), numbers(16, 24, seed=3)
    low, high = format.parameters(x)[0] * -60, format.parameters(x)[0] * 90  # so that numbers saturate
    given = format.parameters(low=low, high=high)
    axis = next((axis for axis, _ in (format.block.sizes if format.block else ())), 0)
    expand = [p.reshape(-1) if p.numel() > 1 else p.reshape(()) for p in given]
    kind = {("int", 8): "INT8", ("uint", 8): "UINT8", ("uint", 4): "UINT4"}[
        "uint" if text[0] == "u" else "int", format.bits
    ]
    helper, types = onnx.helper, onnx.TensorProto
    zero = expand[1] if format.is_affine else torch.zeros_like(expand[0], dtype=torch.int8)
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], axis=axis)],
        "g",
        [helper.make_tensor_value_info("x", types.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", getattr(types, kind), x.shape)],
        [
            helper.make_tensor("s", types.FLOAT, expand[0].shape, expand[0].reshape(-1).tolist()),
            helper.make_tensor("z", getattr(types, kind), zero.shape, zero.reshape(-1).tolist()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    theirs = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x.numpy()})[0].astype(np.int64)
    if format.element.minimum == -127:
        theirs = np.maximum(theirs, -127)
    np.testing.assert_array_equal(format.encode(x, given).codes.numpy().astype(np.int64), theirs)


@pytest.mark.parametrize(
    "text", ["uint8", "int8", "int4", "int8+zp", "int8@channel0", "uint8@channel1", "int4@channel0"]
)
def test_equals_fake_quantize(text: str) -> None:
    """torch multiplies by the reciprocal, so power-of-two scales are compared, where the two are the same."""
    format, x = get(text), numbers(32, 48, seed=1)
    format = format if format.is_affine else get(f"{text}*(e8m0~up)")
    given = format.parameters(x)
    if format.is_affine:
        given = (torch.exp2(given[0].log2().round()), given[1])
    zero = given[1].to(torch.int32) if format.is_affine else torch.zeros_like(given[0], dtype=torch.int32)
    limits = int(format.element.minimum), int(format.element.maximum)
    if given[0].numel() == 1:
        theirs = torch.fake_quantize_per_tensor_affine(x, given[0], zero, *limits)
    else:
        axis = format.block.sizes[0][0] if format.block else 0
        theirs = torch.fake_quantize_per_channel_affine(x, given[0].flatten(), zero.flatten(), axis, *limits)
    assert torch.equal(format.cast(x, given), theirs)


def test_nvfp4_by_its_definition() -> None:
    x = numbers(8, 64, seed=2)
    y = get("nvfp4").cast(x)
    largest = x.abs().max()
    tensor = largest / 6 / 448
    for row, ours in zip(x, y, strict=True):
        for block, part in zip(row.split(16), ours.split(16), strict=True):
            level = (block.abs().max() / 6 / tensor).clamp(2.0**-9, 448).to(torch.float8_e4m3fn).float()
            scaled = block / (level * tensor)
            assert torch.equal(get("e2m1").cast(scaled) * (level * tensor), part)


def reference_group(x: Tensor, size: int, bits: int) -> Tensor:
    """Symmetric groups along the last axis, spelled out."""
    out = torch.empty_like(x)
    for row in range(x.shape[0]):
        for start in range(0, x.shape[1], size):
            part = x[row, start : start + size]
            top = 2 ** (bits - 1) - 1
            scale = part.abs().max() / top if part.abs().max() > 0 else torch.ones(())
            out[row, start : start + size] = (part / scale).round().clamp(-top - 1, top) * scale
    return out


@pytest.mark.parametrize("size", [1, 7, 32, 70, 200])
def test_groups_ragged_or_not(size: int) -> None:
    x = numbers(6, 70)
    format = get(f"int4@g{size}")
    assert torch.equal(format.cast(x), reference_group(x, size, 4))
    assert format.parameters(x)[0].shape == format.scale_shape(x.shape) == (6, -(-70 // size))
    assert torch.equal(get(f"int4@g{size}axis0").cast(x.t()), reference_group(x, size, 4).t())


def test_dynamic_equals_static_on_the_same_tensor() -> None:
    x = numbers(2, 5, 64)
    for text in ("int8@token", "int8@g32", "uint8@tensor", "int4@tile4x8", "int8@[-1:16,-2:all|one]"):
        static = get(text)
        assert torch.equal(static.dynamic().cast(x, ()), static.cast(x, static.parameters(x)))
        assert static.dynamic().parameters(x) == ()


def test_shapes_of_scales() -> None:
    shape = (4, 6, 10)
    assert get("int8").scale_shape(shape) == ()
    assert get("int8@channel1").scale_shape(shape) == (1, 6, 1)
    assert get("int8@token").scale_shape(shape) == (4, 6, 1)
    assert get("int8@g4").scale_shape(shape) == (4, 6, 3)
    assert get("int8@tile2x5").scale_shape(shape) == (4, 3, 2)
    assert get("int8@[0:2,-1:5|whole]").scale_shape(shape) == (2, 1, 2)


def test_ranges_in_place_of_a_tensor() -> None:
    scale, zero = get("uint8").parameters(low=torch.tensor(-1.0), high=torch.tensor(4.1))
    assert scale == torch.tensor(5.1) / 255
    assert (zero, zero.dtype) == (torch.tensor(50, dtype=torch.uint8), torch.uint8)
    scale, zero = get("uint8").parameters(low=torch.tensor(1.0), high=torch.tensor(5.1))
    assert (scale, zero) == (torch.tensor(5.1) / 255, 0)  # zero always has a code
    assert get("int8").parameters(low=torch.tensor(-2.0), high=torch.tensor(1.0))[0] == torch.tensor(2.0) / 127
    assert get("int8").parameters(low=torch.tensor(0.0), high=torch.tensor(0.0))[0] == 1.0
