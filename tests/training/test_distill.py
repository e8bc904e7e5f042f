"""Recovery: what trains, what stays, and that it pays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from planish import config
from planish.compress import Quantize
from planish.errors import DataError, OptionError
from planish.formats import Format
from planish.frontends import capture
from planish.graph import Graph, parse_selector
from planish.recipe import Recipe
from planish.rewrite import FoldBatchNorm
from planish.training import Checkpoints, Distill, Diverged, History, network, recovery
from planish.training.batches import regroup
from planish.training.learned import scales, with_gradient
from tests.compress.models import attention, convnet, error, items, mlp

SHORT = Distill(minutes=None, epochs=6, learning_rate=2e-4, batch_size=16)


def quantized(graph: Graph, weights: str = "int4", activations: str | None = None) -> Graph:
    return Recipe(Quantize(weights=weights, activations=activations))(graph, items(graph, 8))


def masked(graph: Graph) -> Graph:
    """Half of each linear weight cut, as `w * mask`."""
    edit = graph.edit()
    for node in [node for node in edit.graph.nodes if node.op == "linear"]:
        weight = node.weight
        assert weight is not None
        assert weight.tensor is not None
        mask = (weight.tensor.abs() > weight.tensor.abs().median()).float()
        name = f"{weight.target}__mask"
        product = edit.call(torch.ops.aten.mul.Tensor, weight, edit.add(name, mask), before=node)
        edit.replace_input(node, weight, product)
    return edit.done().replace(origin=graph)


@pytest.mark.parametrize("make", [mlp, attention, convnet])
@pytest.mark.parametrize("compress", [quantized, masked])
def test_it_recovers_and_changes_values_only(make, compress) -> None:
    graph = make()
    small = compress(graph)
    before = {name: tensor.detach().clone() for name, tensor in small.tensors.items()}
    result = SHORT(small, items(graph, 24))
    assert error(graph, result) < error(graph, small)
    assert str(result) == str(small)
    assert result.tensors.keys() == small.tensors.keys()
    assert all(torch.equal(small.tensors[name], tensor) for name, tensor in before.items()), "the graph given changed"
    for name, tensor in small.tensors.items():
        stays = name not in small.parameter_names
        assert torch.equal(result.tensors[name], tensor) == stays, name


def test_what_is_pruned_stays_zero() -> None:
    graph = attention()
    small = masked(graph)
    state = SHORT(small, items(graph, 32)).base_state_dict()
    for name, mask in small.tensors.items():
        if name.endswith("__mask"):
            weight = state[name.removesuffix("__mask")]
            assert bool((weight[mask == 0] == 0).all())
            assert bool((weight[mask == 1] != 0).any())


def test_what_is_frozen_stays() -> None:
    graph = attention()
    small = quantized(graph)
    graph.tensors["up.weight"].requires_grad_(False)
    result = Distill(minutes=None, epochs=1, where="linear - path('down')")(small, items(graph, 8))
    moved = {name for name in small.tensors if not torch.equal(small.tensors[name], result.tensors[name])}
    assert {"query.weight", "out.bias"} <= moved
    assert not moved & {"up.weight", "down.weight", "down.bias", "before.weight"}
    assert not result.tensors["up.weight"].requires_grad


def test_factors_train() -> None:
    graph = mlp()
    edit = graph.edit()
    node = edit.node("linear")
    weight = node.weight
    assert weight is not None
    torch.manual_seed(0)
    b, a = edit.add("0.weight__b", torch.zeros(32, 2), True), edit.add("0.weight__a", torch.randn(2, 16), True)
    product = edit.call(torch.ops.aten.matmul.default, b, a, before=node)
    edit.replace_input(node, weight, edit.call(torch.ops.aten.add.Tensor, weight, product, before=node))
    small = quantized(edit.done()).replace(origin=graph)
    result = SHORT(small, items(graph, 32))
    assert not torch.equal(result.tensors["0.weight__a"], small.tensors["0.weight__a"])
    assert isinstance(result.tensors["0.weight__b"], nn.Parameter)


class Tied(nn.Module):
    """A table that is looked up and multiplied with."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix = nn.Embedding(20, 8), nn.Linear(8, 8)

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.linear(torch.tanh(self.mix(self.table(ids))), self.table.weight)


class Loose(Tied):
    """The table is only looked up."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.mix(self.table(ids))


def test_an_embedding_stays_unless_something_else_reads_it() -> None:
    ids = torch.randint(0, 20, (4, 3), generator=torch.Generator().manual_seed(0))
    for kind, trains in ((Tied, True), (Loose, False)):
        torch.manual_seed(0)
        graph = capture(kind().eval(), (ids,), dynamic={"ids": {0: "batch"}})
        small = Recipe(Quantize(weights="int4"))(graph)
        result = SHORT(small, [((ids,), {})])
        assert torch.equal(result.tensors["table.weight"], small.tensors["table.weight"]) != trains
        assert not torch.equal(result.tensors["mix.weight"], small.tensors["mix.weight"])


@pytest.mark.parametrize(("weights", "gradient"), [("int4", "pact"), ("mxfp4", "lsq"), ("nvfp4", "lsq")])
def test_scales_learn_and_stay_numbers_of_their_format(weights: str, gradient: str) -> None:
    graph = attention()
    small = quantized(graph, weights, "int8")
    options = Distill(minutes=None, epochs=5, learning_rate=0.2, gradient=gradient, batch_size=8)  # type: ignore[arg-type]
    result = options(small, items(graph, 16))
    assert str(result) == str(small)
    assert result.buffers == small.buffers
    for kind in ("weight__scale", "input__scale"):
        learned = [name for name in small.tensors if name.endswith(kind)]
        assert any(not torch.equal(small.tensors[name], result.tensors[name]) for name in learned)
    for cast in (node for node in result.nodes if node.op == "cast"):
        assert cast.format is not None
        for place, (level, element) in zip(cast.argument("parameters"), cast.format.levels, strict=True):
            if level.endswith("scale"):
                stored = place.tensor.float()
                exact = Format(element, scale=None, overflow=element.overflows[0])
                assert torch.equal(exact.cast(stored), stored), f"{place.target} is no {element}"
                assert bool((stored > 0).all())


def test_lsq_scales_start_where_they_were() -> None:
    small = quantized(attention(), "nvfp4", "int8")
    twin = with_gradient(small, "lsq")
    args, _ = small.example
    assert torch.equal(twin(*args), small(*args))
    for name, value in scales(twin).items():
        assert torch.equal(value, small.tensors[name])


def test_lsq_beats_rounding_and_fixed_scales() -> None:
    graph = mlp()
    small = quantized(graph, "int2", "int4")
    data = items(graph, 64)
    found = {}
    for gradient in ("clipped", "lsq"):
        options = Distill(minutes=None, epochs=15, learning_rate=3e-3, gradient=gradient, batch_size=32)  # type: ignore[arg-type]
        found[gradient] = error(graph, options(small, data))
    assert found["lsq"] < found["clipped"] < error(graph, small)


def test_folded_batch_norms_train_with_frozen_statistics() -> None:
    """The first step that Distill takes on the folded network, against the formula in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).eval()
    with torch.no_grad():
        for name, tensor in model[1].state_dict().items():
            tensor.copy_(torch.rand(3) + 0.5 if name == "running_var" else torch.randn(tensor.shape))
    x = torch.randn(8, 2, 6, 6)
    graph = capture(model, (x,))
    small = Recipe(FoldBatchNorm(), Quantize(weights="int4"))(graph)
    rate, options = 1e-3, {"minutes": None, "epochs": 1, "features": 0.0}
    result = Distill(learning_rate=rate, **options)(small, [((x,), {})])  # type: ignore[arg-type]

    # Jacob et al. (arXiv 1712.05877, section 3.2): the weight is scaled by gamma / sqrt(var + eps), then rounded
    layer, norm = model.double()
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight = (layer.weight * factor.reshape(-1, 1, 1, 1)).detach()
    bias = ((layer.bias - norm.running_mean) * factor + norm.bias).detach()
    step = weight.abs().amax((1, 2, 3), keepdim=True) / 7
    rounded, bias = (weight / step).round().clamp(-8, 7).mul(step).requires_grad_(), bias.requires_grad_()
    wanted = norm(layer(x.double())).detach()
    loss = (nn.functional.conv2d(x.double(), rounded, bias) - wanted).square().sum() / wanted.square().sum()
    loss.backward()
    moved = [result.tensors[name].detach() - small.tensors[name].detach() for name in ("0.weight", "0.bias")]
    for found, at in zip(moved, (rounded, bias), strict=True):
        assert at.grad is not None
        steps = torch.where(at.grad.abs() > 1e-7, -at.grad.sign(), 0.0)  # Adam's first step: the gradient's sign
        torch.testing.assert_close((found / found.abs().max()).double().sign(), steps, rtol=0, atol=0)
    assert not any("running" in name for name in result.tensors)


def test_rows_are_regrouped_where_the_batch_may_vary() -> None:
    graph = attention()
    rows = [((torch.full((n, length, 32), float(n)),), {}) for n, length in ((3, 6), (1, 4), (4, 6), (2, 4), (2, 6))]
    found = regroup(graph, rows, 4)
    assert sorted(tuple(args[0].shape[:2]) for args, _ in found) == [(1, 6), (3, 4), (4, 6), (4, 6)]
    assert sum(float(args[0].sum()) for args, _ in found) == sum(float(args[0].sum()) for args, _ in rows)
    assert regroup(convnet(), items(convnet()), 4) is not None
    fixed = items(convnet())
    assert regroup(convnet(), fixed, 4) is fixed


def test_landmarks_are_the_outputs_of_blocks() -> None:
    torch.manual_seed(0)
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3)))
    graph = capture(nn.Sequential(blocks, nn.Linear(8, 2)).eval(), (torch.randn(2, 8),))
    names = network.landmarks(graph, graph)
    assert [(graph.node(name).path, graph.node(name).op) for name in names] == [("0.2.1", "relu")]
    output, values = network.tapped(graph, names)(torch.ones(2, 8))
    assert torch.equal(output, graph(torch.ones(2, 8)))
    assert [tuple(value.shape) for value in values] == [(2, 8)] * len(names)


def test_a_rotated_hidden_state_is_not_compared() -> None:
    graph = mlp()
    turned = graph.replace(tensors=dict(graph.tensors), origin=graph)
    for name, flipped in (("0.weight", -1.0), ("0.bias", -1.0)):
        turned.tensors[name] = nn.Parameter(graph.tensors[name].detach() * flipped)
    result = SHORT(turned, items(graph, 16))
    assert all(bool(t.isfinite().all()) for t in result.tensors.values())


def test_training_on_what_it_is_already_changes_nothing() -> None:
    graph = mlp()
    result = SHORT(graph.replace(origin=graph), items(graph))
    for name, tensor in graph.tensors.items():
        torch.testing.assert_close(result.tensors[name], tensor, rtol=0, atol=0)


def test_the_teacher_is_asked_once_for_a_batch(monkeypatch) -> None:
    graph = attention()
    small, data = quantized(graph, "int4", "int8"), items(graph, 4)
    options, asked, results = Distill(minutes=None, epochs=3, batch_size=2), [], []
    for room in (1 << 30, 0):
        monkeypatch.setattr(recovery, "CACHE", room)
        made, calls = options.recovery(small, data), []

        def teacher(*args, known=made._teacher, calls=calls):
            calls.append(args)
            return known(*args)

        monkeypatch.setattr(made, "_teacher", teacher)
        made.run(options.training)
        asked.append(len(calls))
        results.append(made.graph())
    assert asked[1] == 3 * asked[0]
    assert all(torch.equal(results[0].tensors[name], results[1].tensors[name]) for name in results[0].tensors)


def test_it_resumes_to_the_same_bits(tmp_path: Path) -> None:
    graph = attention()
    small, data = quantized(graph, "int4", "int8"), items(graph, 16)
    options = Distill(minutes=None, epochs=3, gradient="lsq", batch_size=4)
    whole = options.run(small, data)

    class Stop(History):
        def on_step(self, moment) -> None:
            if moment.step == 10:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        options.run(small, data, callbacks=[Stop()], checkpoints=Checkpoints(tmp_path, every=3))
    again = options.run(small, data, checkpoints=Checkpoints(tmp_path, every=3))
    assert all(torch.equal(whole.tensors[name], again.tensors[name]) for name in whole.tensors)


def test_in_a_recipe_file() -> None:
    recipe = Recipe(Quantize(weights="int4"), Distill(minutes=None, epochs=2, where="linear", gradient="lsq"))
    assert Recipe.from_data(recipe.to_data()) == recipe
    assert config.encode(Distill()) == {}
    graph = mlp()
    assert "trains 0.weight" in str(recipe.plan(graph))
    result = recipe(graph, items(graph, 8), training=(item for item in items(graph, 8)))  # read once
    assert result.origin is graph


def test_bad_input_is_told_at_the_door() -> None:
    graph = mlp()
    for wrong in ({"loss": "l2"}, {"gradient": "sign"}, {"batch_size": 0}, {"minutes": None}, {"features": -1.0}):
        with pytest.raises(OptionError):
            Distill(**wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="does not know what it was"):
        SHORT(graph, items(graph))
    small = quantized(graph)
    with pytest.raises(DataError, match="there is none"):
        SHORT(small)
    with pytest.raises(DataError, match="an item of data"):
        SHORT(small, [torch.ones(4, 16)])  # type: ignore[list-item]
    with pytest.raises(OptionError, match="no operation with a parameter"):
        Distill(where="relu").plan(graph)
    with pytest.raises(OptionError, match="no cast"):
        Distill(minutes=None, epochs=1, gradient="lsq")(graph.replace(origin=graph), items(graph))
    with pytest.raises(Diverged, match="step 1"):
        SHORT(small, [((torch.full((4, 16), torch.nan),), {})])
    assert parse_selector(str(Distill().where)) == Distill().where
