"""Proxies against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from planish.automl.supernet import proxies
from planish.automl.supernet.flow import flows, positive
from planish.automl.supernet.rank import with_prior
from planish.automl.supernet.slots import all_points
from planish.compress import Width
from planish.errors import UnknownName
from planish.frontends import capture
from planish.models.mlp import MLP
from tests.automl.supernet.spaces import cell, data, loss, supernet


def _mlp():
    torch.manual_seed(0)
    return capture(MLP((64, 16, 8, 10)).eval(), (torch.randn(2, 64),), {"x": {0: "batch"}})


def _item():
    (x,), _, y = data("train")[0]
    return (x.flatten(1),), {}, y


def test_counts():
    graph = _mlp()
    assert math.exp(proxies["params"](graph, _item(), loss)) == pytest.approx(65 * 16 + 17 * 8 + 9 * 10)
    assert math.exp(proxies["macs"](graph, _item(), loss)) == pytest.approx(2 * (64 * 16 + 16 * 8 + 8 * 10))


def test_synflow_of_linear_layers_is_their_product():
    """Of weights alone every parameter's layer carries the whole flow (arXiv 2006.05467, equation 3)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 4, bias=False))
    flow = (model[2].weight.abs() @ model[0].weight.abs()).sum().detach()
    score = proxies["synflow"](capture(model, (torch.randn(2, 6),)), ((torch.randn(3, 6),), {}, None), loss)
    assert math.exp(score) == pytest.approx(2 * 2 * float(flow), rel=1e-6)  # two layers, two rows


def test_grad_norm():
    graph, item = _mlp(), _item()
    model = MLP((64, 16, 8, 10))
    model.load_state_dict(graph.base_state_dict())
    loss(model, item).backward()
    expected = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    assert proxies["grad-norm"](graph, item, loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", list(proxies))
def test_wider_is_better_and_nothing_moves(name):
    graph, item = _mlp(), _item()
    before = {key: tensor.clone() for key, tensor in graph.tensors.items()}
    assert math.isfinite(proxies[name](graph, item, loss))
    if name != "grad-norm":
        assert proxies[name](graph, item, loss) > proxies[name](Width(0.25)(graph), item, loss)
    assert all(torch.equal(graph.tensors[key], tensor) for key, tensor in before.items())


@pytest.mark.parametrize("name", list(proxies))
def test_an_empty_cell_is_the_worst(name):
    graph, slots = cell()
    empty = graph
    for slot in slots:
        empty = slot.variants[slot.index("none")](empty)
    assert proxies[name](empty, data("train")[0], loss) < proxies[name](graph, data("train")[0], loss)


def test_unknown():
    with pytest.raises(UnknownName, match="synflow"):
        proxies["synflw"]


def test_a_supernet_tells_the_flow_of_all_points_at_once():
    graph, slots = cell()
    points = all_points(slots)[::5]
    found = flows(positive(supernet()), points)
    for point, flow in zip(points, found, strict=True):
        small = graph
        for slot in slots:
            variant = slot.variants[slot.index(point[slot.name])]
            small = small if variant is None else variant(small)
        assert flow == pytest.approx(proxies["synflow"](small, data("train")[0], loss), rel=1e-4)


def test_a_prior_adds_its_places():
    points = [{"a": label} for label in "xyz"]
    ranking = ((points[1], 0.1), (points[0], 0.2), (points[2], 0.3))
    assert with_prior(ranking, points, [3.0, 1.0, 2.0]) == (
        (points[0], pytest.approx(1 / 4)),
        (points[1], pytest.approx(2 / 4)),
        (points[2], pytest.approx(3 / 4)),
    )
