"""What every CPU engine must do. A test class inherits it and names its engine."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from planish.compress import Quantize
from planish.frontends import capture
from planish.graph import Graph
from planish.targets.cpu import ENGINES
from planish.targets.cpu.check import difference
from planish.targets.cpu.engine import Engine, Options
from planish.targets.cpu.signature import Signature

EXACT = 1e-5


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 40), nn.Linear(40, 6)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, groups=8),
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 32)
        self.project, self.out, self.norm = nn.Linear(32, 96), nn.Linear(32, 32), nn.LayerNorm(32)

    def forward(self, tokens):
        x = self.table(tokens)
        q, k, v = (t.unflatten(-1, (4, 8)).transpose(1, 2) for t in self.project(x).chunk(3, -1))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return nn.functional.gelu(self.norm(x + self.out(y.transpose(1, 2).flatten(2))))


class Choice(nn.Module):
    """A branch in a branch, several results, and parameters that branches read in common."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.other = (nn.Linear(4, 4) for _ in range(3))
        self.shift = nn.Parameter(torch.randn(4))

    def inner(self, x):
        def yes(v):
            return self.one(v) * v.sum(-1, keepdim=True), v + 1

        return torch.cond(x.mean() > 0.3, yes, lambda v: (self.other(v) - self.shift, self.one(v)), (x,))

    def forward(self, x):
        x = self.first(x)
        left, right = torch.cond(
            x.sum() > 0, self.inner, lambda v: (self.other(v), self.shift.expand(v.shape[0], 4) * 2), (x,)
        )
        return left + right


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 16, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.lstm(x)[0])


def graph_of(name: str) -> Graph:
    torch.manual_seed(0)
    if name == "choice":
        return capture(Choice().eval(), (torch.randn(2, 4),), {"x": {0: "batch"}}, training=False)
    if name == "recurrent":
        return capture(Recurrent().eval(), (torch.randn(2, 5, 12),), {"x": {0: "batch"}}, training=False)
    if name == "perceptron":
        return capture(Perceptron().eval(), (torch.randn(5, 24),), {"x": {0: "batch"}}, training=False)
    if name == "convolution":
        return capture(Convolution().eval(), (torch.randn(2, 3, 12, 12),), {"x": {0: "batch"}}, training=False)
    dynamic = {"tokens": {0: "batch", 1: "length"}}
    return capture(Block().eval(), (torch.randint(0, 50, (2, 7)),), dynamic, training=False)


def other_call(graph: Graph) -> tuple:
    """Inputs of other sizes than the example's."""
    (x,) = graph.example[0]
    return (torch.cat([x, x.flip(0)]),)


# 7-bit weights: with 8-bit ones, processors without VNNI may saturate, which is tested by itself
QUANTIZED = {
    "static": Quantize("int7", "uint8"),
    "token": Quantize("int7", "uint8@token~dynamic"),
    "symmetric token": Quantize("int7", "int8@token~dynamic"),
    "weights": Quantize("int8"),
    "groups": Quantize("int4@g8", where="linear"),
    "scores": Quantize("int7", "uint8", attention=("int8", None)),
}


class EngineContract:
    """Inherited by the tests of each engine.

    Attributes:
        name: The engine's name.
        takes: The members of `QUANTIZED` that it takes.
    """

    name = ""
    takes: tuple[str, ...] = ()

    def engine(self) -> Engine:
        return ENGINES[self.name]()

    def runs(self, graph: Graph, tolerance: float = EXACT) -> None:
        compiled = self.engine().compile(graph, Options(exact=self.engine().has_exact))
        signature = Signature.of(graph)
        for args in (graph.example[0], other_call(graph)):
            results = compiled(signature.flatten(args, {}))
            assert difference(results, [graph(*args)]).relative < tolerance

    @pytest.mark.parametrize("model", ["perceptron", "convolution", "block", "recurrent"])
    def test_computes_what_the_graph_says(self, model):
        graph = graph_of(model)
        assert self.engine().unsupported(graph) == []
        self.runs(graph)

    @pytest.mark.parametrize("fixed", [False, True])
    def test_calls_share_nothing(self, fixed):
        """Not even what is kept from call to call: results and inputs stay, whatever the sizes and strides."""
        graph = graph_of("perceptron")
        compiled = self.engine().compile(graph, Options(fixed={"batch": 5} if fixed else {}))
        rows = [5, 5, 5] if fixed else [5, 9, 20_000, 5, 3]  # the third of them is 2 MB
        calls = [torch.randn(24, count).T for count in rows]
        before = [call.clone() for call in calls]
        results = [compiled([call])[0] for call in calls]
        for call, kept, result in zip(calls, before, results, strict=True):
            torch.testing.assert_close(result, graph(kept), atol=EXACT, rtol=EXACT)
            assert torch.equal(call, kept)

    def test_takes_inputs_that_want_gradients(self):
        graph = graph_of("perceptron")
        (x,) = graph.example[0]
        compiled = self.engine().compile(graph, Options())
        (given,) = Signature.of(graph).flatten([x.clone().requires_grad_()], {})
        torch.testing.assert_close(compiled([given]), compiled([x]))

    @pytest.mark.parametrize("model", ["perceptron", "convolution", "block"])
    @pytest.mark.parametrize("recipe", QUANTIZED)
    def test_computes_quantized_graphs(self, model, recipe):
        if model == "convolution" and (recipe == "groups" or "token" in recipe):
            return  # a group or a token is a matter of linear layers
        if model != "block" and recipe == "scores":
            return  # there are none
        graph = graph_of(model)
        small = QUANTIZED[recipe](graph, [(graph.example[0], {}), (other_call(graph), {})])
        if recipe not in self.takes:
            assert self.engine().unsupported(small)
            return
        assert self.engine().unsupported(small) == []
        self.runs(small, 0.02)  # one code, where an engine rounds at another place

    @pytest.mark.parametrize("recipe", [None, "static", "weights"])
    def test_takes_the_branch_that_the_graph_takes(self, recipe):
        graph = graph_of("choice")
        calls = [((torch.randn(3, 4) * 2,), {}) for _ in range(9)]
        small = QUANTIZED[recipe](graph, calls) if recipe else graph
        compiled = self.engine().compile(small, Options(exact=self.engine().has_exact))
        for args, _ in calls:
            assert difference(compiled(list(args)), [small(*args)]).relative < 0.02

    def test_saved_files_compute_the_same(self):
        graph = graph_of("perceptron")
        compiled = self.engine().compile(graph, Options())
        signature = Signature.of(graph)
        again = self.engine().load(compiled.files, signature.tensor_inputs, Options())
        inputs = signature.flatten(graph.example[0], {})
        torch.testing.assert_close(again(inputs)[0], compiled(inputs)[0])

    def test_says_which_precision_ran(self):
        graph = graph_of("perceptron")
        compiled = self.engine().compile(graph, Options())
        ran = compiled.executed_precisions(Signature.of(graph).flatten(graph.example[0], {}))
        assert sum(ran.values()) == pytest.approx(1)
        assert max(ran, key=ran.__getitem__) == "f32"
