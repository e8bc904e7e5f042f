"""Prepared graphs: in float64 they are their integer programs, bit for bit, and they go on training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import planish
from planish.compress import Quantize
from planish.errors import DataError, GraphError, OptionError
from planish.graph import Graph
from planish.models import letters, zoo
from planish.models.task import Task
from planish.targets.fpga.lower import lower, unsupported
from planish.targets.fpga.prepare import Prepare
from planish.targets.fpga.program import Aggregate, Microscale
from tests.support import require
from tests.targets.fpga.models import MODELS, calibration, prepared, quantized
from tests.targets.fpga.programs import assert_equal

SLOW = {"vit", "block", "attention", "words"}


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[pytest.mark.long] * (each in SLOW - {"block"})) for each in MODELS]
)
def test_the_graph_in_float64_is_its_program(name: str) -> None:
    graph = prepared(name)
    program = lower(graph)
    assert_equal(graph, program, (MODELS[name].inputs(50, seed=9),))
    x = MODELS[name].inputs(50, seed=9)
    exact, found = quantized(name)(x), graph(x)
    assert float((exact - found).square().mean()) < 0.02 * float(exact.square().mean())


@pytest.mark.long
@pytest.mark.parametrize("name", ["flat", "graph"])
def test_ten_thousand_random_vectors(name: str) -> None:
    graph = prepared(name)
    assert_equal(graph, lower(graph), (MODELS[name].inputs(10_000, seed=3) * 2,))


def _accuracy(task: Task, graph: Graph | None = None) -> float:
    return task.judge(graph)[0].value


@pytest.mark.parametrize(("build", "bits"), [(zoo.mlp, 6), (letters.mlp, 8)])
def test_accuracy_is_kept(build: object, bits: int) -> None:
    task: Task = build()  # type: ignore[operator]  # one of the two above
    graph = planish.capture(task.model, task.example_inputs, dynamic=task.dynamic)
    form = f"int{bits}"
    small = Prepare(bits=bits)(Quantize(form, form, ranges="mse")(graph, task.calibration), task.calibration)
    assert _accuracy(task, small) > _accuracy(task) - 0.02
    assert not unsupported(small)


@pytest.mark.parametrize("rounding", ["even", "halfup", "down"])
@pytest.mark.parametrize(
    ("weights", "bits"), [("binary", 4), ("ternary", 8), ("int3", 3), ("int16", 12), ("mxint8", 8)]
)
def test_formats(weights: str, bits: int, rounding: str) -> None:
    name = "decoder" if weights == "mxint8" else "flat"
    graph = quantized(name, f"{weights}@g4" if weights == "mxint8" else weights, None)
    small = Prepare(bits=bits, rounding=rounding)(graph, calibration(name))  # type: ignore[arg-type]
    assert_equal(small, lower(small), (MODELS[name].inputs(40, seed=5),))


@pytest.mark.parametrize(
    ("name", "activations"),
    [
        ("flat", "mxint8~dynamic"),
        ("flat", "int4@g4axis1*e8m0~floor~dynamic"),
        ("decoder", "bfp8~dynamic"),
        ("decoder", "int6@token*e8m0~floor~down~dynamic"),
        pytest.param("attention", "mxint8@g8~dynamic", marks=pytest.mark.long),
    ],
)
def test_activations_that_share_exponents(name: str, activations: str) -> None:
    graph = Prepare()(quantized(name, "mxint8@g4" if name == "decoder" else "int8", activations), calibration(name))
    program = lower(graph)
    assert any(isinstance(each, Microscale) for each in program.operations)
    assert_equal(graph, program, (MODELS[name].inputs(200, seed=6) * 2,))
    x = MODELS[name].inputs(50, seed=9)
    exact, found = quantized(name, "int8", activations)(x), graph(x)
    assert float((exact - found).square().mean()) < 0.02 * float(exact.square().mean())


def test_it_goes_on_training_saving_and_being_judged(tmp_path: object) -> None:
    graph = prepared("cnn")
    net = graph.module()
    before = {name: tensor.clone() for name, tensor in net.named_parameters()}
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    net(MODELS["cnn"].inputs(4)).square().mean().backward()
    optimizer.step()
    moved = [name for name, tensor in net.named_parameters() if not torch.equal(tensor, before[name])]
    assert any(name.endswith("__integer") for name in moved)
    path = f"{tmp_path}/cnn.planish"
    graph.save(path)
    again = Graph.load(path)
    x = MODELS["cnn"].inputs(20, seed=4)
    assert torch.equal(again(x), graph(x))
    assert_equal(again, lower(again), (x,))


def test_one_bit_of_what_is_never_negative_is_zero_or_one() -> None:
    graph = Prepare(bits=1)(quantized("flat", "ternary", "uint1"), calibration("flat"))
    cast = next(node for node in graph.nodes if node.op == "cast" and "relu" in node.inputs[0].name)
    assert cast.format is not None
    assert cast.format.element.minimum == 0 < cast.format.element.maximum
    assert_equal(graph, lower(graph), (MODELS["flat"].inputs(40, seed=5),))


class Unquantized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def test_a_layer_in_floats_is_refused_by_its_path() -> None:
    graph = planish.capture(Unquantized(), (torch.randn(2, 4),), dynamic={"x": {0: "batch"}})
    data = [((torch.randn(8, 4),), {})]
    with pytest.raises(GraphError, match=r"(?s)not quantized.*inner.1.*where: inner.0"):
        Prepare()(graph, data)
    half = Quantize("int8", "int8", where="path('inner.0')")(graph, data)
    assert [each.path for each in Prepare().unsupported(half)] == ["inner.1"]


def test_formats_without_integer_meaning_are_refused() -> None:
    graph = quantized("flat", "nf4", None)
    assert {each.path for each in Prepare().unsupported(graph)} == {"conv", "head"}
    graph = quantized("flat", "int4@g4", None)
    assert "each block" in Prepare().unsupported(graph)[0].reason
    for dynamic in ("int8~dynamic", "int8@g4*e8m0~ceil~dynamic", "mxint8*e4m0~dynamic"):
        graph = quantized("flat", "int8", dynamic)
        assert "floor" in Prepare().unsupported(graph)[0].reason
    graph = quantized("flat", "int8", "e5m2")
    assert "no integer meaning" in Prepare().unsupported(graph)[0].reason


def test_recurrent_networks_are_refused_by_their_path() -> None:
    task = zoo.lstm()
    graph = planish.capture(task.model, task.example_inputs, dynamic=task.dynamic)
    assert any(each.op == "lstm" for each in Prepare().unsupported(graph))


def test_options_and_data_are_checked() -> None:
    with pytest.raises(OptionError, match="bits"):
        Prepare(bits=17)
    with pytest.raises(OptionError, match="rounding"):
        Prepare(rounding="away")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="calibration"):
        Prepare()(quantized("flat"))


def test_the_plan_names_every_value() -> None:
    steps = Prepare().plan(quantized("flat"))
    assert {step.path for step in steps} == {"conv", "head"}
    assert steps[0].action == "in fixed point of 8 bits"


class Neighbors(nn.Module):
    """A layer of PyTorch Geometric over a fixed graph."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("edges", torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, self.edges)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_layers_of_pytorch_geometric_are_sparse_matrices() -> None:
    geometric = require("torch_geometric.nn")
    torch.manual_seed(0)
    graph = planish.capture(Neighbors(geometric.GCNConv(7, 5)).eval(), (torch.randn(5, 7),))
    data = [((torch.randn(5, 7),), {}) for _ in range(16)]
    small = Prepare()(Quantize("int8", "int8")(graph, data), data)
    program = lower(small)
    assert sum(isinstance(each, Aggregate) for each in program.operations) == 1
    x = torch.randn(5, 7)
    assert_equal(small, program, (x,))
    torch.testing.assert_close(small(x), graph(x), atol=0.1, rtol=0)
