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

from planish.targets.cpu.builder import Dialect  # noqa: E402
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


class Choice(nn.Module):
    def __init__(self, odd=False):
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), Odd() if odd else nn.Linear(4, 4)

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: self.one(x).sum(), lambda x: self.other(x).sum(), (x,))


def test_branches_keep_their_steps_and_their_weights():
    graph = Quantize("int8")(capture(Choice().eval(), (torch.randn(2, 4),), training=False))
    model = onnx_model(graph)
    onnx.checker.check_model(model, full_check=True)
    (choice,) = (node for node in model.graph.node if node.op_type == "If")
    held = {}
    for attribute in choice.attribute:
        assert "MatMul" in [node.op_type for node in attribute.g.node]
        held |= {tensor.name: numpy_helper.to_array(tensor) for tensor in attribute.g.initializer}
    assert "MatMul" not in [node.op_type for node in model.graph.node]
    assert held["one.weight"].dtype == held["other.weight"].dtype == np.int8


def test_what_a_branch_cannot_do_is_listed():
    (refused,) = lower(capture(Choice(odd=True).eval(), (torch.randn(4, 4),), training=False)).unsupported
    assert refused.op == "linalg_svdvals"


class Heads(nn.Module):
    """Attention as transformers writes it: split into heads, one reshape that changes nothing, and back."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x):
        split = [layer(x).view(x.shape[0], -1, 4, 4).transpose(1, 2) for layer in (self.query, self.key, self.value)]
        mixed = nn.functional.scaled_dot_product_attention(*split).reshape(x.shape[0], 4, -1, 4)
        return self.out(mixed.transpose(1, 2).reshape(x.shape[0], -1, 16))


@pytest.mark.parametrize("fixed", [None, {"batch": 2, "length": 7}])
def test_fused_attention_takes_the_biases_and_leaves_no_transposes(fixed):
    model = Heads().eval()
    graph = capture(model, (torch.randn(2, 7, 16),), dynamic={"x": {0: "batch", 1: "length"}})
    nodes = onnx_model(graph, fixed, Dialect(fused_attention=True)).graph.node
    (fused,) = (node for node in nodes if node.op_type == "MultiHeadAttention")
    assert fused.input[3]
    assert not [node for node in nodes if node.op_type == "Transpose"]
    assert len([node for node in nodes if node.op_type == "Add"]) == 1  # the output projection's


def test_rounding_goes_in_front_of_a_maximum():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3)).eval()
    graph = capture(model, (torch.randn(1, 3, 12, 12),))
    small = Quantize("int8", "uint8")(graph, [(graph.example[0], {})])
    model = onnx_model(small)
    makers = {name: node for node in model.graph.node for name in node.output}
    (pool,) = (node for node in model.graph.node if node.op_type == "MaxPool")
    assert makers[pool.input[0]].op_type == "DequantizeLinear"


def test_formats_without_a_kernel_are_listed():
    graph = graph_of("perceptron")
    edit = graph.edit()
    layer = edit.node("linear")
    edit.cast(layer.input, layer, Format.parse("e4m3*float32").dynamic(), ())
    (refused,) = lower(edit.done()).unsupported
    assert "no CPU engine rounds activations" in refused.reason


def expressed(kind):
    """A perceptron whose first weight is an expression."""
    graph = graph_of("perceptron")
    edit = graph.edit()
    layer = next(node for node in edit.graph.nodes if node.op == "linear")
    weight = layer.weight
    form = Format.parse("int8").per_channel(0)

    def cast(source):
        before = layer.weight
        scale = edit.add("first.weight__scale", form.parameters(weight.tensor.detach())[0])
        return edit.cast(before, layer, form, [scale])

    def call(op, *args):
        made = edit.call(op, *args, before=layer)
        edit.replace_input(layer, layer.weight, made)
        return made

    mask = edit.add("first.weight__mask", (torch.arange(24) % 2).float().expand(40, 24).contiguous())
    down, up = edit.add("first.weight__a", torch.randn(2, 24) / 9), edit.add("first.weight__b", torch.randn(40, 2) / 9)
    turn = edit.add("first.weight__h", torch.linalg.qr(torch.randn(24, 24))[0])
    if kind == "cast(w * mask)":
        call(torch.ops.aten.mul.Tensor, weight, mask)
        cast(layer.weight)
    elif kind == "cast(w) * mask":
        call(torch.ops.aten.mul.Tensor, cast(weight), mask)
    elif kind == "cast(w) + b @ a":
        held = cast(weight)
        call(torch.ops.aten.add.Tensor, held, edit.call(torch.ops.aten.matmul.default, up, down, before=layer))
    else:
        call(torch.ops.aten.matmul.default, weight, turn)
    return edit.done()


@pytest.mark.parametrize("kind", ["cast(w * mask)", "cast(w) * mask", "cast(w) + b @ a", "w @ h"])
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_weights_of_any_expression_are_lowered(kind, engine):
    require(engine)
    from planish.targets.cpu import ENGINES
    from planish.targets.cpu.engine import Options

    graph, x = expressed(kind), torch.randn(3, 24)
    assert ENGINES[engine]().unsupported(graph) == []
    (y,) = ENGINES[engine]().compile(graph, Options())([x])
    torch.testing.assert_close(y, graph(x), atol=1e-5, rtol=1e-5)
    stored = {array.dtype for array in constants(onnx_model(graph)).values() if array.shape == (24, 40)}
    assert stored == {np.dtype("int8" if kind in ("cast(w * mask)", "cast(w) + b @ a") else "float32")}


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_weights_of_recurrent_layers_are_stored_as_codes(kind, engine):
    require(engine)
    from planish.targets.cpu import ENGINES
    from planish.targets.cpu.engine import Options

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = getattr(nn, kind)(6, 8, bidirectional=True, batch_first=True)

        def forward(self, x):
            return self.layer(x)[0]

    edit = capture(Layer().eval(), (torch.randn(2, 5, 6),), {"x": {0: "batch"}}, training=False).edit()
    node = next(node for node in edit.graph.nodes if node.op.startswith(kind.lower()))
    form = Format.parse("int8").per_channel(0)
    for weight in node.argument("params"):
        if len(weight.shape) == 2:
            edit.cast(weight, node, form, [edit.add(f"{weight.target}__scale", form.parameters(weight.tensor)[0])])
    graph, x = edit.done(), torch.randn(3, 5, 6)
    (y,) = ENGINES[engine]().compile(graph, Options())([x])
    torch.testing.assert_close(y, graph(x), atol=1e-5, rtol=1e-5)
    held = constants(onnx_model(graph))
    assert {array.dtype for name, array in held.items() if ".weight_" in name and array.ndim == 2} == {np.dtype("int8")}


@pytest.mark.parametrize("text", ["int8@channel2", "int8@tensor"])
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_learned_queries_keep_the_scales_of_their_codes(text, engine):
    require(engine)
    from planish.targets.cpu import ENGINES
    from planish.targets.cpu.engine import Options

    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.query = nn.Parameter(torch.randn(1, 2, 3, 8) * torch.tensor([1.0, 9.0, 3.0])[:, None])

        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(self.query, x, x)

    x = torch.randn(1, 2, 5, 8)
    edit = capture(Learned().eval(), (x,), training=False).edit()
    node = next(node for node in edit.graph.nodes if node.op == "scaled_dot_product_attention")
    form = Format.parse(text)
    query = node.argument("query")
    edit.cast(query, node, form, [edit.add("query__scale", form.parameters(query.tensor)[0])])
    graph = edit.done()
    (y,) = ENGINES[engine]().compile(graph, Options())([x])
    torch.testing.assert_close(y, graph(x), atol=1e-5, rtol=1e-5)


class Edges(nn.Module):
    """A sum over neighbors that leaves out loops, as graph networks write it."""

    def forward(self, x, edges):
        edges = edges[:, edges[0] != edges[1]]
        return torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_masks_choose_edges(engine):
    require(engine)
    from planish.targets.cpu import ENGINES
    from planish.targets.cpu.engine import Options

    edges, x = torch.tensor([[0, 1, 2, 2, 3], [1, 1, 0, 3, 3]]), torch.randn(4, 3)
    graph = capture(Edges().eval(), (x, edges), training=False)
    (y,) = ENGINES[engine]().compile(graph, Options())([x, edges])
    torch.testing.assert_close(y, graph(x, edges))
