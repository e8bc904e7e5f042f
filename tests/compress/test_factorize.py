"""Factorize: the papers' equations, chains that compute what they stand for, budgets."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from planish.analysis import analyze
from planish.compress import Quantize
from planish.compress.decompose import Choice, candidates, chain, least_loss, losses, product, sizes
from planish.compress.factorize import Factorize
from planish.compress.factors import DAMPING
from planish.errors import OptionError
from planish.frontends import capture
from planish.recipe import Recipe
from tests.compress.models import attention, convnet, error, items


def test_whitened_factors_are_those_of_the_paper():
    """Section 3.1 of arXiv 2403.07378: `S` is the Cholesky factor of `X X'`, what is cut off is what is lost."""
    torch.manual_seed(0)
    graph = capture(nn.Sequential(nn.Linear(24, 16)), (torch.randn(4, 24),))
    mix = torch.randn(24, 24)
    data = [((torch.randn(4, 24) @ mix,), {}) for _ in range(40)]
    small = Factorize(rank=5)(graph, data)
    rows = torch.cat([args[0] for args, _ in data]).double().numpy()
    weight = graph.tensors["0.weight"].detach().double().numpy()
    moments = rows.T @ rows / len(rows)
    moments += DAMPING * np.diag(moments).mean() * np.eye(24)
    root = np.linalg.cholesky(moments)
    left, values, right = np.linalg.svd(weight @ root)
    wanted = left[:, :5] * values[:5] @ right[:5] @ np.linalg.inv(root)
    found = (small.tensors["0.weight__b"] @ small.tensors["0.weight__a"]).detach().double().numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    off = weight - found
    assert math.isclose(np.trace(off @ moments @ off.T), (values[5:] ** 2).sum(), rel_tol=1e-4)
    assert [node.op for node in small.nodes] == ["linear", "linear"]


def test_tucker_and_cp_find_what_is_there():
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> Tensor:
        return torch.randn(size, dtype=torch.float64, generator=generator)

    tucker = torch.einsum("rskl,or,is->oikl", random(3, 2, 3, 3), random(8, 3), random(6, 2))
    cp = torch.einsum("or,ir,rkl->oikl", random(8, 3), random(6, 3), random(3, 3, 3))
    torch.testing.assert_close(product(chain("tucker", tucker, (3, 2))), tucker)
    torch.testing.assert_close(product(chain("cp", cp, (3,))), cp, atol=1e-2, rtol=1e-2)
    noisy = tucker + 0.1 * random(*tucker.shape)
    bound = sum(float(np.square(np.linalg.svd(flat.numpy())[1][rank:]).sum())
                for flat, rank in [(noisy.flatten(1), 2), (noisy.transpose(0, 1).flatten(1), 1)])  # fmt: skip
    assert float((product(chain("tucker", noisy, (2, 1))) - noisy).square().sum()) <= bound  # De Lathauwer, property 10


@pytest.mark.parametrize("kind", ["svd", "tucker", "cp"])
def test_losses_fall_with_ranks_and_are_those_of_the_chains(kind):
    weight = torch.randn(12, 8, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ranks = candidates(kind, tuple(weight.shape))
    found = losses(kind, weight, ranks)
    assert all(sum(map(math.prod, sizes(kind, (12, 8, 3, 3), each))) < weight.numel() for each in ranks)
    assert all(one <= other + 0.02 for one, other in pairwise(found))
    middle = ranks[len(ranks) // 2]
    left = product(chain(kind, weight, middle)) - weight
    assert math.isclose(found[len(ranks) // 2], float(left.square().sum() / weight.square().sum()), rel_tol=1e-6)


@pytest.mark.parametrize("kind", ["svd", "tucker", "cp"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_chain_computes_what_it_stands_for(kind, axes):
    torch.manual_seed(0)
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](6, 10, 3, stride=2, padding=1, dilation=2)
    x = torch.randn(2, 6, *[9] * axes)
    small = Factorize(share=0.5, convolution=kind, by="svd")(capture(nn.Sequential(conv), (x,)))
    parts = [
        small.tensors[f"0.weight{end}"].detach()
        for end in (("__a", "__b") if kind == "svd" else ("__a", "__core", "__b"))
    ]
    with torch.no_grad():
        conv.weight.copy_(product(parts))
        torch.testing.assert_close(small(x), conv(x), atol=1e-5, rtol=1e-4)
    assert sum(part.numel() for part in parts) <= conv.weight.numel() / 2


def test_words_for_padding_and_kernels_of_one():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding="same"), nn.Conv2d(8, 8, 1, stride=2))
    graph = capture(model, (torch.randn(1, 8, 6, 6),))
    small = Factorize(share=0.6)(graph, items(graph))
    assert small.tensors["0.weight__core"].dim() == 4
    assert set(small.tensors) >= {"1.weight__a", "1.weight__b"}
    assert small(torch.randn(1, 8, 6, 6)).shape == (1, 8, 3, 3)


def test_goals_are_met():
    graph = attention()
    data = items(graph, 16)
    whole = sum(node.weight.value.numel() for node in graph.nodes if node.weight is not None)

    def left(**options) -> tuple[int, float]:
        small = Factorize(**options)(graph, data)
        return sum(node.weight.value.numel() for node in small.nodes if node.weight is not None), error(graph, small)

    assert left(budget=0.5)[0] <= 0.5 * whole
    assert left(share=0.5)[0] <= 0.5 * whole
    costs, errors = zip(*(left(energy=energy) for energy in (0.5, 0.7, 0.9)), strict=True)
    assert sorted(costs) == list(costs)
    assert sorted(errors, reverse=True) == list(errors)
    assert left(rank=6)[1] < 0.7 * left(rank=6, by="svd")[1]
    macs = Factorize(budget=0.5, cost="macs", by="svd")
    images = convnet()
    whole, less = (analyze(one).total.macs for one in (images, macs(images)))
    grouped = 8 * 4 * 9 * 16  # a convolution in groups stays
    assert less - grouped <= 0.5 * (whole - grouped)


def test_the_best_choices_for_a_budget():
    choices = {"a": [Choice((), 8, 0.0), Choice((2,), 4, 0.1), Choice((1,), 2, 0.5)],
               "b": [Choice((), 8, 0.0), Choice((1,), 2, 0.9)]}  # fmt: skip
    assert [choice.cost for choice in least_loss(choices, 12).values()] == [4, 8]
    assert [choice.cost for choice in least_loss(choices, 7).values()] == [4, 2]
    with pytest.raises(OptionError, match="costs more"):
        least_loss(choices, 3)


def test_thin_layers_are_layers_like_others(tmp_path):
    graph = attention()
    data = items(graph, 8)
    recipe = Recipe(Factorize(budget=0.6), Quantize("int8", "uint8", by="gptq"))
    assert "weight__a to int8" in str(recipe.plan(graph))
    small = recipe(graph, data)
    assert error(graph, small) < 1.1 * error(graph, recipe.steps[0](graph, data))
    net = small.module()
    net(*graph.example[0]).sum().backward()
    assert all(net.get_parameter(name).grad is not None for name in small.parameter_names if name.endswith("__a"))
    small.save(tmp_path / "small.planish")
    again = type(graph).load(tmp_path / "small.planish")
    assert torch.equal(again(*graph.example[0]), small(*graph.example[0]))


def test_bad_input():
    graph = attention()
    for options, match in [({}, "one goal"), ({"rank": 2, "share": 0.5}, "one goal"), ({"rank": 0}, "rank 1"),
                           ({"share": 1.5}, "between 0 and 1"), ({"rank": 2, "by": "pca"}, "unknown by"),
                           ({"rank": 2, "convolution": "tt"}, "unknown convolution")]:  # fmt: skip
        with pytest.raises(OptionError, match=match):
            Factorize(**options)
    with pytest.raises(OptionError, match="before Quantize"):
        Factorize(rank=4).plan(Quantize("int8")(graph))
    with pytest.raises(OptionError, match="lower rank"):
        Factorize(rank=30).plan(graph)
    with pytest.raises(OptionError, match="lower energy"):
        Factorize(energy=0.99999, by="svd")(graph)
