"""An edited graph exported again is the same model in normal form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from planish.frontends import capture
from planish.graph import Graph, ops, path
from tests.graph.test_graph import quantized
from tests.graph.test_hierarchy import IDS, Model


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    graph = capture(Model().eval(), (IDS,), dynamic={"ids": {0: "batch", 1: "tokens"}})
    return quantized(graph, graph.select(ops.linear & path("head"))[0])


def test_everything_stays(graph: Graph) -> None:
    again = graph.recapture()
    for ids in (IDS, IDS[:1, :3]):
        for name, expected in graph(ids).items():
            torch.testing.assert_close(again(ids)[name], expected)
    assert [(node.op, node.path, node.module_type, node.shape) for node in again.nodes] == [
        (node.op, node.path, node.module_type, node.shape) for node in graph.nodes
    ]
    assert again.tensors.keys() == graph.tensors.keys()
    assert all(again.tensors[name] is tensor for name, tensor in graph.tensors.items())
    assert (again.buffers, again.dynamic, again.training_refusal) == (graph.buffers, graph.dynamic, None)
    assert again.inputs[0].shape == ("batch", "tokens")


def test_it_trains_as_before(graph: Graph) -> None:
    state = []
    for each in (graph, graph.recapture()):
        torch.manual_seed(1)
        net = each.module().train()
        net(IDS)["logits"].square().mean().backward()
        state.append((net.state_dict(), {name: p.grad for name, p in net.named_parameters(remove_duplicate=False)}))
    for mine, theirs in zip(*state, strict=True):
        assert mine.keys() == theirs.keys()
        for name, tensor in mine.items():
            torch.testing.assert_close(theirs[name], tensor)


def test_a_refusal_to_train_stays() -> None:
    graph = capture(nn.Linear(2, 2).eval(), (torch.randn(3, 2),), training=False)
    assert graph.recapture().training_refusal is graph.training_refusal


class Structured(nn.Module):
    def forward(self, x: Tensor, pair: tuple[Tensor, dict[str, Tensor]], *, gain: Tensor) -> list[Tensor]:
        return [x * pair[0], pair[1]["a"] + gain]


def test_structures_stay() -> None:
    t = torch.randn(2, 3)
    graph = capture(
        Structured(),
        ((t, (t, {"a": t})), {"gain": t}),
        dynamic={"pair": {0: "batch"}, "x": {0: "batch"}, "gain": {0: "batch"}},
    )
    again = graph.recapture()
    x = torch.randn(5, 3)
    for mine, theirs in zip(again(x, (x, {"a": x}), gain=x), graph(x, (x, {"a": x}), gain=x), strict=True):
        torch.testing.assert_close(mine, theirs)
