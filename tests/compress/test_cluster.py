"""Cluster: k-means against an exhaustive optimum, weights from data, masks, training; binary and ternary networks."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from planish.compress import Adapt, Cluster, Correct, Prune, Quantize, Smooth
from planish.errors import OptionError
from planish.graph import Graph
from tests.compress import contract
from tests.compress.models import attention, convnet, error, items, mlp


def best_error(x: Tensor, weight: Tensor, k: int) -> float:
    """The least weighted squared error of k clusters: in one dimension clusters are stretches, so try all cuts."""
    order = x.argsort()
    x, weight = x[order].double(), weight[order].double()
    best = float("inf")
    for cuts in combinations(range(1, len(x)), k - 1):
        ends = [0, *cuts, len(x)]
        error = 0.0
        for a, b in pairwise(ends):
            center = (weight[a:b] * x[a:b]).sum() / weight[a:b].sum()
            error += float((weight[a:b] * (x[a:b] - center) ** 2).sum())
        best = min(best, error)
    return best


def small(width: int = 14) -> Graph:
    from planish.frontends import capture

    torch.manual_seed(3)
    return capture(torch.nn.Linear(width, 1).eval(), (torch.randn(4, width),), dynamic={"input": {0: "batch"}})


@pytest.mark.parametrize("with_data", [False, True])
def test_codebooks_are_near_the_optimum(with_data: bool) -> None:
    graph = small()
    scale = torch.linspace(0.1, 3.0, 14)
    data = [((args[0] * scale,), {}) for args, _ in items(graph, 8)]
    result = Cluster(k=3)(graph, data if with_data else None)
    x, now = graph.tensors["weight"].detach()[0], result.base_state_dict()["weight"][0]
    weight = torch.cat([args[0] for args, _ in data]).square().sum(0) if with_data else torch.ones(14)
    got = float((weight.double() * (x - now).double() ** 2).sum())
    best = best_error(x, weight, 3)
    assert len(now.unique()) == 3
    assert best * (1 - 1e-6) <= got <= 1.3 * best  # Lloyd's steps from three starts; the optimum is not promised


@pytest.mark.long
@pytest.mark.parametrize(
    ("k", "each"), [(16, "tensor"), (5, "tensor"), (4, "channel"), (256, "tensor"), (2, "channel")]
)
@pytest.mark.parametrize("make", [mlp, convnet, attention])
def test_no_more_than_k_numbers(make, k: int, each: str) -> None:
    graph = make()
    result = Cluster(k=k, each=each)(graph, items(graph))
    for name, value in result.base_state_dict().items():
        if "weight" in name and value.dim() > 1:
            groups = [value] if each == "tensor" else list(value)
            assert all(len(group.unique()) <= k for group in groups)


def test_error_falls_with_k_and_data_helps() -> None:
    graph = attention()
    data = items(graph, 8)
    errors = [error(graph, Cluster(k=k)(graph, data)) for k in (4, 16, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < error(graph, Cluster(k=16)(graph))


def test_plan_says_the_bytes() -> None:
    graph = mlp()
    step = Cluster(k=16, where="path('0')").plan(graph)[0]
    assert step.action == "weight to lut4@tensor"
    assert step.bytes_after == 16 * 32 // 2 + 16 * 4
    with pytest.raises(OptionError, match="already"):
        Cluster().plan(Cluster()(graph))


def test_masked_zeros_stay() -> None:
    graph = mlp()
    result = Cluster(k=8)(Prune(0.5)(graph), items(graph))
    weight = result.base_state_dict()["0.weight"]
    assert abs(float((weight == 0).float().mean()) - 0.5) < 0.02
    assert len(weight.unique()) <= 8


def test_codebooks_train() -> None:
    graph = Cluster(k=4)(mlp(), items(mlp()))
    module = graph.module()
    (x,), _ = items(mlp())[0]
    module(x).square().sum().backward()
    learned = {name: p.grad for name, p in module.named_parameters() if "codebook" in name and p.grad is not None}
    assert len(learned) == 2
    assert all(float(grad.abs().sum()) > 0 for grad in learned.values())


def test_saves_and_loads(tmp_path: Path) -> None:
    graph = Cluster(k=6, each="channel", codebook="float16")(attention(), items(attention()))
    graph.save(tmp_path / "m.planish")
    (x,), _ = items(graph)[0]
    assert torch.equal(Graph.load(tmp_path / "m.planish")(x), graph(x))


OTHERS = {
    "prune": Prune("50%", where="linear"),
    "smooth": Smooth(alpha=0.5),
    "correct": Correct(rank=2),
    "lora": Adapt(2),
}


@pytest.mark.long
@pytest.mark.parametrize("name", OTHERS)
def test_composes(name: str, tmp_path: Path) -> None:
    graph = attention()
    for place, order in enumerate(([Cluster(8), OTHERS[name]], [OTHERS[name], Cluster(8)])):
        if isinstance(order[0], Correct) or isinstance(order[1], Smooth):
            continue  # the one corrects what was rounded before it; the other comes before rounding
        (tmp_path / str(place)).mkdir()
        contract.applied(graph, order, items(graph), tmp_path / str(place))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"k": 1}, "2 to 256"), ({"k": 257}, "2 to 256"), ({"each": "row"}, "each"), ({"codebook": "flaot"}, "flaot")],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Cluster(**options)


# Binary and ternary networks are formats ------------------------------------------------------------------------------


def test_binary_weights_are_xnor_nets() -> None:
    """arXiv 1603.05279, equation 6: the sign times the mean magnitude of the filter."""
    graph = mlp()
    weight = graph.tensors["0.weight"].detach()
    expected = torch.where(weight >= 0, 1.0, -1.0) * weight.abs().mean(1, keepdim=True)
    assert torch.allclose(Quantize(weights="binary")(graph).base_state_dict()["0.weight"], expected, atol=1e-6)


def test_ternary_weights_are_twns() -> None:
    """arXiv 1605.04711, equations 3, 5 and 6: the mean of what is above 0.7 times the mean magnitude."""
    graph = mlp()
    weight = graph.tensors["0.weight"].detach()
    got = Quantize(weights="ternary")(graph).base_state_dict()["0.weight"]
    large = weight.abs() > 0.7 * weight.abs().mean(1, keepdim=True)
    scale = (weight.abs() * large).sum(1, keepdim=True) / large.sum(1, keepdim=True)
    assert torch.allclose(got.abs().amax(1, keepdim=True), scale, atol=1e-6)
    paper = torch.where(large, weight.sign() * scale, torch.zeros(()))
    assert float((weight - got).square().sum()) <= float((weight - paper).square().sum())


@pytest.mark.parametrize("weights", ["binary", "ternary", "binary2"])
@pytest.mark.parametrize("activations", ["int8", "ternary@tensor~dynamic", "binary@tensor~dynamic"])
def test_binary_and_ternary_networks_run_and_train(weights: str, activations: str) -> None:
    graph = convnet()
    result = Quantize(weights=weights, activations=activations)(graph, items(graph))
    module = result.module()
    (x,), _ = items(graph)[0]
    loss = module(x).square().sum()
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in module.parameters())
