"""Passes and analysis on what a graph can be: the module tree of a quantized graph, and branches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from planish.analysis import analyze
from planish.compress import Quantize
from planish.errors import PlanishError
from planish.frontends import capture
from planish.graph import Graph, ops
from planish.rewrite import Canonicalize, FoldBatchNorm, FoldConstants
from tests.graph.test_branches import INPUTS, Deep
from tests.graph.test_hierarchy import IDS, Model


@pytest.fixture(scope="module")
def tree() -> Graph:
    torch.manual_seed(0)
    graph = capture(Model().eval(), (IDS,), dynamic={"ids": {0: "batch"}})
    return Quantize(weights="int8", activations="int8~dynamic")(graph)


@pytest.fixture(scope="module")
def branches() -> Graph:
    torch.manual_seed(0)
    return capture(Deep().eval(), (torch.randn(3, 4),), dynamic={"x": {0: "batch"}})


def test_a_quantized_graph_has_the_users_tree(tree: Graph) -> None:
    net, model = tree.module(hierarchical=True), Model()
    assert {name for name, _ in net.named_modules()} == {name for name, _ in model.named_modules()}
    assert {name for name in net.state_dict() if "__" not in name} == set(model.state_dict())
    query = net.encoder.layer[0].attention.query
    assert set(dict(query.named_buffers())) == {"weight__scale"}
    shapes = []
    query.register_forward_hook(lambda _module, _inputs, result: shapes.append(result.shape))
    torch.testing.assert_close(net(IDS)["logits"], tree(IDS)["logits"])
    assert shapes == [(2, 4, 8)]
    net.train()(IDS)["logits"].square().mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_layers_in_branches_are_quantized(branches: Graph, tmp_path: Path) -> None:
    quantize = Quantize(weights="int8", activations="int8~dynamic")
    assert {step.path for step in quantize.plan(branches)} == {"yes.0", "no", "shared"}
    small = quantize(branches)
    layers = small.select(ops.linear)
    assert len(layers) == 4
    assert all(layer.weight is not None and layer.weight.op == "cast" for layer in layers)
    assert len([node for node in small.select(ops.cast) if node.inputs[0].kind == "tensor"]) == 3  # one is shared
    small.save(tmp_path / "q.planish")
    twin = Deep().eval()
    twin.load_state_dict(small.base_state_dict())
    weights_only = Quantize(weights="int8")(branches)
    for x in INPUTS:
        torch.testing.assert_close(Graph.load(tmp_path / "q.planish")(x), small(x))
        torch.testing.assert_close(weights_only(x), twin(x))
    small.module(hierarchical=True).train()(INPUTS[2]).sum().backward()


def test_what_cannot_be_calibrated_in_a_branch_says_so(branches: Graph) -> None:
    data = [((x,), {}) for x in INPUTS]
    with pytest.raises(PlanishError, match=r"torch\.cond"):
        Quantize(weights="int8", activations="int8")(branches, data)


def test_exact_passes_reach_into_branches(branches: Graph) -> None:
    for rewrite in (FoldConstants(), FoldConstants(parameters=True), Canonicalize(), Canonicalize(keep_training=False)):
        for x in INPUTS:
            torch.testing.assert_close(rewrite(branches)(x), branches(x))
    assert "dropout" not in {node.op for node in Canonicalize(keep_training=False)(branches).nodes}
    with pytest.raises(PlanishError, match="matches nothing"):
        FoldBatchNorm()(branches)


def test_cost_counts_the_costlier_branch_and_all_weights(branches: Graph) -> None:
    cost = analyze(branches)
    assert cost.total.macs == 2 * 3 * 4 * 4
    assert cost.total.parameters == 3 * (4 * 4 + 4)
    assert cost.by_path()["no"].macs == 3 * 4 * 4
    small = analyze(Quantize(weights="int8")(branches))
    assert cost.total.weight_bytes - small.total.weight_bytes == 3 * (4 * 4 * 3 - 4 * 4)  # codes of a byte, 4 scales


class Masked(nn.Module):
    """A choice by a mask that the model holds, as graph networks make it from a fixed set of edges."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("edges", torch.tensor([[0, 1, 2, 2], [1, 1, 0, 2]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = self.edges[:, self.edges[0] != self.edges[1]]
        return x.index_select(0, kept[0]) * kept.shape[1]


def test_a_choice_by_a_constant_mask_folds_and_has_plain_sizes_when_captured_again() -> None:
    model, x = Masked(), torch.randn(3, 2)
    graph = FoldConstants()(capture(model, (x,))).recapture()
    torch.testing.assert_close(graph(x), model(x))
    assert "index" not in {node.op for node in graph.nodes}
    assert graph.outputs[0].shape == (2, 2)
