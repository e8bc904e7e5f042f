"""Adapt: equal outputs, only adapters learn, the papers' expressions."""

from __future__ import annotations

import pytest
import torch

from planish.compress import Quantize
from planish.compress.adapt import Adapt
from planish.errors import OptionError
from planish.graph import Graph
from planish.recipe import Recipe
from tests.compress.models import attention, convnet, error


def moved(graph: Graph, seed: int = 0) -> Graph:
    """With adapters as training might leave them."""
    generator = torch.Generator().manual_seed(seed)
    tensors = dict(graph.tensors)
    for name in (name for name in tensors if tensors[name].requires_grad):
        old = tensors[name].detach()
        tensors[name] = torch.nn.Parameter(old + 0.05 * torch.randn(old.shape, generator=generator))
    return graph.replace(tensors=tensors)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("before", [(), (Quantize("nf4@g32", where="linear"),)])
def test_only_adapters_learn_and_outputs_start_equal(kind, before):
    graph = attention()
    small = Recipe(*before)(graph) if before else graph
    adapted = Adapt(rank=3, kind=kind)(small)
    assert error(small, adapted) < 1e-6
    assert all(tensor.requires_grad for name, tensor in small.tensors.items() if name in small.parameter_names)
    net = adapted.module()
    net(*graph.example[0]).square().sum().backward()
    learning = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert learning == {name for name in adapted.tensors if name.endswith(("__a", "__b", "__m"))}
    assert len(learning) == (3 if kind == "dora" else 2) * 6
    assert net.get_parameter("up.weight__b").grad.abs().sum() > 0


def test_the_weight_is_that_of_the_papers():
    graph = attention()
    for kind in ("lora", "dora"):
        adapted = moved(Adapt(rank=3, kind=kind, alpha=6.0, where="path('up')")(graph))
        w, b, a = (adapted.tensors[f"up.{name}"].detach().double() for name in ("weight", "weight__b", "weight__a"))
        wanted = w + 6.0 / 3 * b @ a  # arXiv 2106.09685, section 4.1
        if kind == "dora":  # arXiv 2402.09353, equation 5
            wanted = adapted.tensors["up.weight__m"].detach() * wanted / wanted.norm(dim=1, keepdim=True)
        torch.testing.assert_close(adapted.base_state_dict()["up.weight"].double(), wanted, atol=1e-5, rtol=1e-5)


def test_the_norm_counts_as_constant():
    """Arxiv 2402.09353, equation 11: the gradient of the direction is that of the weight times m / norm."""
    graph = attention()
    adapted = moved(Adapt(rank=3, kind="dora", where="path('down')")(graph))
    net = adapted.module()
    net(*graph.example[0]).square().sum().backward()
    b, a, m = (net.get_parameter(f"down.weight__{name}") for name in "bam")
    weight = adapted.base_state_dict()["down.weight"].clone().requires_grad_()
    plain = dict(graph.module().named_parameters())
    plain["down.weight"] = weight
    torch.func.functional_call(graph.module(), plain, graph.example[0]).square().sum().backward()
    direction = adapted.tensors["down.weight"].detach() + 16 / 3 * b.detach() @ a.detach()
    wanted = 16 / 3 * (weight.grad * (m.detach() / direction.norm(dim=1, keepdim=True))) @ a.detach().T
    torch.testing.assert_close(b.grad, wanted, atol=1e-3, rtol=1e-3)


def test_any_layer_twice_saved_and_loaded(tmp_path):
    graph = convnet()
    twice = moved(Recipe(Adapt(rank=2, where="conv | linear"), Adapt(rank=1, kind="dora", where="conv"))(graph))
    assert {"0.weight__a", "0.weight_1__a"} <= twice.tensors.keys()
    assert not twice.tensors["0.weight__a"].requires_grad
    twice.save(tmp_path / "x.planish")
    again = Graph.load(tmp_path / "x.planish")
    assert torch.equal(again(*graph.example[0]), twice(*graph.example[0]))
    assert again.tensors["0.weight_1__a"].requires_grad
    assert not again.tensors["0.weight"].requires_grad
    assert len(Adapt(rank=2, where="conv | linear").plan(graph)) == 3


def test_bad_input():
    for options in ({"rank": 0}, {"kind": "ia3"}, {"alpha": 0}):
        with pytest.raises(OptionError):
            Adapt(**options)
    with pytest.raises(OptionError, match="matches nothing"):
        Adapt(where="path('nothing')").plan(attention())
