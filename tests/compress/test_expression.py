"""New values through any weight expression: the expression then has them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from planish.compress.expression import assign, solvable
from planish.errors import OptionError
from planish.formats import get
from planish.frontends import capture
from planish.graph.evaluate import fold

aten = torch.ops.aten
N = 6


def graph_of(model: nn.Module | None = None):
    torch.manual_seed(0)
    return capture(model or nn.Sequential(nn.Linear(N, N)), (torch.randn(2, N),))


def wrapped(steps):
    """A linear layer whose weight is `steps(edit, weight, layer)`."""
    edit = graph_of().edit()
    layer = next(node for node in edit.graph.nodes if node.op == "linear")
    edit.replace_input(layer, layer.weight, steps(edit, layer.weight, layer))
    return edit.done()


def add(edit, name, tensor):
    return edit.add(f"0.weight__{name}", tensor)


EXPRESSIONS = {
    "add": lambda e, w, at: e.call(aten.add.Tensor, w, add(e, "b", torch.randn(N, N)), before=at),
    "added to": lambda e, w, at: e.call(aten.add.Tensor, add(e, "b", torch.randn(N, N)), w, before=at),
    "sub": lambda e, w, at: e.call(aten.sub.Tensor, add(e, "b", torch.randn(N, N)), w, before=at),
    "scale": lambda e, w, at: e.call(aten.mul.Tensor, w, add(e, "s", torch.rand(N, 1) + 0.5), before=at),
    "div": lambda e, w, at: e.call(aten.div.Tensor, w, add(e, "s", torch.rand(N, 1) + 0.5), before=at),
    "rotate": lambda e, w, at: e.call(
        aten.matmul.default, w, add(e, "h", torch.linalg.qr(torch.randn(N, N)).Q), before=at
    ),
    "rotate from the left": lambda e, w, at: e.call(
        aten.matmul.default, add(e, "h", torch.linalg.qr(torch.randn(N, N)).Q), w, before=at
    ),
    "twice transposed": lambda e, w, at: e.call(
        aten.permute.default, e.call(aten.t.default, w, before=at), [1, 0], before=at
    ),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_the_expression_has_the_values(name):
    graph = wrapped(EXPRESSIONS[name])
    weight = graph.nodes[-1].weight
    wanted = torch.randn(N, N)
    assert solvable(weight.fx)
    assign(graph, weight.fx, wanted)
    assert torch.allclose(fold(graph, weight.fx), wanted, atol=1e-5)
    assert isinstance(graph.tensors["0.weight"], nn.Parameter)


def test_what_a_mask_hides_stays():
    mask = (torch.arange(N * N) % 2).view(N, N).float()
    graph = wrapped(lambda e, w, at: e.call(aten.mul.Tensor, w, add(e, "mask", mask), before=at))
    before = graph.tensors["0.weight"].detach().clone()
    assign(graph, graph.nodes[-1].weight.fx, torch.ones(N, N))
    assert torch.equal(graph.tensors["0.weight"].detach(), torch.where(mask > 0, 1.0, before))


def test_numbers_of_a_format_pass_its_cast():
    form = get("int4").per_channel(0)
    values = torch.randn(N, N)
    parameters = form.parameters(values)

    def steps(edit, weight, layer):
        stored = [edit.add(f"0.weight__p{i}", p) for i, p in enumerate(parameters)]
        edit.cast(weight, layer, form, stored)
        return edit.node(layer.name).weight

    graph = wrapped(steps)
    wanted = form.cast(torch.randn(N, N), parameters)
    assign(graph, graph.nodes[-1].weight.fx, wanted)
    assert torch.equal(fold(graph, graph.nodes[-1].weight.fx), wanted)


def test_what_cannot_be_undone_is_refused():
    graph = wrapped(lambda e, w, at: e.call(aten.exp.default, w, before=at))
    assert not solvable(graph.nodes[-1].weight.fx)
    with pytest.raises(OptionError, match="exp"):
        assign(graph, graph.nodes[-1].weight.fx, torch.ones(N, N))
