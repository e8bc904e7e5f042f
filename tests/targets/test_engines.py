from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from planish.frontends import capture
from planish.targets.cpu.engine import Options
from planish.targets.cpu.signature import Signature
from tests.support import require
from tests.targets.contract import QUANTIZED, EngineContract, graph_of

require("onnx")
import onnx  # noqa: E402  # an extra
from onnx import numpy_helper  # noqa: E402


class TestOpenVino(EngineContract):
    name = "openvino"
    takes = tuple(QUANTIZED)

    @pytest.fixture(autouse=True)
    def _installed(self):
        require("openvino")


class TestOnnxRuntime(EngineContract):
    name = "onnxruntime"
    takes = tuple(QUANTIZED)

    @pytest.fixture(autouse=True)
    def _installed(self):
        require("onnxruntime")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
class TestInductor(EngineContract):
    name = "inductor"
    takes = ("weights", "groups", "static", "scores")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_inductor_multiplies_in_integers():
    from planish.targets.cpu.inductor import Inductor

    graph = graph_of("perceptron")
    small = QUANTIZED["static"](graph, [(graph.example[0], {})])
    ran = Inductor().compile(small, Options()).executed_precisions(Signature.of(small).flatten(graph.example[0], {}))
    assert ran.get("int8", 0) > 0


class Wrong:
    """An engine that is a little off."""

    has_exact = has_bfloat16 = False
    files = ()

    def unsupported(self, graph):
        return []

    def compile(self, graph, options):
        self.graph = graph
        return self

    def __call__(self, inputs):
        return [self.graph(*inputs) * 1.001]


def test_the_contract_rejects_a_wrong_engine():
    class Judge(EngineContract):
        def engine(self):
            return Wrong()

    with pytest.raises(AssertionError):
        Judge().test_computes_what_the_graph_says("perceptron")


def test_the_contract_rejects_an_engine_that_writes_into_results_that_it_gave():
    class Reusing(Wrong):
        def __call__(self, inputs):
            result = self.graph(*inputs)
            self.held = getattr(self, "held", result)
            return [self.held.copy_(result)]

    class Judge(EngineContract):
        def engine(self):
            return Reusing()

    with pytest.raises(AssertionError):
        Judge().test_calls_share_nothing(fixed=True)


def test_integer_kernels_run():
    require("onnxruntime")
    from planish.targets.cpu.onnxruntime import OnnxRuntime

    graph = graph_of("perceptron")
    small = QUANTIZED["static"](graph, [(graph.example[0], {})])
    ran = OnnxRuntime().compile(small, Options()).executed_precisions(Signature.of(small).flatten(graph.example[0], {}))
    assert ran.get("int8", 0) > 0


def test_queries_meet_keys_in_integers():
    require("openvino")
    from planish.targets.cpu.openvino import OpenVino

    graph = graph_of("block")
    small = QUANTIZED["scores"](graph, [(graph.example[0], {})])
    model = onnx.load_from_string(OpenVino().compile(small, Options()).files["model.onnx"])
    made = {output: node for node in model.graph.node for output in node.output}
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (scores,) = (node for node in model.graph.node if node.op_type == "Einsum")
    for operand in scores.input:  # nothing in between, and signed: kernels for this product want both
        rounded = made[operand]
        assert rounded.op_type == "DequantizeLinear"
        assert values[rounded.input[2]].dtype == np.int8


@pytest.mark.parametrize(("recipe", "stored"), [("weights", "int8"), ("groups", "int4")])
def test_openvino_tells_stored_from_executed(recipe, stored):
    require("openvino")
    from planish.targets.cpu.openvino import OpenVino

    graph = graph_of("perceptron")
    small = QUANTIZED[recipe](graph)
    ran = OpenVino().compile(small, Options()).executed_precisions(Signature.of(small).flatten(graph.example[0], {}))
    assert f"f32 from {stored} weights" in ran
    assert "int8" not in ran


def test_additions_behind_integer_convolutions_are_part_of_them():
    require("openvino")
    from planish.targets.cpu.openvino import OpenVino

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.one, self.two, self.last = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))

        def forward(self, x):
            x = torch.relu(self.first(x))
            return self.last(torch.relu(x + self.two(torch.relu(self.one(x)))))

    graph = capture(Residual().eval(), (torch.randn(1, 8, 16, 16),), training=False)
    small = QUANTIZED["static"](graph, [(graph.example[0], {})])
    compiled = OpenVino().compile(small, Options())
    kinds = [op.get_rt_info()["layerType"].astype(str) for op in compiled._compile().get_runtime_model().get_ops()]
    assert kinds.count("Convolution") == 4
    assert not {"Eltwise", "Subgraph"} & set(kinds)
