"""Quantize: formats by role, shared casts, purity, saving, training."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from planish import Recipe
from planish.compress import Quantize
from planish.errors import DataError, OptionError, UnknownName
from planish.formats import get
from planish.frontends import capture
from planish.graph import Graph, ops, path
from tests.compress.models import attention, convnet, error, items, mlp


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    return {"mlp": mlp(), "convnet": convnet(), "attention": attention()}


def casts(graph: Graph) -> list:
    return [node for node in graph.nodes if node.op == "cast"]


def test_static_w8a8_on_an_mlp(graphs):
    graph = graphs["mlp"]
    before = {name: tensor.clone() for name, tensor in graph.tensors.items()}
    text = str(graph)
    small = Quantize(weights="int8", activations="uint8")(graph, items(graph))
    assert {str(node.format) for node in casts(small)} == {"int8@channel0", "uint8@tensor"}
    assert {"0.weight__scale", "2.weight__scale", "0.input__scale", "0.input__zero_point"} <= small.tensors.keys()
    assert 0 < error(graph, small) < 0.02
    assert str(graph) == text
    assert all(torch.equal(tensor, graph.tensors[name]) for name, tensor in before.items())


def test_weight_casts_equal_torch_fake_quantize(graphs):
    graph = graphs["mlp"]
    small = Quantize(weights="int8")(graph)
    weight = graph.tensors["0.weight"].detach()
    scale = small.tensors["0.weight__scale"].flatten()
    assert torch.allclose(scale, weight.abs().amax(1) / 127, rtol=1e-6)
    expected = torch.fake_quantize_per_channel_affine(weight, scale, torch.zeros(32, dtype=torch.int32), 0, -128, 127)
    assert torch.allclose(small.base_state_dict()["0.weight"], expected, atol=1e-6)


def test_activation_casts_equal_torch_fake_quantize(graphs):
    graph = graphs["mlp"]
    small = Quantize(weights=None, activations="uint8", where="path('2')")(graph, items(graph))
    scale, zero = small.tensors["2.input__scale"], small.tensors["2.input__zero_point"]
    (x,), _ = items(graph, 1, seed=5)[0]
    hidden = torch.relu(torch.nn.functional.linear(x, graph.tensors["0.weight"], graph.tensors["0.bias"])).detach()
    rounded = torch.fake_quantize_per_tensor_affine(hidden, float(scale), int(zero), 0, 255)
    expected = torch.nn.functional.linear(rounded, graph.tensors["2.weight"], graph.tensors["2.bias"])
    assert torch.allclose(small(x), expected, atol=1e-5)


def test_layers_that_read_one_tensor_share_its_cast(graphs):
    small = Quantize("int8", "uint8", where=ops.linear)(graphs["attention"], items(graphs["attention"]))
    sources = {small.node(name).input for name in ("linear", "linear_1", "linear_2")}
    assert len(sources) == 1
    assert sources.pop().op == "cast"


def test_tied_weights_share_their_cast():
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(10, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(self.table(x), self.table.weight)

    from planish.frontends import capture

    graph = capture(Tied(), (torch.tensor([[1, 2, 3]] * 2),))
    small = Quantize("int8")(graph)
    assert len(casts(small)) == 1
    assert "table.weight__scale" in small.tensors


@pytest.mark.parametrize("name", ["mlp", "convnet", "attention"])
@pytest.mark.parametrize(
    ("weights", "activations"),
    [
        ("int8", "uint8"),
        ("int8", "int8"),
        ("int8", "int8~dynamic"),
        ("int4@g8", None),
        ("mxfp4", get("mxfp8").dynamic()),
        (None, "uint8"),
        ("int8@tensor", "uint8@tensor~dynamic"),
    ],
)
def test_applies_saves_loads_and_trains(graphs, tmp_path, name, weights, activations):
    graph = graphs[name]
    small = Quantize(weights, activations, where="linear | conv")(graph, items(graph))
    (x,), _ = items(graph, 1)[0]
    assert torch.isfinite(small(x)).all()
    small.save(tmp_path / "small.planish")
    assert torch.equal(Graph.load(tmp_path / "small.planish")(x), small(x))
    net = small.module().train()
    net(x).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.long
@settings(max_examples=15)
@given(st.integers(3, 7), st.booleans())
def test_more_bits_never_cost_more(bits, static):
    graph = mlp()
    data = items(graph)
    fewer, more = (
        error(graph, Quantize(f"int{n}", f"uint{n}" if static else None)(graph, data)) for n in (bits, bits + 1)
    )
    assert more < fewer


def test_quantizing_twice_is_refused_and_leaves_the_first(graphs):
    small = Quantize("int4@g8", where="path('0')")(graphs["mlp"])
    both = Quantize("int8")(small)
    assert [str(node.format) for node in casts(both)] == ["int4@g8", "int8@channel0"]
    with pytest.raises(OptionError, match="quantized already"):
        Quantize("int8")(both)


def test_attention_operands(graphs):
    graph = graphs["attention"]
    small = Quantize("int8", where="linear", attention="int8")(graph, items(graph))
    mixer = next(node for node in small.nodes if node.op == "scaled_dot_product_attention")
    assert [operand.op for operand in mixer.args[:3]] == ["cast"] * 3
    with pytest.raises(OptionError, match="no attention"):
        Quantize("int8", attention="int8").plan(graphs["mlp"])


def test_queries_and_keys_without_values(graphs):
    graph = graphs["attention"]
    passed = Quantize(None, attention=("int8", None))
    assert [step.action for step in passed.plan(graph)] == ["operands to int8@tensor"]
    mixer = next(n for n in passed(graph, items(graph)).nodes if n.op == "scaled_dot_product_attention")
    assert [operand.op == "cast" for operand in mixer.args[:3]] == [True, True, False]
    with pytest.raises(OptionError, match="one format or two"):
        Quantize(None, attention=("int8", "int8", "int8"))


def test_a_mask_is_no_operand():
    class Mixed(nn.Module):
        def forward(self, x, mask):
            return nn.functional.scaled_dot_product_attention(x, x, x, mask)

    given = (torch.randn(1, 2, 4, 8), torch.randn(1, 1, 4, 4))
    small = Quantize(None, attention="int8")(capture(Mixed(), given), [(given, {})])
    assert [node.inputs[0].name for node in small.nodes if node.op == "cast"] == ["x"]


def test_attention_operands_are_rounded_as_torch_rounds_them(graphs):
    graph = graphs["attention"]
    small = Quantize(None, attention="uint8")(graph, items(graph))
    mixer = next(node for node in small.nodes if node.op == "scaled_dot_product_attention")
    for operand in mixer.args[:3]:
        scale, zero = (small.tensors[str(place.target)] for place in operand.args[1])
        x = torch.randn(2, 4, 6, 8)
        expected = torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero), 0, 255)
        assert torch.allclose(operand.format.cast(x, (scale, zero)), expected, atol=1e-5)
    losses = [error(graph, Quantize(None, attention=f"uint{bits}")(graph, items(graph))) for bits in (3, 4, 6, 8)]
    assert losses == sorted(losses, reverse=True)


def test_ranges(graphs):
    graph = graphs["attention"]
    data = items(graph, 8)
    scales = {
        how: Quantize("int8", "uint8", where="path('down')", ranges=how, percentile=95)(graph, data).tensors[
            "down.input__scale"
        ]
        for how in ("minmax", "percentile", "mse")
    }
    assert scales["percentile"] < scales["minmax"]
    assert scales["mse"] <= scales["minmax"]


@pytest.mark.parametrize("name", ["mlp", "convnet", "attention"])
def test_bias_correction_and_gptq_help(graphs, name):
    graph = graphs[name]
    data = items(graph, 64)
    plain, corrected, rounded = (
        error(graph, Quantize("int4", "uint8", where="linear | conv", **options)(graph, data))
        for options in ({}, {"correct_bias": True}, {"correct_bias": True, "by": "gptq"})
    )
    assert corrected < plain * 1.02
    assert rounded < plain


def test_bias_correction_makes_mean_outputs_equal(graphs):
    graph = graphs["mlp"]
    data = items(graph, 16)
    small = Quantize("int3", correct_bias=True)(graph, data)
    means = [torch.cat([g(*args) for args, _ in data]).mean(0) for g in (graph, small)]
    assert torch.allclose(*means, atol=1e-4)


@pytest.mark.long
def test_max_drop_keeps_the_fewest_layers(graphs):
    graph = graphs["attention"]
    data = items(graph, 8)
    options = {"weights": "int3", "where": "linear", "metric": "sqnr"}
    everything = Quantize(**options)(graph, data)
    assert len(casts(everything)) == 6
    from planish.metrics import sqnr, with_reference

    top = sqnr(graph, with_reference(graph, data)).value
    full = sqnr(everything, with_reference(graph, data)).value
    most = top - full - 3.0
    some = Quantize(**options, max_drop=most)(graph, data)
    assert 0 < len(casts(some)) < 6
    assert top - sqnr(some, with_reference(graph, data)).value <= most
    assert str(Quantize(**options, max_drop=200)(graph, data)) == str(everything)
    with pytest.raises(OptionError, match="falls by more"):
        Quantize(**options, max_drop=0)(graph, data)


def test_plan_says_format_and_bytes(graphs):
    steps = Quantize("int8", "uint8").plan(graphs["mlp"])
    assert [(step.path, step.action) for step in steps] == [
        ("0", "weight to int8@channel0"),
        ("2", "weight to int8@channel0"),
        ("0", "input to uint8@tensor"),
        ("2", "input to uint8@tensor"),
    ]
    assert (steps[0].bytes_before, steps[0].bytes_after) == (16 * 32 * 4, 16 * 32 + 32 * 4)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"weights": "int9x"}, OptionError, "int9x"),
        ({"weights": "itn8"}, UnknownName, "did you mean 'int8'"),
        ({"weights": None}, OptionError, "nothing to quantize"),
        ({"ranges": "minmix"}, OptionError, "minmax"),
        ({"by": "magic"}, OptionError, "gptq"),
        ({"where": "linaer"}, UnknownName, "linear"),
        ({"max_drop": -1}, OptionError, "-1"),
        ({"percentile": 0}, OptionError, "percentile"),
    ],
)
def test_bad_options(options, kind, message):
    with pytest.raises(kind, match=message):
        Quantize(**options)


def test_bad_input(graphs):
    graph = graphs["mlp"]
    with pytest.raises(OptionError, match="matches nothing"):
        Quantize("int8", where=path("nowhere.*")).plan(graph)
    with pytest.raises(OptionError, match="no layer with weights"):
        Quantize("int8", where="relu").plan(graph)
    with pytest.raises(DataError, match="no calibration data"):
        Quantize("int8", "uint8")(graph)
    with pytest.raises(DataError, match="no calibration data"):
        Quantize("int8", "uint8")(graph, [])
    with pytest.raises(DataError, match="NaN"):
        Quantize("int8", "uint8")(graph, [((torch.full((4, 16), torch.nan),), {})])
    with pytest.raises(DataError, match="structure"):
        Quantize("int8", "uint8")(graph, [((), {})])
    with pytest.raises(DataError, match="args, kwargs"):
        Quantize("int8", "uint8")(graph, [torch.ones(4, 16)])
    with pytest.raises(OptionError, match="dynamic"):
        Quantize("int8", "uint8@token")(graph, [((torch.ones(n, 16),), {}) for n in (3, 4)])
    for form in ("mxint8", "mxfp4", "nvfp4", "int8@token"):  # one batch would calibrate, and no other run
        with pytest.raises(OptionError, match=r"(?s)next batch.*0.input.*dynamic"):
            Recipe(Quantize("int8", form)).plan(graph)
        with pytest.raises(OptionError, match="next batch"):
            Quantize("int8", form).candidates(graph)
    with pytest.raises(OptionError, match="store their scales"):
        Quantize("int8~dynamic")(graph)


class Shortcuts(nn.Module):
    """A block whose shortcut is projected, one whose shortcut is not, then an average."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.projection, self.third = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.pool, self.last = pool, nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (self.second(self.first(x).relu()) + self.projection(x)).relu()
        return self.last(self.pool((self.third(y) + y).relu()).flatten(1))


def test_projected_shortcuts_and_averages_stay_in_integers():
    graph = capture(Shortcuts(nn.AdaptiveAvgPool2d(1)).eval(), (torch.randn(2, 3, 8, 8),))
    recipe = Quantize("int8", "uint8")
    small = recipe(graph, items(graph))
    readers = {(user.op, user.path) for cast in casts(small) for user in cast.users}
    assert {("adaptive_avg_pool2d", "pool"), ("linear", "last")} <= readers
    sums = [node for node in small.nodes if node.op == "add"]
    assert [[one.op for one in node.inputs] for node in sums] == [["conv2d", "cast"], ["conv2d", "cast"]]
    assert error(graph, small) < 0.03
    planned = {step.node for step in recipe.plan(graph) if "input to" in step.action}
    assert {node.name for node in (*sums[:1], small.node("adaptive_avg_pool2d"))} <= planned


@pytest.mark.parametrize("recipe", [Quantize("int8"), Quantize("int8", "int8~dynamic"), Quantize("mxfp4", "mxfp4")])
def test_other_formats_are_where_weights_are(recipe):
    graph = capture(Shortcuts(nn.AdaptiveAvgPool2d(1)).eval(), (torch.randn(2, 3, 8, 8),))
    small = recipe(graph, items(graph))
    assert small.node("adaptive_avg_pool2d").inputs[0].op == "relu"


def test_an_average_of_what_no_convolution_gave_is_left():
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.adaptive_avg_pool2d(x, 1).sum() + self.conv(x)

    graph = capture(Plain().eval(), (torch.randn(2, 3, 8, 8),))
    small = Quantize("int8", "uint8")(graph, items(graph))
    assert small.node("adaptive_avg_pool2d").inputs[0].op != "cast"


def test_what_is_read_twice_is_not_rounded_for_one_reader():
    class Twice(Shortcuts):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shortcut = self.projection(x)
            y = self.second(self.first(x).relu()) + shortcut
            return self.last(self.pool(y).flatten(1)) + shortcut.mean() + y.mean()

    graph = capture(Twice(nn.AdaptiveAvgPool2d(1)).eval(), (torch.randn(2, 3, 8, 8),))
    small = Quantize("int8", "uint8")(graph, items(graph))
    (total,) = [node for node in small.nodes if node.op == "add" and node.shape == (2, 8, 8, 8)]
    assert [one.op for one in total.inputs] == ["conv2d", "conv2d"]
    assert small.node("adaptive_avg_pool2d").inputs[0].op == "add"
