"""The capture battery: every model family, captured exactly, in both modes, and saved."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from tests.frontends.families import FAMILIES, QUICK, Family
from torch.utils import _pytree as pytree

from planish.frontends import capture
from planish.graph import Graph

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's libraries warn as they please


# one worker captures a family once and runs all its checks
_EACH = [
    pytest.param(name, marks=[pytest.mark.xdist_group(name), *([] if name in QUICK else [pytest.mark.long])])
    for name in FAMILIES
]


@pytest.fixture(params=_EACH)
def captured(request: pytest.FixtureRequest) -> tuple[Family, Graph]:
    return _captured(request.param)


@cache
def _captured(name: str) -> tuple[Family, Graph]:
    torch.manual_seed(0)
    family = FAMILIES[name]()
    family.model.eval()
    return family, capture(family.model, family.example, dynamic=family.dynamic)


def _copy(example):
    return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, example)


def _tensors(output) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def _assert_equal(got, expected) -> None:
    for mine, theirs in zip(_tensors(got), _tensors(expected), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def _thrice(family: Family) -> dict:
    """The example with three times the batch."""
    larger = _copy(family.example)
    for name, axes in family.dynamic.items():
        for axis in axes:
            larger[name] = pytree.tree_map(lambda leaf, axis=axis: torch.cat([leaf] * 3, dim=axis), larger[name])
    return larger


def _run(model, example):
    with torch.no_grad():
        return model(**_copy(example))


def test_outputs_equal(captured: tuple[Family, Graph]) -> None:
    family, graph = captured
    expected = _run(family.model, family.example)
    got = graph(**_copy(family.example))
    assert type(got) is type(expected)
    _assert_equal(got, expected)


def test_three_times_the_batch(captured: tuple[Family, Graph]) -> None:
    family, graph = captured
    larger = _thrice(family)
    _assert_equal(graph(**_copy(larger)), _run(family.model, larger))


def test_every_call_knows_its_module(captured: tuple[Family, Graph]) -> None:
    family, graph = captured
    modules = {name for name, _ in family.model.named_modules()}
    for node in graph.nodes:
        assert node.fx.meta.get("nn_module_stack"), node
        assert node.path in modules, node


def test_trains(captured: tuple[Family, Graph]) -> None:
    family, graph = captured
    net = graph.module().train()
    assert graph.training_refusal is None
    assert set(net.state_dict()) <= set(family.model.state_dict())
    sum(
        out.float().square().sum() for out in _tensors(net(**_copy(family.example))) if out.is_floating_point()
    ).backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    assert any(grad is not None and grad.abs().sum() > 0 for grad in gradients.values())
    _assert_equal(net.eval()(**_copy(family.example)), net(**_copy(family.example)))


def _train(net: torch.nn.Module, family: Family) -> list[torch.Tensor]:
    torch.manual_seed(2)
    outputs = _tensors(net.train()(**_copy(family.example)))
    sum(out.float().square().mean() for out in outputs if out.is_floating_point()).backward()
    return outputs


def test_hierarchical(captured: tuple[Family, Graph]) -> None:
    family, graph = captured
    net, flat = graph.module(hierarchical=True), graph.module()
    assert {name for name, _ in net.named_modules()} <= {name for name, _ in family.model.named_modules()}
    assert set(net.state_dict()) == set(flat.state_dict())
    assert set(net.state_dict()) <= set(family.model.state_dict())
    _assert_equal(_run(net, _thrice(family)), _run(family.model, _thrice(family)))
    _assert_equal(_train(net, family), _train(flat, family))
    expected = {name: parameter.grad for name, parameter in flat.named_parameters(remove_duplicate=False)}
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == (expected[name] is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name], msg=name)


def test_saved_and_loaded_is_equal(captured: tuple[Family, Graph], tmp_path) -> None:
    family, graph = captured
    graph.save(tmp_path / "m.planish")
    loaded = Graph.load(tmp_path / "m.planish")
    _assert_equal(loaded(**_copy(family.example)), graph(**_copy(family.example)))
    assert str(loaded) == str(graph)
