"""Balance: equal outputs wherever the matrices go, geometric means of the two moments, and less error in few bits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from planish.compress import Balance, Prune, Quantize, Rotate
from planish.compress.balance import _geometric_mean
from planish.compress.hadamard import rotation
from planish.errors import DataError, OptionError
from planish.frontends import capture
from planish.graph import Graph, Pass
from planish.recipe import Recipe
from tests.compress.models import attention, error, items


def wide(rows: int = 64, channels: int = 64) -> tuple[Graph, list[tuple[tuple[Tensor], dict[str, Tensor]]]]:
    """A layer that reads channels with means, of very different sizes, and that have much in common."""
    torch.manual_seed(0)
    mixing = torch.randn(channels, channels) * torch.logspace(-1, 1, channels)
    data = [((torch.randn(rows, channels) @ mixing + 3 * mixing.sum(0),), {}) for _ in range(8)]
    first = nn.Linear(channels, 2 * channels)
    first.weight.data /= 40
    net = nn.Sequential(first, nn.Tanh(), nn.Linear(2 * channels, 16))
    return capture(net.eval(), data[0][0], {"input": {0: "batch"}}), data


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 12))
def test_the_matrices_are_geometric_means(seed, size):
    torch.manual_seed(seed)
    of_x, of_g = (each @ each.mT for each in torch.randn(2, 3, size, 2 * size, dtype=torch.float64))
    metric = _geometric_mean(of_x, of_g)
    torch.testing.assert_close(metric @ of_x @ metric, of_g)  # Riccati's equation, which has one positive solution
    torch.testing.assert_close(metric, metric.mT)
    assert float(torch.linalg.eigvalsh(metric).min()) > 0


def test_no_other_matrix_leaves_a_smaller_product_of_energies():
    torch.manual_seed(0)
    of_x, of_g = (each @ each.mT for each in torch.randn(2, 1, 6, 9, dtype=torch.float64))

    def product(matrix: Tensor) -> float:
        inverse = torch.linalg.inv(matrix)
        return float((matrix @ of_x[0] @ matrix.T).trace() * (inverse.T @ of_g[0] @ inverse).trace())

    values, vectors = torch.linalg.eigh(_geometric_mean(of_x, of_g)[0])
    best = product(vectors * values.sqrt() @ vectors.T)
    assert best < 0.9 * product(torch.eye(6, dtype=torch.float64))
    for _ in range(50):
        assert product(vectors * values.sqrt() @ vectors.T + 0.1 * torch.randn(6, 6, dtype=torch.float64)) >= best


class Pair(nn.Module):
    """Two layers that read the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(channels, 6), nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([3 * self.left(x), self.right(x)], -1)


def test_the_moments_are_those_of_the_paper_weighed_by_each_other():
    """Outputs are `y = W x + b`, so that gradients of a row's random projections are `W' n / |y|`: all is known."""
    torch.manual_seed(0)
    size = 8
    net = Pair(size).eval()
    long, short = (torch.randn(8, 500, size) * torch.rand(8, 1, size) + torch.rand(size) for _ in range(2))
    items = [((torch.cat([20 * a, b]),), {}) for a, b in zip(long, short, strict=True)]
    graph = capture(net, items[0][0], {"x": {0: "batch"}})
    balanced = Balance(size)(graph, items)

    x = torch.cat([args[0] for args, _ in items]).double()
    weight = torch.cat([3 * net.left.weight, net.right.weight]).detach().double()
    bias = torch.cat([3 * net.left.bias, net.right.bias]).detach().double()
    squares = (x @ weight.T + bias).square().sum(1, keepdim=True)
    mean = (x / squares).sum(0) / (1 / squares).sum()
    of_x = ((x - mean) / squares).T @ (x - mean)
    of_g = (x.square().sum(1, keepdim=True) / squares).sum() * weight.T @ weight
    expected = _geometric_mean(of_x[None], of_g[None])[0]

    (forward,) = (balanced.tensors[name].double() for name in balanced.tensors if name.endswith("__h"))
    (shift,) = (balanced.tensors[name].double() for name in balanced.tensors if name.endswith("__shift"))
    found = forward @ forward.T
    assert torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.998  # 8,000 random rows, and damping
    assert (torch.linalg.solve(forward.T, -shift) - mean).norm() < 0.05 * mean.norm()
    root = forward @ rotation(size, 0).T
    torch.testing.assert_close(root, root.T, atol=1e-5, rtol=1e-4)  # what is left is spread by the rotation

    def energy(graph: Graph) -> float:
        return sum(float(graph.tensors[f"{name}.weight"].detach().square().sum()) for name in ("left", "right"))

    assert energy(balanced) == pytest.approx(energy(graph), rel=1e-4)


@pytest.mark.parametrize("block", [2, 8, 16, 24])
def test_outputs_stay(block):
    graph = attention()  # its norms are read by the residual, too
    balanced = Balance(block=block)(graph, items(graph))
    assert error(graph, balanced) < 1e-5
    products = [node.path for node in balanced.nodes if node.op == "matmul"]
    assert products == ["query", "up", "down"]  # what attention makes of values is balanced in these
    assert not torch.equal(balanced.tensors["value.weight"], graph.tensors["value.weight"])
    plan = " ".join(step.action for step in Balance(block=block).plan(graph))
    assert "in value" in plan
    assert "by a product in front" in plan
    assert [node.op for node in Balance(block=block).draft(graph).nodes] == [node.op for node in balanced.nodes]


def test_less_error_than_by_a_rotation():
    graph, data = wide()
    quantize = Quantize("mxfp4", "mxfp4~dynamic", where="linear", by="gptq", correct_bias=True)

    def off(*steps: Pass) -> float:
        small = Recipe(*steps, quantize)(graph, data=data[:4])
        return sum(float((small(*args) - graph(*args)).square().mean()) for args, _ in data[4:])

    assert off(Balance()) < 0.6 * off(Rotate(block=32))


def test_a_layer_without_a_bias_is_not_centered_and_rows_may_be_few():
    torch.manual_seed(0)
    graph = capture(nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 3)).eval(), (torch.randn(2, 8),))
    balanced = Balance()(graph, [((torch.randn(2, 8),), {})])
    assert not any(name.startswith("0.input") and name.endswith("shift") for name in balanced.tensors)
    assert any(name.startswith("2.input") and name.endswith("shift") for name in balanced.tensors)
    x = torch.randn(2, 8)
    torch.testing.assert_close(balanced(x), graph(x), rtol=1e-4, atol=1e-4)


def test_a_channel_that_is_always_zero_stays():
    graph, data = wide()
    data = [((args[0] * (torch.arange(64) < 20),), {}) for args, _ in data]
    assert float((Balance()(graph, data)(*data[0][0]) - graph(*data[0][0])).abs().max()) < 1e-3


def test_what_is_refused():
    graph = attention()
    with pytest.raises(OptionError, match="2 channels or more"):
        Balance(block=1)
    with pytest.raises(OptionError, match="can be balanced"):
        Recipe(Prune("50%", where="linear"), Balance()).plan(graph)
    with pytest.raises(DataError, match="no calibration data"):
        Balance()(graph)

    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores, self.names = nn.Linear(4, 5), nn.Embedding(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.names(self.scores(x).argmax(-1))

    chosen = capture(Chosen().eval(), (torch.randn(2, 4),))
    with pytest.raises(DataError, match="no gradient of the outputs reaches"):
        Balance()(chosen, [((torch.randn(2, 4),), {})])


def test_blocks_grow_as_far_as_a_share_of_the_work_allows():
    graph = attention()

    def sizes(share: float | None) -> list[int]:
        return [int(step.action.split()[5]) for step in Balance(8, share).plan(graph)]

    known = {node.path: node for node in graph.nodes if node.op == "linear"}
    width = int(known["up"].value.shape[-1])
    assert set(sizes(None)) == {8}
    assert max(sizes(1.0)) > 8
    assert error(graph, Balance(8, 1.0)(graph, items(graph))) < 1e-5
    for step, size in zip(Balance(8, 0.5).plan(graph), sizes(0.5), strict=True):
        if "up" in step.path:
            assert size <= 0.5 * width
    with pytest.raises(OptionError, match="a share is above 0"):
        Balance(share=0.0)


def test_the_same_seed_gives_the_same_matrices():
    graph, data = wide()
    first, again, other = (Balance(seed=seed)(graph, data).tensors for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
