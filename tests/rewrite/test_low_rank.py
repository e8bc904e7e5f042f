"""SplitLowRank: equal outputs, and codes that stay codes in the artifact."""

from __future__ import annotations

import pytest
import torch

import planish
from planish.compress import Quantize
from planish.compress.adapt import Adapt
from planish.compress.correct import Correct
from planish.recipe import Recipe
from planish.rewrite import SplitLowRank
from planish.targets.cpu import Cpu
from tests.compress.models import attention, error, items
from tests.compress.test_adapt import moved
from tests.support import require


@pytest.mark.parametrize("weights", ["int8", "int4@g32", "uint4@g16"])
def test_outputs_are_equal_and_layers_read_codes(weights):
    graph = attention()
    small = Recipe(Quantize(weights, where="linear"), Correct(rank=3), Adapt(rank=2))(graph, items(graph))
    small = moved(small)
    split = SplitLowRank()(small)
    assert error(small, split) < 2e-6
    layers = [node for node in split.nodes if node.op == "linear"]
    assert len(layers) == 6 * 5  # each with two thin products of two layers
    assert sum(node.weight.op == "cast" for node in layers) == 6 * 3
    assert {node.path for node in layers} == {node.path for node in small.nodes if node.op == "linear"}
    net = split.module()
    net(*graph.example[0]).sum().backward()
    assert net.get_parameter("up.weight_1__a").grad is not None


def test_left_alone_where_a_dense_matrix_is_cheaper():
    graph = attention()
    floating = Recipe(Quantize("mxfp4", where="linear"), Correct(rank=3))(graph, items(graph))
    thick = Recipe(Quantize("int8", where="linear"), Correct(rank=30))(graph, items(graph))
    for one in (graph, floating, Adapt(rank=2)(graph)):
        assert SplitLowRank().plan(one) == []
        assert SplitLowRank()(one).fx is one.fx
    assert {step.path for step in SplitLowRank().plan(thick)} == set()


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_engines_get_integer_codes(engine):
    require(engine)
    onnx = require("onnx")
    graph = attention()
    small = Recipe(Quantize("int8", where="linear"), Correct(rank=3, factors="int8"))(graph, items(graph))
    artifact = planish.build(small, target=Cpu(engine=engine, seconds=0.1))
    (file,) = [held for name, held in artifact.compiled.files.items() if name.endswith(".onnx")]
    stored = {one.name: one.data_type for one in onnx.load_from_string(file).graph.initializer}
    for name in ("up.weight", "up.weight__a", "up.weight__b"):
        assert stored[name] == onnx.TensorProto.INT8
    exact = small(*graph.example[0])
    assert float((artifact(*graph.example[0]) - exact).norm() / exact.norm()) < 1e-5
    assert torch.isfinite(exact).all()
