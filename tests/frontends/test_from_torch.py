"""What capture promises at its edges: names, sizes, both modes, branches, and errors that say where."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import nn

from planish.errors import ModelError
from planish.frontends import capture
from planish.graph import Graph


class Mixed(nn.Module):
    """Convolution, batch norm, dropout and a linear layer; a structured output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.dropout, self.head = nn.Dropout(0.5), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, gain: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        y = self.dropout(self.norm(self.conv(x)).relu()).mean((2, 3))
        y = y if gain is None else y * gain
        return {"logits": self.head(y), "features": y}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Mixed().eval()


def test_a_batch_of_one_becomes_dynamic(model: nn.Module) -> None:
    graph = capture(model, (torch.randn(1, 3, 8, 8),), dynamic={"x": {0: "batch"}})
    assert graph.inputs[0].shape == ("batch", 3, 8, 8)
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 8, 8)
        torch.testing.assert_close(graph(x), model(x))


@pytest.mark.parametrize(
    "example",
    [
        (torch.ones(2, 3, 8, 8), torch.ones(4)),
        {"x": torch.ones(2, 3, 8, 8), "gain": torch.ones(4)},
        ((torch.ones(2, 3, 8, 8),), {"gain": torch.ones(4)}),
    ],
    ids=["args", "kwargs", "both"],
)
def test_every_way_of_giving_inputs(model: nn.Module, example: object) -> None:
    graph = capture(model, example)
    x, gain = torch.randn(2, 3, 8, 8), torch.rand(4)
    torch.testing.assert_close(graph(x, gain=gain), model(x, gain))


def test_the_model_is_left_as_it_was(model: nn.Module) -> None:
    model.train()
    model.dropout.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    capture(model, (torch.randn(2, 3, 8, 8),))
    assert model.training
    assert not model.dropout.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_capture_copies_no_weight(model: nn.Module) -> None:
    graph = capture(model, (torch.randn(2, 3, 8, 8),))
    assert graph.tensors["head.weight"] is model.head.weight


def test_both_modes_equal_the_models(model: nn.Module) -> None:
    x = torch.randn(6, 3, 8, 8)
    net = capture(model, (x,)).module()
    for training in (True, False, True):
        net.train(training)
        model.train(training)
        torch.manual_seed(1)
        mine = net(x)
        torch.manual_seed(1)
        torch.testing.assert_close(mine, model(x))
    assert set(net.state_dict()) == set(model.state_dict())
    for name, tensor in model.state_dict().items():  # running statistics and their counter included
        torch.testing.assert_close(net.state_dict()[name], tensor)


def test_a_training_step_equals_the_models(model: nn.Module) -> None:
    x = torch.randn(6, 3, 8, 8)
    net = capture(model, (x,)).module().train()
    model.train()
    for each in (net, model):
        torch.manual_seed(3)
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
        each(x)["logits"].square().sum().backward()
        optimizer.step()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], tensor)


def test_training_the_module_leaves_the_graph(model: nn.Module) -> None:
    graph = capture(model, (torch.randn(2, 3, 8, 8),))
    before = model.head.weight.detach().clone()
    net = graph.module()
    with torch.no_grad():
        net.get_parameter("head.weight").zero_()
    assert torch.equal(graph.tensors["head.weight"], before)


def test_evaluation_only_says_so(model: nn.Module) -> None:
    graph = capture(model, (torch.randn(2, 3, 8, 8),), training=False)
    with pytest.raises(ModelError, match="evaluation only"):
        graph.module().train()


class OtherInTraining(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            x = x.exp()  # the line that differs
        return x.sin()


def test_other_differences_between_modes_are_refused_with_their_line() -> None:
    graph = capture(OtherInTraining(), (torch.ones(3),))
    torch.testing.assert_close(graph(torch.ones(3)), torch.ones(3).sin())
    with pytest.raises(ModelError, match="training and evaluation") as caught:
        graph.module().train()
    assert Path(__file__).name in caught.value.where


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:  # the line that depends on data
            return x.sin()
        return x.cos()


def test_a_branch_on_data_names_the_line_and_the_way_out() -> None:
    with pytest.raises(ModelError, match="only known at run time") as caught:
        capture(Branches(), (torch.ones(3),))
    assert f"{Path(__file__).name}:" in caught.value.where
    assert "if x.sum() > 0" in caught.value.where
    assert "torch.cond" in caught.value.hint


class Conditional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.yes, self.no = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda v: self.yes(v), lambda v: self.no(v), (x,))


def test_torch_cond_is_captured_and_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Conditional().eval()
    graph = capture(model, (torch.randn(3, 4),), training=False)
    graph.save(tmp_path / "c.planish")
    for x in (torch.ones(3, 4), -torch.ones(3, 4)):
        expected = model(x)
        torch.testing.assert_close(graph(x), expected)
        torch.testing.assert_close(Graph.load(tmp_path / "c.planish")(x), expected)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids))


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    graph = capture(Tied().eval(), (torch.tensor([[1, 2]]),))
    graph.save(tmp_path / "t.planish")
    for each in (graph, Graph.load(tmp_path / "t.planish")):
        net = each.module()
        assert len({id(p) for p in net.parameters()}) == 1


class Frozen(nn.Module):
    """A region without gradients, which torch exports as a sub-graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = self.first(x)
        return self.second(y)


def test_no_grad_regions_are_inlined_and_give_no_gradient() -> None:
    model = Frozen().eval()
    graph = capture(model, (torch.randn(2, 4),))
    assert [node.op for node in graph.nodes].count("linear") == 2
    net = graph.module().train()
    net(torch.randn(2, 4)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    assert gradients["first.weight"] is None
    assert gradients["second.weight"] is not None


def test_wrong_shape_names_the_line_that_fails(model: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"example inputs \(shapes \[\(2, 5, 8, 8\)\]") as caught:
        capture(model, (torch.randn(2, 5, 8, 8),))
    assert "self.conv(x)" in caught.value.where


@pytest.mark.parametrize(
    ("example", "dynamic", "message"),
    [
        ((), None, "do not fit forward"),
        ({"picture": torch.ones(2, 3, 8, 8)}, None, "do not fit forward"),
        (3, None, "a tuple, a dict"),
        ((torch.ones(2, 3, 8, 8),), {"y": {0: "batch"}}, "names no input"),
        ((torch.ones(2, 3, 8, 8),), {"x": {7: "batch"}}, "dynamic axis 7"),
        ((torch.ones(2, 3, 8, 8),), {"x": {1: "channels"}}, "dynamic is fixed by the model"),
    ],
)
def test_wrong_inputs(model: nn.Module, example: object, dynamic: dict | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        capture(model, example, dynamic=dynamic)


class Draws(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * random.choice([1.0, 1.0])


def test_python_values_are_baked_in() -> None:
    assert [node.op for node in capture(Draws(), (torch.ones(2),)).nodes] == ["mul"]
