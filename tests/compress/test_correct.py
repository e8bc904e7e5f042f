"""Correct: the papers' equations, budgets, and every kind of layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from planish.analysis import weights
from planish.compress import Quantize, Smooth
from planish.compress.correct import Correct
from planish.compress.factors import DAMPING, allocate
from planish.compress.original import original
from planish.errors import OptionError
from planish.frontends import capture
from planish.graph import Graph
from planish.recipe import Recipe
from tests.compress.models import attention, convnet, error, items

MXFP4 = Quantize("mxfp4", where="linear | conv")


def layer(width: int = 24, out: int = 16) -> tuple[Graph, list, np.ndarray, np.ndarray]:
    """One linear layer, data with channels that go together, and both as float64."""
    torch.manual_seed(0)
    graph = capture(nn.Sequential(nn.Linear(width, out)), (torch.randn(4, width),))
    mix = torch.randn(width, width)
    data = [((torch.randn(4, width) @ mix,), {}) for _ in range(40)]
    return graph, data, torch.cat([args[0] for args, _ in data]).double().numpy(), numbers(graph.tensors["0.weight"])


def numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def truncated(matrix: np.ndarray, rank: int) -> np.ndarray:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return left[:, :rank] * values[:rank] @ right[:rank]


def qera(lost: np.ndarray, rows: np.ndarray, rank: int) -> np.ndarray:
    """Theorem 1 of arXiv 2410.06040, with the symmetric root."""
    moments = rows.T @ rows / len(rows)
    values, vectors = np.linalg.eigh(moments + DAMPING * np.diag(moments).mean() * np.eye(len(moments)))
    root = vectors * np.sqrt(values) @ vectors.T
    return truncated(lost @ root, rank) @ np.linalg.inv(root)


def lqer(lost: np.ndarray, rows: np.ndarray, rank: int) -> np.ndarray:
    """Section 3.2 of arXiv 2402.02446."""
    mean = np.abs(rows).mean(0)
    scale = mean / np.sqrt(mean.min() * mean.max())
    return truncated(lost * scale, rank) / scale


@pytest.mark.parametrize(
    ("by", "equation"), [("qera", qera), ("lqer", lqer), ("svd", lambda lost, _, rank: truncated(lost, rank))]
)
def test_the_correction_is_that_of_the_paper(by, equation):
    graph, data, rows, exact = layer()
    small = Quantize("mxfp4")(graph)
    corrected = Correct(rank=5, by=by, factors=None)(small, data)
    rounded = numbers(small.base_state_dict()["0.weight"])
    product = numbers(corrected.tensors["0.weight__b"]) @ numbers(corrected.tensors["0.weight__a"])
    np.testing.assert_allclose(product, equation(exact - rounded, rows, 5), atol=1e-5)
    np.testing.assert_allclose(numbers(corrected.base_state_dict()["0.weight"]), rounded + product, atol=1e-6)


@pytest.mark.parametrize("factors", ["mxint8", "int8", "mxfp4", "nvfp4", None])
def test_each_norm_and_a_second_rounding_help(factors):
    graph = attention()
    data = items(graph, 16)

    def lost(**options) -> float:
        return error(graph, Recipe(MXFP4, Correct(rank=6, factors=factors, **options))(graph, data))

    plain, second = lost(), lost(rounds=1)
    assert second < 0.85 * plain < 0.85 * 0.7 * lost(by="svd") < 0.85 * 0.7 * error(graph, MXFP4(graph))


def test_a_budget_of_bits_is_kept_and_spent_better_than_evenly():
    graph = attention()
    data = items(graph, 16)
    even = Recipe(MXFP4, Correct(rank=4))(graph, data)
    beside = {small: sum(weight.nbytes for weight in weights(small)) for small in (MXFP4(graph), even)}
    plain, evenly = beside.values()
    count = sum(weight.shape[0] * weight.shape[1] for weight in weights(even))
    budget = 8 * (evenly - plain) / count
    spread = Recipe(MXFP4, Correct(bits=budget))(graph, data)
    assert sum(weight.nbytes for weight in weights(spread)) <= evenly
    assert len({weight.rank for weight in weights(spread)}) > 1
    assert error(graph, spread) < 1.05 * error(graph, even)


def test_ranks_are_the_best_that_a_budget_buys():
    gains = {"a": torch.tensor([9.0, 4.0, 1.0]), "b": torch.tensor([8.0, 3.0, 2.0])}
    assert allocate(gains, {"a": 1, "b": 1}, 3) == {"a": 2, "b": 1}
    assert allocate(gains, {"a": 1, "b": 4}, 4) == {"a": 3, "b": 0}
    assert allocate(gains, {"a": 2, "b": 3}, 1) == {"a": 0, "b": 0}


def test_convolutions_and_transposed_weights():
    graph = convnet()
    data = items(graph, 8)
    small = Recipe(MXFP4, Correct(rank=4, where="conv | linear"))(graph, data)
    corrected = {weight.name for weight in weights(small) if weight.rank}
    assert corrected == {"0.weight", "4.weight"}  # the other convolution has groups
    assert error(graph, small) < error(graph, MXFP4(graph))

    class Addmm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(24, 16)), nn.Parameter(torch.zeros(16))

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.bias, x, self.weight)

    linear, data, _, exact = layer()
    stored = capture(Addmm(), (torch.randn(4, 24),))
    stored = stored.replace(tensors={**stored.tensors, "weight": nn.Parameter(torch.tensor(exact.T).float())})
    mx = [Recipe(Quantize(text), Correct(rank=3, factors="int8")) for text in ("mxfp4", "mxfp4@g32axis0")]
    one, other = (recipe(graph, data).base_state_dict() for recipe, graph in zip(mx, (linear, stored), strict=True))
    torch.testing.assert_close(one["0.weight"], other["weight"].T, atol=1e-4, rtol=1e-4)


def test_what_was_lost_is_told_from_the_start_unless_other_units_hide_it():
    graph, data, _, exact = layer()
    gptq = Recipe(Quantize("mxfp4", by="gptq"), Correct(rank=16, by="svd", factors=None))(graph, data)
    np.testing.assert_allclose(numbers(gptq.base_state_dict()["0.weight"]), exact, atol=1e-5)
    smooth = Smooth(0.5)(graph, data)
    small = Quantize("mxfp4")(smooth).replace(origin=graph)
    (node,) = (node for node in small.nodes if node.op == "linear")
    assert torch.equal(original(node), smooth.tensors["0.weight"])


def test_bad_input():
    graph = attention()
    with pytest.raises(OptionError, match="behind Quantize"):
        Correct(rank=2).plan(graph)
    for options, match in [({}, "either"), ({"rank": 2, "bits": 1.0}, "either"), ({"rank": 0}, "rank 1"),
                           ({"rank": 1, "by": "pca"}, "norm"), ({"bits": -1.0}, "budget")]:  # fmt: skip
        with pytest.raises(OptionError, match=match):
            Correct(**options)
    with pytest.raises(OptionError, match="do not buy"):
        Correct(bits=0.01)(MXFP4(graph), items(graph))
