from __future__ import annotations

import pytest

from planish.targets.cpu.engine import Options
from planish.targets.cpu.signature import Signature
from tests.support import require
from tests.targets.contract import QUANTIZED, EngineContract, graph_of

require("onnx")


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
    takes = ("weights", "groups", "static")


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

    has_exact = False
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


def test_integer_kernels_run():
    require("onnxruntime")
    from planish.targets.cpu.onnxruntime import OnnxRuntime

    graph = graph_of("perceptron")
    small = QUANTIZED["static"](graph, [(graph.example[0], {})])
    ran = OnnxRuntime().compile(small, Options()).executed_precisions(Signature.of(small).flatten(graph.example[0], {}))
    assert ran.get("int8", 0) > 0
