"""Zeros that come in while the model trains."""

from __future__ import annotations

import math

import pytest
import torch

from planish.compress import Prune, Quantize
from planish.errors import OptionError
from planish.graph import Graph
from planish.recipe import Recipe
from planish.training import Distill, Gradual, Moment
from planish.training.gradual import _Ramp, masks
from tests.compress.models import attention, error, items, mlp

SHORT = Distill(minutes=None, epochs=6, learning_rate=5e-4, batch_size=16)


def pruned(graph: Graph, sparsity: str = "50%") -> Graph:
    return Recipe(Prune(sparsity))(graph)


def zeros(graph: Graph) -> dict[str, float]:
    return {name: 1 - float(graph.tensors[name].float().mean()) for name in masks(graph).values()}


@pytest.mark.parametrize("by", ["given", "magnitude", "movement"])
def test_as_many_zeros_as_before_and_a_better_answer(by: str) -> None:
    graph = attention()
    small = pruned(graph)
    before = {name: small.tensors[name].clone() for name in masks(small).values()}
    result = Gradual(by=by, training=SHORT)(small, items(graph, 32))  # type: ignore[arg-type]
    assert zeros(result) == zeros(small)
    slack = 1.5 if by == "movement" else 1.0  # which needs far more than these 24 steps (section 6 of its paper)
    assert error(graph, result) < slack * error(graph, small)
    assert str(result) == str(small)
    assert result.buffers == small.buffers
    same = all(torch.equal(result.tensors[name], mask) for name, mask in before.items())
    assert same == (by == "given")
    assert all(torch.equal(small.tensors[name], mask) for name, mask in before.items()), "the graph given changed"


def test_a_pattern_stays_and_casts_may_stand_anywhere() -> None:
    graph = attention()
    small = Recipe(Prune("2:4"), Quantize(weights="int8", activations="uint8"))(graph, items(graph, 4))
    result = Gradual(training=SHORT)(small, items(graph, 16))
    for name, weight in result.base_state_dict().items():
        if weight.dim() == 2:
            assert int((weight.reshape(-1, 4) != 0).sum(1).max()) <= 2, name


def test_zeros_come_in_along_a_cube() -> None:
    graph = mlp()
    small = pruned(graph)
    options = Gradual(by="magnitude", ramp=0.5, updates=10, training=SHORT)
    recovery = options.training.recovery(small, items(graph))
    ramp = _Ramp(small, recovery, options)
    for share in (0.0, 0.1, 0.25, 0.4, 0.5, 1.0):
        ramp.on_step(Moment(1, 0, 0.0, 0.0, math.nan, 0.0, share))
        t = min(1.0, share / 0.5)
        for name, final in zeros(small).items():
            cut = 1 - float(recovery.net.get_buffer(name).mean())
            assert cut == pytest.approx(final * (1 - (1 - t) ** 3), abs=1 / small.tensors[name].numel())


def test_movement_is_the_papers_score() -> None:
    """arXiv 2005.07683, equation 2: the score falls by the gradient of the loss times the weight."""
    graph = mlp()
    small = pruned(graph)
    data = items(graph, 1)
    options = Gradual(by="movement", training=Distill(minutes=None, epochs=1, features=0.0))
    recovery = options.training.recovery(small, data)
    ramp = _Ramp(small, recovery, options)
    with torch.no_grad():
        recovery.net.get_parameter("0.bias").add_(0.1)  # masks of ones are the teacher itself: no gradient
    ((x,), _) = data[0]
    first, b, second, c = (
        recovery.net.get_parameter(n).detach().double() for n in ("0.weight", "0.bias", "2.weight", "2.bias")
    )
    first.requires_grad_()
    wanted = graph(x).double()
    output = (x.double() @ first.T + b).relu() @ second.T + c
    ((output - wanted).square().sum() / wanted.square().sum()).backward()
    recovery.run(options.training.training)
    assert first.grad is not None
    found = ramp._moved["0.weight__mask"].double()
    torch.testing.assert_close(found, -(first.grad * first.detach()), rtol=1e-3, atol=1e-7)


def test_in_a_recipe_file() -> None:
    recipe = Recipe(Prune("50%"), Gradual(by="movement", training=Distill(epochs=2, features=0.0)))
    assert Recipe.from_data(recipe.to_data()) == recipe
    plan = str(recipe.plan(mlp()))
    assert "50% zeros come in" in plan
    assert "trains 2.weight" in plan


def test_bad_input_is_told_at_the_door() -> None:
    for wrong in ({"by": "size"}, {"ramp": 0.0}, {"updates": 0}):
        with pytest.raises(OptionError):
            Gradual(**wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="no weight of the graph has a mask"):
        Gradual().plan(mlp())
    small = pruned(mlp())
    with pytest.raises(OptionError, match="no weight with a mask trains"):
        Gradual(training=Distill(minutes=None, epochs=1, where="path('nothing') | layer_norm"))(
            Recipe(Prune("50%"))(attention()), items(attention())
        )
    assert zeros(small)
