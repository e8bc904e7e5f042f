from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from planish.compress import Quantize
from planish.formats import Format
from planish.frontends import capture
from tests.support import require
from tests.targets.contract import graph_of

onnx = require("onnx")
from onnx import numpy_helper  # noqa: E402

from planish.targets.cpu.lower import lower, onnx_model  # noqa: E402


def constants(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("text", ["int8", "int7", "int4@g8", "uint8", "int8@tensor"])
def test_weight_codes_are_those_of_the_format(text):
    graph = Quantize(text, where="linear")(graph_of("perceptron"))
    held = constants(onnx_model(graph))
    for node in graph.nodes:
        if node.op != "linear":
            continue
        cast = node.weight
        weight, form = cast.args[0], cast.format
        codes = form.encode(weight.tensor.detach(), [parameter.tensor for parameter in cast.args[1]])
        np.testing.assert_array_equal(held[str(weight.target)].astype(np.int16).T, codes.codes.numpy())


def test_the_file_is_valid_and_agrees_with_the_reference_evaluator():
    from onnx.reference import ReferenceEvaluator

    graph = graph_of("perceptron")
    small = Quantize("int8", "uint8")(graph, [(graph.example[0], {})])
    model = onnx_model(small)
    onnx.checker.check_model(model, full_check=True)
    x = torch.randn(3, 24)
    (y,) = ReferenceEvaluator(model).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(y, small(x).numpy(), atol=1e-5)


def test_activation_codes_are_within_one():
    graph = graph_of("perceptron")
    small = Quantize(None, "uint8")(graph, [(graph.example[0], {})])
    cast = next(node for node in small.nodes if node.op == "cast")
    scale, zero = (parameter.tensor for parameter in cast.args[1])
    quantize = next(node for node in onnx_model(small).graph.node if node.op_type == "QuantizeLinear")
    held = constants(onnx_model(small))
    x = graph.example[0][0]
    wanted = cast.format.encode(x, [scale, zero]).codes.numpy().astype(int)
    codes = np.clip(np.rint(x.numpy() / held[quantize.input[1]]) + held[quantize.input[2]], 0, 255)
    assert np.abs(codes - wanted).max() <= 1


def test_names_and_dynamic_sizes_are_the_users():
    model = onnx_model(graph_of("block"))
    (port,) = model.graph.input
    assert port.name == "tokens"
    assert [d.dim_param for d in port.type.tensor_type.shape.dim] == ["batch", "length"]


def test_fixed_sizes_leave_no_arithmetic_on_shapes():
    model = onnx_model(graph_of("block"), {"batch": 2, "length": 7})
    assert not [node for node in model.graph.node if node.op_type == "Shape"]


def test_an_embedding_is_stored_as_codes():
    graph = Quantize("int8", where="embedding")(graph_of("block"))
    held = constants(onnx_model(graph))
    assert held["table.weight"].dtype == np.int8
    assert not [name for name, array in held.items() if array.shape == (50, 32) and array.dtype == np.float32]


class Odd(nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x)


def test_what_has_no_onnx_form_is_listed_with_its_path():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.odd = Odd()

        def forward(self, x):
            return self.odd(x)

    (first, *_) = lower(capture(Outer(), (torch.randn(4, 4),), training=False)).unsupported
    assert first.path == "odd"
    assert first.reason


def test_formats_without_a_kernel_are_listed():
    graph = graph_of("perceptron")
    edit = graph.edit()
    layer = edit.node("linear")
    edit.cast(layer.input, layer, Format.parse("e4m3*float32").dynamic(), ())
    (refused,) = lower(edit.done()).unsupported
    assert "no CPU engine rounds activations" in refused.reason
