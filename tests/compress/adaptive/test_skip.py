from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from planish.compress import SkipLayers
from planish.errors import OptionError
from planish.frontends import capture
from planish.graph import Graph
from tests.compress import contract


class Residual(nn.Module):
    def __init__(self, strength: float) -> None:
        super().__init__()
        self.fc, self.strength = nn.Linear(8, 8), strength

    def forward(self, x: Tensor) -> Tensor:
        return x + self.strength * torch.tanh(self.fc(x))


STRENGTHS = (1.0, 0.05, 0.5, 0.01, 0.8)


def captured() -> tuple[nn.Sequential, Graph]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), *map(Residual, STRENGTHS), nn.Linear(8, 3)).eval()
    net = nn.Module()
    net.blocks, net.forward = model, model.forward  # type: ignore[method-assign]
    return model, capture(net, (torch.randn(2, 4),), dynamic={"input": {0: "batch"}})


def test_the_weakest_blocks_go(tmp_path):
    model, graph = captured()
    x = torch.randn(50, 4)
    small = contract.applied(graph, [SkipLayers(2)], [((x,), {})], tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(small(x), model[6](model[5](model[3](model[1](model[0](x))))))
    assert len(SkipLayers(0.4).plan(graph)) == 5
    contract.builds(small)


def test_neighbors_may_go_together():
    model, graph = captured()
    x = torch.randn(50, 4)
    small = SkipLayers(2, where="path('blocks.2*') | path('blocks.3*') | path('blocks.4*')")(graph, [((x,), {})])
    with torch.no_grad():
        torch.testing.assert_close(small(x), model[6](model[5](model[3](model[1](model[0](x))))))
    most = SkipLayers(4)(graph, [((x,), {})])
    with torch.no_grad():
        torch.testing.assert_close(most(x), model[6](model[1](model[0](x))))


def test_what_cannot_go_is_refused():
    _, graph = captured()
    with pytest.raises(OptionError, match="cannot be left out"):
        SkipLayers(5).plan(graph)
    with pytest.raises(OptionError, match="no residual block"):
        SkipLayers(1, where="path('blocks.0')").plan(graph)
    with pytest.raises(OptionError):
        SkipLayers(0)
