"""Structured pruning: equal to the model with those channels at zero, in every family, and smaller."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from planish.analysis import analyze
from planish.analysis.dependency import Dependencies, Keep, dependencies, indices_of
from planish.compress import Quantize
from planish.compress.structured import PruneStructured, layers, scores, surgeon
from planish.compress.structured.choose import step_of
from planish.compress.structured.shrink import shrink
from planish.errors import DataError, OptionError
from planish.formats import int8
from planish.frontends import capture
from planish.graph import Graph
from planish.recipe import Recipe
from tests.compress.models import attention, convnet, error, items, mlp
from tests.frontends.families import FAMILIES


def silent(*_progress: object) -> None:
    pass


def tensors(value: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def run(graph: Graph, example=None) -> list[Tensor]:
    args, kwargs = example or graph.example
    copies = pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, (args, kwargs))
    return tensors(graph(*copies[0], **copies[1]))


def assert_close(mine: list[Tensor], theirs: list[Tensor], within: float = 1e-5) -> None:
    for left, right in zip(mine, theirs, strict=True):
        torch.testing.assert_close(left, right, atol=within * (1 + float(right.abs().max())), rtol=within)


def masked(found: Dependencies, keep: Keep) -> Graph:
    """The oracle: the whole graph, each number of a parameter that goes set to zero."""
    graph = found.graph
    zeroed: dict[int, Tensor] = {}
    for name in graph.parameter_names & found.tensors.keys():
        value = graph.tensors[name].detach().clone()
        for axis, dim in enumerate(found.tensors[name]):
            stays = torch.zeros(value.shape[axis], dtype=torch.bool)
            stays[indices_of(dim, keep)] = True
            value.movedim(axis, 0)[~stays] = 0
        zeroed.setdefault(id(graph.tensors[name]), nn.Parameter(value))
    return graph.replace(tensors={name: zeroed.get(id(old), old) for name, old in graph.tensors.items()})


def lively(graph: Graph, seed: int = 0) -> Graph:
    """The graph with biases, norms and running statistics that are not at their start."""
    generator = torch.Generator().manual_seed(seed)
    new: dict[int, Tensor] = {}
    for name, old in graph.tensors.items():
        noise = 0.1 * torch.randn(old.shape, generator=generator)
        if name in graph.parameter_names:
            new.setdefault(id(old), nn.Parameter(old.detach() + noise))
        elif "running" in name:
            new.setdefault(id(old), old + noise.abs())
    return graph.replace(tensors={name: new.get(id(old), old) for name, old in graph.tensors.items()})


def half(found: Dependencies, share: float = 0.5, seed: int = 0) -> Keep:
    generator = torch.Generator().manual_seed(seed)
    counts = {group.dim: max(1, round(group.size * share)) for group in found.free}
    return {
        dim: torch.randperm(dim.size, generator=generator)[:count].sort().values
        for dim, count in counts.items()
        if count < dim.size
    }


def check(graph: Graph, seed: int = 0, share: float = 0.5) -> Graph:
    """Prune half of every group that may be pruned and compare with the oracle."""
    found = dependencies(graph)
    keep = half(found, share, seed)
    small = shrink(found, keep).verify()
    assert_close(run(small), run(masked(found, keep)))
    for name, axes in found.tensors.items():
        assert list(small.tensors[name].shape) == [len(indices_of(dim, keep)) for dim in axes]
    predicted = sum(node.work.macs * found.shares(keep).get(node.node, 1.0) for node in analyze(graph).nodes)
    assert analyze(small).total.macs == pytest.approx(predicted, rel=0.02)
    parameters = {id(small.tensors[name]): small.tensors[name].numel() for name in graph.parameter_names}
    assert found.parameters(keep) == sum(parameters.values())
    return small


# --- every family ----------------------------------------------------------------------------------------------------

QUICK = ("mlp", "vae", "lstm")
_FAMILIES = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.long, pytest.mark.xdist_group(name)])
    for name in FAMILIES
]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", _FAMILIES)
@pytest.mark.parametrize("share", [0.5, 0.75])
def test_family(name: str, share: float, tmp_path) -> None:
    torch.manual_seed(0)
    family = FAMILIES[name]()
    graph = lively(capture(family.model.eval(), family.example, dynamic=family.dynamic))
    small = check(graph, share=share)
    assert analyze(small).total.macs < 0.9 * analyze(graph).total.macs

    net = small.module().train()  # it still trains
    args, kwargs = small.example
    outputs = tensors(net(*args, **pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, kwargs)))
    sum(output.square().mean() for output in outputs).backward()
    assert any(parameter.grad is not None for parameter in net.parameters())

    small.save(tmp_path / "small.planish")
    assert_close(run(Graph.load(tmp_path / "small.planish")), run(small), 0)

    larger = dict(family.example)  # the batch is still dynamic
    for key, axes in family.dynamic.items():
        (axis,) = axes
        larger[key] = pytree.tree_map(lambda leaf, axis=axis: torch.cat([leaf] * 3, axis), larger[key])
    for mine, theirs in zip(run(small, ((), larger)), run(graph, ((), larger)), strict=True):
        assert mine.shape == theirs.shape


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long) for n in ("bert", "resnet18", "llama")])
def test_family_by_the_pass(name: str) -> None:
    torch.manual_seed(0)
    family = FAMILIES[name]()
    graph = lively(capture(family.model.eval(), family.example, dynamic=family.dynamic))
    step = PruneStructured(0.4, of="macs", by="taylor", scope="global", round_to=1)
    small = step(graph, [graph.example])
    assert analyze(small).total.macs <= 0.6 * analyze(graph).total.macs


# --- random networks -------------------------------------------------------------------------------------------------


class Random(nn.Module):
    """A chain of random steps on `(batch, channels, 4, 4)`."""

    def __init__(self, steps: list[str], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.steps, self.parts, width = steps, nn.ModuleList(), 4
        widths = [width]
        for step in steps:
            new = {"wide": 8, "split": width // 2 if width > 4 else width, "skip": width, "cat": 2 * width}.get(
                step, width
            )
            first = {
                "wide": nn.Conv2d(width, 8, 3, padding=1),
                "depthwise": nn.Conv2d(width, width, 3, padding=1, groups=width),
                "groups": nn.Conv2d(width, width, 1, groups=2),
                "batch": nn.BatchNorm2d(width),
                "group_norm": nn.GroupNorm(2, width),
                "skip": nn.Conv2d(width, width, 1),
                "up": nn.ConvTranspose2d(width, width, 1, groups=2),
            }
            self.parts.append(first.get(step, nn.Identity()))
            width = new
            widths.append(width)
        self.head = nn.Linear(width * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.tanh()
        for step, part in zip(self.steps, self.parts, strict=True):
            match step:
                case "skip":
                    x = x + torch.relu(part(x))
                case "cat":
                    x = torch.cat([x, torch.sigmoid(x)], 1)
                case "split" if x.shape[1] > 4:
                    a, b = x.chunk(2, 1)
                    x = a * torch.sigmoid(b)
                case "shuffle":
                    n, c, h, w = x.shape
                    x = x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
                case "scale":
                    x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
                case _:
                    x = part(x)
        return self.head(x.flatten(1))


STEPS = ("wide", "wide", "depthwise", "groups", "batch", "group_norm", "skip", "cat", "split", "shuffle", "scale", "up")


@pytest.mark.long
@settings(max_examples=20)
@given(st.lists(st.sampled_from(STEPS), min_size=2, max_size=6), st.integers(0, 99))
def test_random_networks(steps: list[str], seed: int) -> None:
    graph = capture(Random(["wide", *steps], seed).eval(), (torch.randn(2, 4, 4, 4),), training=False)
    check(lively(graph, seed), seed)


@pytest.mark.long
@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("by", ["surgeon", "taylor", "wanda", "activation", "magnitude", "random"])
def test_each_criterion(by: str, scope: str) -> None:
    graph = attention()
    step = PruneStructured(0.4, of="macs", by=by, scope=scope, round_to=1, compensate=False)
    small = step(graph, items(graph))
    share = analyze(small).total.macs / analyze(graph).total.macs
    assert 0.4 < share <= 0.6
    assert error(graph, small) < 1
    assert step(graph, items(graph)).tensors["up.weight"].equal(small.tensors["up.weight"])  # the same again


# --- what a unit matters, against direct computations ---------------------------------------------------------------


def test_wanda_is_the_papers_product() -> None:
    graph = mlp()
    found = dependencies(graph)
    data = items(graph)
    (group,) = found.free
    got = scores.score(found, [group], "wanda", data, 0, silent)[group.dim]
    hidden = torch.cat([torch.relu(x @ graph.tensors["0.weight"].T + graph.tensors["0.bias"]) for (x,), _ in data])
    products = graph.tensors["2.weight"].detach().double().abs() * hidden.detach().double().square().sum(0).sqrt()
    expected = products.square().sum(0)
    torch.testing.assert_close(got, expected / expected.mean(), rtol=1e-5, atol=0)


def test_taylor_is_the_change_of_a_linear_readout() -> None:
    """Where what follows is linear, leaving a unit out changes the output by exactly its first-order term."""
    graph = mlp()
    found = dependencies(graph)
    (group,) = found.free
    data = [((torch.randn(8192, 16),), {})]
    got = scores.score(found, [group], "taylor", data, 0, silent)[group.dim]
    (x,), _ = data[0]
    hidden = torch.relu(x @ graph.tensors["0.weight"].T + graph.tensors["0.bias"]).detach().double()
    expected = hidden.square().sum(0) * graph.tensors["2.weight"].detach().double().square().sum(0)
    ratio = got / expected  # in expectation over the projection
    assert float((ratio - 1).abs().mean()) < 0.1


@pytest.mark.parametrize("width", [1, 3])
def test_surgeon_knows_what_refitting_leaves(width: int) -> None:
    """Its cost of a unit is the growth of the least-squares error when that unit goes too, by brute force."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 12, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(12, 12, generator=generator, dtype=torch.float64)
    weight = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    wanted = x @ weight.T
    units = torch.arange(12).reshape(-1, width)

    def loss(left: list[int]) -> Tensor:
        kept = x[:, units[left].reshape(-1)]
        return (kept @ torch.linalg.lstsq(kept, wanted).solution - wanted).square().sum()

    reader = surgeon._Reader(weight, torch.linalg.inv(x.T @ x), units, float(wanted.square().sum()))
    left = list(range(len(units)))
    while len(left) > 1:
        costs = reader.costs() * reader.energy
        growth = torch.stack([loss([other for other in left if other != unit]) for unit in left]) - loss(left)
        torch.testing.assert_close(costs, growth, rtol=1e-6, atol=1e-6)
        gone = costs.argmin()
        reader.remove(gone[None])
        left.pop(int(gone))


def test_surgeon_leaves_the_smaller_error() -> None:
    graph = mlp()
    data = [((torch.randn(2048, 16),), {})]
    fitted = {by: PruneStructured(0.5, by=by, round_to=1)(graph, data) for by in ("surgeon", "random")}
    assert error(graph, fitted["surgeon"]) < error(graph, fitted["random"])


def test_compensation_is_least_squares() -> None:
    graph = mlp()
    data = [((torch.randn(4096, 16),), {})]
    plain = PruneStructured(0.5, compensate=False, round_to=1)(graph, data)
    small = PruneStructured(0.5, round_to=1)(graph, data)
    (x,), _ = data[0]
    inputs = torch.relu(x @ small.tensors["0.weight"].T + small.tensors["0.bias"]).detach().double()
    wanted = graph(x).double()
    best = torch.linalg.lstsq(torch.cat([inputs, torch.ones(len(x), 1)], 1), wanted).solution
    floor = float((torch.cat([inputs, torch.ones(len(x), 1)], 1) @ best - wanted).square().sum())
    got = float((small(x).double() - wanted).square().sum())
    assert floor <= got < 1.02 * floor
    assert got < 0.9 * float((plain(x).double() - wanted).square().sum())


@pytest.mark.long
@pytest.mark.parametrize("model", [attention, convnet])
def test_compensation_helps(model) -> None:
    graph = model()
    data = items(graph, count=64)
    plain, fitted = (PruneStructured(0.5, round_to=1, compensate=flag)(graph, data) for flag in (False, True))
    assert error(graph, fitted) < error(graph, plain)


@pytest.mark.long
def test_features_of_heads_are_fitted_too() -> None:
    graph = attention()
    step = PruneStructured(0.5, units=("features",), round_to=1)
    small = step(graph, items(graph, count=16))
    assert small.tensors["query.weight"].shape == (16, 32)
    assert error(graph, small) < 0.5


# --- the pass --------------------------------------------------------------------------------------------------------


def test_plan_draft_and_result_have_the_same_shapes() -> None:
    graph = attention()
    step = PruneStructured(0.5)
    steps = step.plan(graph)
    assert [each.action for each in steps] == ["4 heads to 2", "64 neurons to 32"]
    small = step(graph, items(graph))
    drafted = step.draft(graph)
    assert {n: t.shape for n, t in drafted.tensors.items()} == {n: t.shape for n, t in small.tensors.items()}
    names = {place.tensor for group in dependencies(graph).free for place in group.places}
    assert sum(each.bytes_after for each in steps) == sum(4 * small.tensors[name].numel() for name in names)


def test_axes_keep_a_multiple() -> None:
    graph = convnet()
    small = PruneStructured(0.3, by="random", round_to=4, compensate=False)(graph)
    assert small.tensors["0.weight"].shape[0] % 4 == 0
    found = dependencies(attention())
    heads = next(group for group in found.free if group.kind == "heads")
    assert (step_of(found, heads, 8), step_of(found, heads, 16)) == (1, 2)


def test_where_takes_groups_whole() -> None:
    graph = attention()
    small = PruneStructured(0.5, where="path('up')", by="magnitude", compensate=False)(graph)
    assert small.tensors["up.weight"].shape == (32, 32)
    assert small.tensors["query.weight"] is graph.tensors["query.weight"]
    with pytest.raises(OptionError, match=r"nothing that .* selects has"):
        PruneStructured(0.5, where="path('query')").plan(graph)  # heads are made by query, key and value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amount": 1.0}, "share between 0 and 1"),
        ({"by": "best"}, "unknown by 'best'"),
        ({"units": ("rows",)}, "unknown units 'rows'"),
        ({"units": ("layers", "heads")}, "step of their own"),
        ({"round_to": 0}, "multiple of 1 or more"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        PruneStructured(**options)


def test_what_cannot_be_met_says_how_far_it_goes() -> None:
    graph = attention()
    with pytest.raises(OptionError, match=r"only \d+% of the parameters can go"):
        PruneStructured(0.99, of="parameters", by="magnitude", compensate=False)(graph)
    with pytest.raises(OptionError, match=r"no group can lose"):
        PruneStructured(0.1, round_to=64).plan(graph)
    with pytest.raises(DataError, match=r"PruneStructured looks at activations"):
        PruneStructured()(graph)


def test_it_is_data() -> None:
    recipe = Recipe(PruneStructured(0.3, of="macs", units=("heads", "neurons"), by="taylor", scope="global"))
    assert Recipe.from_data(recipe.to_data()) == recipe


@pytest.mark.long
@pytest.mark.parametrize("weights", ["int8", "int4@g8", "mxfp4@g8"])
def test_quantized_weights_are_sliced_with_their_scales(weights: str) -> None:
    graph = attention()
    quantized = Quantize(weights=weights)(graph)
    check(quantized)
    small = PruneStructured(0.5)(quantized, items(graph, count=16))
    assert error(graph, small) < 0.6
    net = small.module().train()
    net(*small.example[0]).square().mean().backward()


@pytest.mark.long
def test_static_activations_and_masks_and_factors_are_sliced() -> None:
    graph = Quantize(weights=int8, activations=int8, attention=int8)(attention(), items(attention()))
    edit = graph.edit()
    mul, add, matmul = torch.ops.aten.mul.Tensor, torch.ops.aten.add.Tensor, torch.ops.aten.matmul.default
    for path in ("up", "down"):
        layer = next(node for node in edit.graph.nodes if node.path == path and node.op == "linear")
        layer = edit.node(layer.name)
        rows, columns = layer.weight.value.shape
        mask = edit.add(f"{path}.weight__mask", (torch.rand(rows, columns) > 0.5).float())
        b = edit.add(f"{path}.weight__b", torch.randn(rows, 2), trainable=True)
        a = edit.add(f"{path}.weight__a", torch.randn(2, columns), trainable=True)
        old = layer.weight
        product = edit.call(matmul, b, a, before=layer)
        total = edit.call(add, edit.call(mul, old, mask, before=layer), product, before=layer)
        edit.replace_input(layer, old, total)
    whole = edit.done()
    small = check(whole)
    assert small.tensors["up.weight__mask"].shape == (32, 32)
    assert small.tensors["down.weight__a"].shape == (2, 32)
    fitted = PruneStructured(0.5)(whole, items(whole, count=16))
    assert all(bool(torch.isfinite(each).all()) for each in run(fitted))


def test_a_scale_for_the_whole_of_an_axis_holds_it() -> None:
    graph = Quantize(weights=int8, activations=int8.dynamic())(attention())
    refusals = [group.refusal for group in dependencies(graph).groups if group.path == "up"]
    assert any("finds one scale for all of it" in refusal for refusal in refusals)


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.relu(self.b(torch.relu(self.a(x.tanh())))))

    torch.manual_seed(0)
    graph = capture(Tied().eval(), (torch.randn(2, 8),))
    for group in dependencies(graph).free:  # what a makes, a reads: nothing but c's input can go, if b's output may
        assert group.readers == ("linear_2",)


# --- layers ----------------------------------------------------------------------------------------------------------


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)) for _ in range(4))
        with torch.no_grad():
            self.blocks[2][2].weight.mul_(1e-4)
            self.blocks[2][2].bias.mul_(1e-4)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


@pytest.mark.parametrize("by", ["taylor", "activation", "magnitude"])
def test_the_layer_that_adds_least_goes_first(by: str) -> None:
    torch.manual_seed(0)
    model = Blocks().eval()
    graph = capture(model, (torch.randn(4, 8),), dynamic={"x": {0: "batch"}})
    assert [branch.path for branch in layers.branches(graph)] == [f"blocks.{i}.2" for i in range(4)]
    small = PruneStructured(0.25, units=("layers",), by=by)(graph, items(graph))
    assert not any(name.startswith("blocks.2.") for name in small.tensors)
    model.blocks[2][2].weight.data.zero_()
    model.blocks[2][2].bias.data.zero_()
    x = torch.randn(3, 8)
    torch.testing.assert_close(small(x), model(x))


def test_layers_go_until_the_budget_is_met() -> None:
    torch.manual_seed(0)
    graph = capture(Blocks().eval(), (torch.randn(4, 8),))
    small = PruneStructured(0.6, of="macs", units=("layers",), by="activation")(graph, items(graph))
    assert analyze(small).total.macs == 0.25 * analyze(graph).total.macs
    with pytest.raises(OptionError, match="no residual branch"):
        PruneStructured(0.5, units=("layers",), by="random").plan(mlp())
