"""GPTQ in every kind of format, against direct computations of the paper's equations in float64."""

# ruff: noqa: A001
from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from planish.compress import Quantize
from planish.compress.columns import Fixed, damped, descend, gptq
from planish.compress.gptq import frozen
from planish.compress.grid import Grid, Layout
from planish.compress.moments import moments, rows
from planish.compress.sweep import Batch
from planish.formats import get
from planish.frontends import capture
from planish.graph import Graph, ops
from tests.compress.models import convnet, error, items, mlp

FORMATS = ["int8@channel0", "uint4@channel0", "int4@g32", "int4@g24*float16", "nvfp4", "mxfp4", "nf4_double", "e4m3",
           "q4_k", "lut4@channel0", "lut3@g32*float16", "lut2@tensor", "int3@channel0&int3@g16", "q5_0", "int4@tensor",
           "int4@tile8x16", "ternary", "binary"]  # fmt: skip


def problem(out: int = 24, width: int = 64) -> tuple[Tensor, Tensor]:
    """A weight, and the Gram matrix of inputs that are alike."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(out, width, generator=generator)
    inputs = torch.randn(512, width, generator=generator) @ torch.randn(width, width, generator=generator)
    return weight, damped((inputs.T @ inputs).double())


def lost(weight: Tensor, rounded: Tensor, gram: Tensor) -> float:
    """The squared error of the outputs."""
    off = rounded.double() - weight.double()
    return float((off @ gram * off).sum())


def optimal_brain_quantizer(weight: Tensor, gram: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """arXiv 2210.17323, equations 2 and 3, in the order of the columns: after each, its row and column of the inverse
    are eliminated."""
    weight, inverse, rounded = weight.double().clone(), torch.linalg.inv(gram), torch.empty_like(weight).double()
    for column in range(weight.shape[1]):
        rounded[:, column] = (weight[:, column] / scale).round().clamp(low, high) * scale
        error = (weight[:, column] - rounded[:, column]) / inverse[column, column]
        weight -= error[:, None] * inverse[column]
        inverse = inverse - torch.outer(inverse[:, column], inverse[column]) / inverse[column, column]
        inverse[column, :], inverse[:, column] = 0, 0
        inverse[column, column] = 1.0  # done with
    return rounded


def optimal_brain_quantizer_of_a_row(
    weight: Tensor, gram: Tensor, scale: float, free: Tensor, low: int, high: int
) -> Tensor:
    """The same of one row, in which only `free` weights are there at all."""
    rounded, places = torch.zeros_like(weight).double(), torch.nonzero(free).flatten()
    part = optimal_brain_quantizer(
        weight[places][None], gram[places][:, places], torch.tensor([scale], dtype=torch.float64), low, high
    )
    rounded[places] = part[0]
    return rounded


class Stored(Grid):
    """A grid whose scales are not searched."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        width = self.layout.matrix(torch.empty(self.layout.shape)).shape[1]
        self.searched, self.segments = False, [torch.arange(width)]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_equals_the_papers_equations(bits: int) -> None:
    weight, gram = problem()
    order = gram.diag().argsort(descending=True)
    weight, gram = weight[:, order], gram[order][:, order]
    format = get(f"int{bits}@channel0")
    parameters = format.parameters(weight)
    found = gptq(weight.double(), gram, Stored(format, parameters, Layout((24, 64))))
    top = 2 ** (bits - 1)
    expected = optimal_brain_quantizer(weight, gram, parameters[0].flatten().double(), -top, top - 1)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("text", FORMATS)
def test_gives_numbers_of_the_format_that_lose_less(text: str) -> None:
    weight, gram = problem()
    format = get(text)
    parameters = format.parameters(weight)
    grid = Grid(format, parameters, Layout((24, 64)))
    found = gptq(weight.double(), gram, grid)
    better = descend(found, weight.double(), gram, grid)
    for result in (found.float(), better.float()):
        if format.residual is None:  # a residual is greedy: two codes may stand for nearly the same number
            assert torch.equal(format.cast(result, grid.parameters), result)
    assert lost(weight, better, gram) <= lost(weight, found, gram) * (1 + 1e-9)
    assert lost(weight, better, gram) <= lost(weight, format.cast(weight, parameters), gram)


@pytest.mark.parametrize("text", ["int4@g32", "int4@channel0", "mxfp4", "nvfp4", "uint4@g16", "q4_k", "int2@g16"])
def test_searching_the_scale_loses_less_than_keeping_it(text: str) -> None:
    weight, gram = problem()
    format = get(text)
    parameters = format.parameters(weight)
    losses = []
    for kind in (Stored, Grid):
        grid = kind(format, parameters, Layout((24, 64)))
        losses.append(lost(weight, descend(gptq(weight.double(), gram, grid), weight.double(), gram, grid), gram))
    assert losses[1] < losses[0]


@pytest.mark.parametrize("text", ["int4@channel1", "nvfp4@g16axis0", "lut3@channel1", "uint4@g8axis0", "int4@g8"])
def test_a_weight_stored_the_other_way_is_rounded_alike(text: str) -> None:
    weight, gram = problem()
    format = get(text)
    stored = weight.T.contiguous()
    parameters = format.parameters(stored)
    grid = Grid(format, parameters, Layout((64, 24), transposed=True))
    found = gptq(weight.double(), gram, grid).float().T.contiguous()
    assert torch.equal(format.cast(found, grid.parameters), found)
    assert lost(weight, found.T, gram) <= lost(weight, format.cast(stored, parameters).T, gram)


def test_masked_weights_stay_and_the_others_do_as_well_as_without_them() -> None:
    weight, gram = problem(12, 48)
    free = torch.rand(12, 48, generator=torch.Generator().manual_seed(1)) > 0.5
    weight = weight * free
    format = get("int4@channel0")
    parameters = format.parameters(weight)
    grid = Stored(format, parameters, Layout((12, 48)))
    fixed = Fixed(~free.T, torch.zeros(48, 12, dtype=torch.float64))
    found = descend(gptq(weight.double(), gram, grid, fixed), weight.double(), gram, grid, fixed)
    assert bool((found[~free] == 0).all())
    expected = torch.stack([
        optimal_brain_quantizer_of_a_row(row, gram, float(scale), kept, -8, 7)
        for row, scale, kept in zip(weight, parameters[0].flatten(), free, strict=True)
    ])  # fmt: skip
    nearest = lost(weight, format.cast(weight, parameters), gram)
    assert lost(weight, found, gram) < 1.05 * lost(weight, expected, gram) < nearest


@pytest.mark.parametrize("text", ["nvfp4", "mxfp4", "nf4_double", "int4@g32", "lut4", "int8"])
def test_a_model_loses_less(text: str) -> None:
    graph = mlp()
    data = items(graph, 16)
    nearest, small = (Quantize(weights=text, by=by)(graph, data) for by in ("rtn", "gptq"))
    assert error(graph, small) < error(graph, nearest)
    for node in (node for node in small.nodes if node.op == "cast"):
        weight = small.tensors[str(node.inputs[0].target)].detach()
        parameters = tuple(small.tensors[str(place.target)] for place in node.args[1])
        assert torch.equal(node.format.cast(weight, parameters), weight)


def pruned(graph: Graph) -> Graph:
    """Half of each weight masked, as passes that prune do it."""
    edit = graph.edit()
    for node in (ops.linear | ops.conv).within(graph.nodes):
        weight = edit.node(node.name).weight
        name = str(weight.target)
        mask = (graph.tensors[name].abs() > graph.tensors[name].abs().median()).float()
        layer = edit.node(node.name)
        edit.replace_input(
            layer, weight, edit.call(torch.ops.aten.mul.Tensor, weight, edit.add(f"{name}__mask", mask), before=layer)
        )
    return edit.done()


@pytest.mark.parametrize("name", ["mlp", "convnet"])
@pytest.mark.parametrize("text", ["int4", "int4@g8", "mxfp4"])
def test_pruned_weights_stay_zero_in_any_graph(name: str, text: str) -> None:
    graph = pruned({"mlp": mlp, "convnet": convnet}[name]())
    data = items(graph, 64)
    nearest, small = (Quantize(weights=text, by=by, correct_bias=True)(graph, data) for by in ("rtn", "gptq"))
    for key, value in small.base_state_dict().items():
        if key.endswith("weight"):
            mask = small.tensors[f"{key}__mask"]
            assert bool((value[mask == 0] == 0).all())
            assert bool((value[mask == 1] != 0).any())
    assert error(graph, small, seed=1) < error(graph, nearest, seed=1)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1, stride=2),
        nn.Conv2d(4, 6, (3, 2), dilation=(1, 2), padding="same"),
        nn.Conv1d(4, 6, 5, padding=2),
        nn.Conv3d(4, 6, 2, stride=(1, 2, 1)),
        nn.Linear(8, 6),
    ],
    ids=str,
)
def test_rows_times_the_weight_are_the_outputs(layer: nn.Module) -> None:
    shape = (3, 8) if isinstance(layer, nn.Linear) else (3, 4, *(8, 7, 6)[: layer.weight.dim() - 2])
    x = torch.randn(shape)
    node = next(node for node in capture(layer.eval(), (x,)).nodes if node.weight is not None)
    found = rows(node, x) @ layer.weight.detach().flatten(1).T + layer.bias.detach()
    assert torch.allclose(found, layer(x).detach().movedim(1, -1).reshape(-1, 6), atol=1e-5)


def test_moments_are_sums_over_rows() -> None:
    node = next(node for node in mlp().nodes if node.op == "linear")
    actual, exact = (torch.randn(3, 50, 16) + 4 for _ in range(2))
    found = moments(node, [Batch(*pair) for pair in zip(actual, exact, strict=True)])
    a, e = actual.flatten(0, 1).double(), exact.flatten(0, 1).double()
    assert torch.allclose(found.gram, a.T @ a, rtol=1e-5)
    assert torch.allclose(found.cross, a.T @ e, rtol=1e-5)
    centered = moments(node, [Batch(*pair) for pair in zip(actual, exact, strict=True)], about_mean=True)
    assert torch.allclose(centered.gram, (a - a.mean(0)).T @ (a - a.mean(0)), atol=1e-3)
    assert torch.allclose(centered.cross, (a - a.mean(0)).T @ (e - e.mean(0)), atol=1e-3)


def test_tied_weights_keep_what_both_uses_want() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 8)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(self.table(x), self.table.weight)

    graph = capture(Tied(), (torch.tensor([[1, 2, 3]] * 2),))
    small = Quantize("int4", by="gptq")(graph, [((torch.tensor([[1, 2, 3]] * 2),), {})])
    value = graph.tensors["table.weight"].detach()
    step = small.tensors["table.weight__scale"]
    assert bool(((small.base_state_dict()["table.weight"] - value).abs() <= step * 1.5).all())


def test_what_is_frozen_is_seen_through_the_steps_above() -> None:
    graph = pruned(mlp())
    edit = graph.edit()
    node = next(edit.node(node.name) for node in graph.nodes if node.op == "linear")
    turned = edit.call(torch.ops.aten.t.default, node.weight, before=node)
    found = frozen(edit.graph, turned.fx)
    assert found is not None
    assert torch.equal(found, (edit.graph.tensors["0.weight__mask"] == 0).T)


@pytest.mark.long
@pytest.mark.parametrize("by", ["gptq", "adaround"])
@pytest.mark.parametrize("block", ["channel0", "g8"])
def test_more_bits_are_never_worse_on_the_calibration_data(by: str, block: str) -> None:
    graph = mlp()
    data = items(graph, 32)
    losses = []
    for bits in (3, 4, 5, 6, 8):
        small = Quantize(f"int{bits}@{block}", by=by)(graph, data)  # type: ignore[arg-type]
        losses.append(sum(float((small(*args) - graph(*args)).square().sum()) for args, _ in data))
    assert losses == sorted(losses, reverse=True)
