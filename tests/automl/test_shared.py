import pytest
import torch
from torch import nn

import planish
from planish import Recipe
from planish.automl import Filled, Space, each
from planish.automl.shared import Shared
from planish.compress import Quantize


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        y = self.a(x)
        y = nn.functional.relu(y, inplace=True)
        return {"out": self.c(y.add_(self.b(y))), "in": x}


@pytest.fixture(scope="module")
def graph():
    return planish.capture(Residual(), (torch.randn(4, 8),))


def test_it_computes_what_the_graph_computes_and_only_once(graph):
    shared, x = Shared(), torch.randn(4, 8)
    run = shared.runnable(graph)
    for _ in range(2):
        torch.testing.assert_close(run(x), graph(x), rtol=0, atol=0)
    before = shared.misses
    run(x)
    assert shared.misses == before
    torch.testing.assert_close(run(2 * x), graph(2 * x), rtol=0, atol=0)  # other inputs are other values


def test_layers_that_are_alike_are_not_run_again(graph):
    shared, x = Shared(), torch.randn(4, 8)
    space = Space(Recipe(Quantize(weights=each("int4", "int8"))), graph)
    names = [decision.name for decision in space.decisions]
    one = space.fill(dict.fromkeys(names, "int8"))(graph)
    other = space.fill({**dict.fromkeys(names, "int8"), names[2]: "int4"})(graph)
    shared.runnable(one)(x)
    before = shared.misses
    torch.testing.assert_close(shared.runnable(other)(x), other(x), rtol=0, atol=0)
    assert shared.misses - before <= 3  # the weight of the last layer, the layer, and nothing before


def test_a_weight_that_changed_is_another_weight(graph):
    shared, x = Shared(), torch.randn(4, 8)
    run = shared.runnable(graph)
    run(x)
    weight = graph.tensors["c.weight"]
    with torch.no_grad():
        weight.add_(1.0)
    try:
        torch.testing.assert_close(run(x), graph(x), rtol=0, atol=0)
    finally:
        with torch.no_grad():
            weight.sub_(1.0)


def test_its_memory_is_bounded(graph):
    shared = Shared(room=1000)
    run = shared.runnable(graph)
    for _ in range(5):
        x = torch.randn(4, 8)
        torch.testing.assert_close(run(x), graph(x), rtol=0, atol=0)
        assert shared.held <= 1000


def test_steps_that_are_alike_are_applied_once(graph):
    shared, calls = Shared(), []

    recipe = Recipe(Quantize("int8", where="path('a')"), Quantize("int4", where="path('b')"))
    other = Recipe(Quantize("int8", where="path('a')"), Quantize("int2", where="path('b')"))
    for each_ in (recipe, other, recipe):
        kept = shared.prefixes(Filled({}, each_, graph))
        calls.append([place for place in range(2) if kept.has(place)])
        each_(graph, kept=kept)
    assert calls == [[], [0], [0, 1]]
