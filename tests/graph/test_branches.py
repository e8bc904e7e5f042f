"""Branches of `torch.cond`: their parameters belong to the graph, passes and files reach into them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from planish.errors import GraphError, PlanishError, UntrustedFile
from planish.formats import int8
from planish.frontends import capture
from planish.graph import Graph, ops
from planish.graph import path as at
from tests.graph.test_graph import tampered


class Deep(nn.Module):
    """Nested branches with parameters, dropout, buffers, a constant, and a weight that both branches share."""

    def __init__(self) -> None:
        super().__init__()
        self.yes, self.no = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), nn.Linear(4, 4)
        self.shared = nn.Linear(4, 4)
        self.register_buffer("shift", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        z = x * 2

        def outer(v: Tensor) -> Tensor:
            return torch.cond(
                v.mean() > 1,
                lambda w: self.yes(w) + torch.tensor([1.0, 2.0, 3.0, 4.0]),
                lambda w: self.shared(w).sin(),
                (v,),
            )

        return torch.cond(x.sum() > 0, outer, lambda v: self.shared(self.no(v)) * self.shift, (z,)) + 1


INPUTS = (torch.ones(3, 4), torch.full((3, 4), 0.1), -torch.ones(3, 4))


@pytest.fixture(scope="module")
def model() -> Deep:
    torch.manual_seed(0)
    return Deep().eval()


@pytest.fixture(scope="module")
def graph(model: Deep) -> Graph:
    return capture(model, (torch.randn(3, 4),), dynamic={"x": {0: "batch"}})


def test_steps_in_branches_are_seen(graph: Graph) -> None:
    assert {node.path for node in graph.select(ops.linear)} == {"yes.0", "no", "shared"}
    assert {node.module_type for node in graph.select(ops.linear)} == {"Linear"}
    layer = graph.select(ops.linear & at("no"))[0]
    assert layer.weight is not None
    assert layer.weight.tensor is graph.tensors["no.weight"]
    assert layer.weight.users == (layer,)
    assert layer.shape == ("batch", 4)
    assert graph.node(layer.name) == layer
    readers = {node.name for node in graph.select(ops.linear & at("shared"))}
    shared = graph.select(ops.linear & at("shared"))[0].weight
    assert shared is not None
    assert {node.name for node in shared.users} == readers
    assert layer.name in str(graph)
    assert {node.path for node in graph.nodes if node.op in ("cond", "dropout")} == {""}


def test_outputs_equal_saved_loaded_and_captured_again(graph: Graph, model: Deep, tmp_path: Path) -> None:
    graph.save(tmp_path / "c.planish")
    loaded = Graph.load(tmp_path / "c.planish")
    assert str(loaded) == str(graph)
    for each in (graph, loaded, loaded.recapture(), graph.edit().done()):
        assert set(each.module().state_dict()) == set(model.state_dict())
        for x in INPUTS:
            torch.testing.assert_close(each(x), model(x))
            torch.testing.assert_close(each.module(hierarchical=True)(x), model(x))


@pytest.mark.parametrize("hierarchical", [False, True])
def test_branches_train_in_both_modes(graph: Graph, model: Deep, hierarchical: bool) -> None:
    assert graph.training_refusal is None
    for training, x in ((True, INPUTS[0]), (False, INPUTS[2])):
        twin = Deep()
        twin.load_state_dict(model.state_dict())
        net = graph.module(hierarchical=hierarchical)
        for each in (net, twin):
            torch.manual_seed(1)
            each.train(training)(x).square().sum().backward()
        for name, parameter in twin.named_parameters():
            grad = net.get_parameter(name).grad
            torch.testing.assert_close(torch.zeros_like(parameter) if grad is None else grad, parameter.grad)


def test_a_weight_in_a_branch_is_cast_outside_and_an_activation_inside(graph: Graph, tmp_path: Path) -> None:
    layer = graph.select(ops.linear & at("no"))[0]
    edit = graph.edit()
    user = edit.node(layer.name)
    weight = user.weight
    assert weight is not None
    assert weight.tensor is not None
    scale = edit.add("no.weight__scale", int8.parameters(weight.tensor)[0])
    edit.cast(weight, user, int8, (scale,))
    product = edit.node(layer.users[0].name)
    dynamic = int8.per_token().dynamic()
    edit.cast(edit.node(layer.name), product, dynamic, ())
    changed = edit.done()
    of_weight, of_activation = sorted(changed.select(ops.cast), key=lambda node: node.fx.graph is not changed.fx)
    assert of_weight.fx.graph is changed.fx
    assert of_activation.fx.graph in changed.calls
    assert changed.node(layer.name).weight == of_weight
    assert of_weight.path == "no"
    changed.save(tmp_path / "q.planish")
    loaded = Graph.load(tmp_path / "q.planish")
    twin = Deep().eval()
    twin.load_state_dict(changed.base_state_dict())
    for x in INPUTS:
        torch.testing.assert_close(loaded(x), changed(x))
    x = INPUTS[2]
    torch.testing.assert_close(twin.no.weight, int8.cast(graph.tensors["no.weight"], (scale.tensor,)))
    product = dynamic.cast(twin.no(2 * x))
    torch.testing.assert_close(changed(x), twin.shared(product) * twin.shift + 1)
    changed.module().train()(x).sum().backward()


def test_replaced_steps_and_their_tensors_disappear(graph: Graph) -> None:
    edit = graph.edit()
    node = edit.node(graph.select(ops.linear & at("yes.0"))[0].name)
    edit.replace(node, node.inputs[0])
    smaller = edit.done()
    assert not any(name.startswith("yes.0") for name in smaller.tensors)
    assert "shared.weight" in smaller.tensors


def test_a_value_of_one_branch_is_not_read_in_another(graph: Graph) -> None:
    edit = graph.edit()
    yes, no = (edit.node(graph.select(ops.linear & at(name))[0].name) for name in ("yes.0", "no"))
    with pytest.raises(GraphError, match="computed in a branch"):
        edit.call(torch.ops.aten.add.Tensor, yes, no, before=no)


@pytest.mark.parametrize(
    "change",
    [
        lambda branches: branches["false_graph_0"]["nodes"][-2].update(target="os.system"),
        lambda branches: branches["false_graph_0"]["nodes"][-2].update(target="aten.from_file.default"),
        lambda branches: branches["false_graph_0"]["nodes"][-2].update(name="x; import os"),
        lambda branches: branches["false_graph_0"].update(nodes=[]),
        lambda branches: branches["false_graph_0"]["nodes"].pop(0),
        lambda branches: branches.pop("false_graph_0"),
        lambda branches: branches.update({"__class__": branches["false_graph_0"]}),
        lambda branches: _refer(branches["true_graph_0"], "true_graph_0"),
        lambda branches: _refer(branches["true_graph_0"], "shift"),
    ],
)
def test_a_file_with_damaged_branches_is_refused(graph: Graph, tmp_path: Path, change) -> None:
    with pytest.raises(PlanishError) as caught:
        Graph.load(tampered(graph, tmp_path, lambda document: change(document["branches"])))
    assert isinstance(caught.value, UntrustedFile | GraphError)


def _refer(branch: dict, name: str) -> None:
    """Let a branch hold something else than it does."""
    next(row for row in branch["nodes"] if row["op"] == "get_attr")["target"] = name
