"""Exact passes: equal outputs on every kind of model, and the pattern really goes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from planish.errors import OptionError
from planish.frontends import capture
from planish.graph import Graph
from planish.models import get
from planish.rewrite import Canonicalize, FoldBatchNorm, FoldConstants


def ops_of(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def shaken(model: nn.Module) -> nn.Module:
    """Batch norms with statistics that are not 0 and 1."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight, 1, 0.3)
                nn.init.normal_(module.bias, std=0.3)
    return model.eval()


def same(graph: Graph, other: Graph, *args: torch.Tensor) -> bool:
    exact = graph(*args)
    return torch.allclose(exact, other(*args), atol=1e-5 * max(1.0, float(exact.abs().max())))


LAYERS = {
    "conv": (nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()), (2, 3, 8, 8)),
    "conv without bias": (nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)), (2, 3, 8, 8)),
    "grouped": (nn.Sequential(nn.Conv1d(4, 6, 3, groups=2), nn.BatchNorm1d(6, affine=False)), (2, 4, 8)),
    "conv3d": (nn.Sequential(nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4)), (2, 2, 5, 5, 5)),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(3, 6, 2, bias=False), nn.BatchNorm2d(6)), (2, 3, 8, 8)),
    "linear": (nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6)), (4, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_batch_norm_folds(name):
    model, shape = LAYERS[name]
    x = torch.randn(shape)
    graph = capture(shaken(model), (x,))
    folded = FoldBatchNorm()(graph)
    assert "batch_norm" not in ops_of(folded)
    assert "0.bias" in folded.parameter_names
    assert not any(name.startswith("1.") for name in folded.tensors)
    assert same(graph, folded, x)
    folded.module().train()(x).sum().backward()


def test_batch_norm_stays_where_it_cannot_fold():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.conv(x)
            return h + self.norm(self.conv(torch.relu(h)))

    x = torch.randn(2, 3, 4, 4)
    graph = capture(shaken(Shared()), (x,))
    assert FoldBatchNorm().plan(graph) == []
    folded = FoldBatchNorm()(graph)
    assert "batch_norm" in ops_of(folded)
    assert same(graph, folded, x)
    with pytest.raises(OptionError, match="matches nothing"):
        FoldBatchNorm().plan(capture(nn.Linear(2, 2), (torch.ones(3, 2),)))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "unet"])
def test_on_the_zoo(name):
    task = get(name)()
    args = tuple(task.example_inputs)
    graph = capture(shaken(task.model), args, training=False)
    folded = Canonicalize(keep_training=False)(FoldConstants()(FoldBatchNorm()(graph)))
    assert not {"batch_norm", "dropout"} & set(ops_of(folded))
    assert same(graph, folded, *args)


class Spelled(nn.Module):
    """Linear layers as people write them."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 4))
        self.v = nn.Parameter(torch.randn(6, 6))
        self.b = nn.Parameter(torch.randn(6))
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b + x @ self.w.t()
        x = torch.matmul(x.contiguous(), self.v.transpose(0, 1)).reshape(x.shape)
        return self.drop(torch.addmm(self.b, x, self.v.T))


def test_products_become_linear():
    x = torch.randn(3, 4)
    graph = capture(Spelled().eval(), (x,))
    tidy = Canonicalize()(graph)
    assert ops_of(tidy) == ["linear", "linear", "linear", "dropout"]
    assert tidy.parameter_names == graph.parameter_names
    assert [node.bias is not None for node in tidy.nodes[:3]] == [True, False, True]
    assert same(graph, tidy, x)
    assert ops_of(Canonicalize(keep_training=False)(graph)) == ["linear"] * 3
    assert Canonicalize().plan(tidy) == []


def test_constants_fold_and_parameters_only_when_asked():
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 4))
            self.register_buffer("table", torch.arange(4.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ (self.w * 2) + (self.table * 2 + 1).sin()

    x = torch.randn(3, 4)
    graph = capture(Constant(), (x,))
    folded = FoldConstants()(graph)
    assert ops_of(folded) == ["mul", "matmul", "add"]
    assert ops_of(FoldConstants(parameters=True)(graph)) == ["matmul", "add"]
    for other in (folded, FoldConstants(parameters=True)(graph)):
        assert same(graph, other, x)
    assert len(FoldConstants().plan(graph)) == 1


def test_a_cast_is_not_folded_away():
    from planish.compress import Quantize

    x = torch.randn(3, 4)
    small = Quantize("int8")(capture(nn.Linear(4, 4), (x,)))
    assert "cast" in ops_of(FoldConstants(parameters=True)(small))
