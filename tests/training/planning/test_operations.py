from __future__ import annotations

import pytest
import torch
from torch import nn

import planish
from planish.training.planning.operations import Operations
from tests.training.planning.models import small


def saved_by_autograd(graph: planish.Graph) -> float:
    """Bytes that torch keeps, each storage once, without parameters."""
    module = graph.module().train()
    own = {each.untyped_storage().data_ptr() for each in module.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.is_floating_point():
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = module(*graph.example[0])  # held, so that no storage is used again
    assert output.requires_grad
    return float(sum(seen.values()))


def predicted(graph: planish.Graph) -> float:
    operations = Operations(graph)
    nodes = [node for node in graph.fx.nodes if node.op == "call_function"]
    return 4 * operations.samples * sum(operations.saved(nodes).values())


def test_what_autograd_keeps_of_a_transformer() -> None:
    graph = small(3)
    assert predicted(graph) == pytest.approx(saved_by_autograd(graph), rel=0.1)


def test_what_autograd_keeps_of_a_network_of_convolutions() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten()
    )
    graph = planish.capture(nn.Sequential(model, nn.Linear(16 * 64, 10)), (torch.randn(4, 3, 8, 8),))
    assert predicted(graph) == pytest.approx(saved_by_autograd(graph), rel=0.1)


def test_products_know_their_sizes() -> None:
    graph = small(1)
    operations = Operations(graph)
    up = graph.select("path('blocks.0.up')")[0].fx
    product = operations[up].product
    assert product is not None
    assert (product.rows, product.columns, product.inner) == (16, 128, 32)
    assert product.flops == 2 * 16 * 128 * 32
