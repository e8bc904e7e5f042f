"""Pairs of products that fit 16 bits: the bound itself, its price, and a kernel that would show an overflow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from planish.compress import Quantize, pairs
from planish.errors import OptionError
from planish.frontends import capture
from planish.graph import Graph
from tests.compress.models import attention, convnet, error, items, mlp
from tests.support import require


def codes(graph: Graph, name: str) -> np.ndarray:
    """The integer codes of a weight, input channels last."""
    cast = next(n for n in graph.nodes if n.op == "cast" and str(n.inputs[0].target) == name)
    scale = graph.tensors[str(cast.args[1][0].target)]
    encoded = cast.format.encode(graph.tensors[name].detach(), (scale,)).codes
    return encoded.movedim(1, -1).numpy().astype(np.int64)


def pair_sums(weight: np.ndarray) -> np.ndarray:
    """The extreme sums that activations of 0 and 255 can give, for each pair of neighbors: `(..., 2)`."""
    left, right = weight[..., ::2], weight[..., 1::2]
    return 255 * np.stack([left.clip(0) + right.clip(0), left.clip(max=0) + right.clip(max=0)], -1)


@given(arrays.arrays(np.float32, (3, 8), elements=st.integers(-128, 127).map(float)))
def test_fitted_codes_never_overflow_and_move_no_more_than_needed(matrix):
    fitted = pairs._fit(torch.from_numpy(matrix)).numpy()
    sums = pair_sums(fitted)
    assert sums.max() < 2**15
    assert sums.min() >= -(2**15)
    fits = ((before := pair_sums(matrix)) < 2**15).all(-1) & (before >= -(2**15)).all(-1)
    moved = np.abs(fitted - matrix)
    assert (moved.reshape(3, 4, 2)[fits] == 0).all()
    excess = np.abs(matrix).reshape(3, 4, 2).sum(-1) - pairs.LIMIT
    assert (moved.reshape(3, 4, 2).sum(-1)[~fits] == excess[~fits]).all()
    assert (np.sign(fitted) * np.sign(matrix) >= 0).all()


@pytest.mark.parametrize("by", ["rtn", "gptq"])
def test_every_layer_keeps_to_pairs(by):
    graph = attention()
    with torch.no_grad():
        graph.tensors["up.weight"][:, :2] *= 40  # a pair that would overflow
    exact = Quantize(weights="int8", activations="uint8", by=by)(graph, items(graph))
    kept = Quantize(weights="int8", activations="uint8", by=by, pair_bits=16)(graph, items(graph))
    assert pair_sums(codes(exact, "up.weight")).max() >= 2**15
    for name in ("query.weight", "out.weight", "up.weight", "down.weight"):
        sums = pair_sums(codes(kept, name))
        assert sums.max() < 2**15
        assert sums.min() >= -(2**15)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_it_costs_less_than_a_bit(seed):
    graph = attention(seed)
    data = items(graph, 16)
    eight, paired, seven = (
        error(graph, Quantize(weights=weights, by="gptq", pair_bits=bits)(graph, data))
        for weights, bits in (("int8", 32), ("int8", 16), ("int7", 32))
    )
    assert eight <= paired < seven


def test_convolutions_pair_their_input_channels():
    graph = convnet()
    kept = Quantize(weights="int8", activations="uint8", pair_bits=16)(graph, items(graph))
    assert np.abs(codes(kept, "0.weight")).max() <= pairs.LIMIT // 2  # three channels: no telling which are a pair
    sums = pair_sums(codes(kept, "2.weight"))
    assert sums.max() < 2**15
    assert sums.min() >= -(2**15)


def test_tied_weights_grow_once():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(torch.relu(self.first(x)))

    torch.manual_seed(0)
    graph = capture(Tied().eval(), (torch.randn(4, 16),))
    once = Quantize(weights="int8", where="path('first')", pair_bits=16)(graph)
    both = Quantize(weights="int8", pair_bits=16)(graph)
    (scale,) = (name for name in once.tensors if name.endswith("weight__scale"))
    assert torch.equal(once.tensors[scale], both.tensors[scale])


def test_a_kernel_that_saturates_agrees():
    """All activations at their largest, all weights as large as pairs allow: an overflow would be far off."""
    require("onnxruntime")
    from planish.targets.cpu import Cpu

    torch.manual_seed(0)
    model = nn.Linear(64, 32)
    with torch.no_grad():
        model.weight.copy_(torch.rand(32, 64) + 1.0)
    graph = capture(model.eval(), (torch.full((4, 64), 1.0),))
    data = [((torch.full((4, 64), 1.0),), {}), ((torch.zeros(4, 64),), {})]
    small = Quantize(weights="int8", activations="uint8", pair_bits=16)(graph, data)
    artifact = Cpu(engine="onnxruntime", seconds=0.1).build(small)
    assert not [row for row in artifact.measurements if row.name == "refused"]
    x = torch.full((4, 64), 1.0)
    assert torch.allclose(artifact(x), small(x), rtol=1e-3)


@settings(max_examples=20)
@given(st.integers(2, 9))
def test_narrow_weights_have_nothing_to_keep(bits):
    graph = mlp()
    if bits < 8:
        plain, kept = (Quantize(weights=f"int{bits}", pair_bits=p)(graph) for p in (32, 16))
        assert torch.equal(plain.tensors["0.weight"], kept.tensors["0.weight"])
        assert torch.equal(plain.tensors["0.weight__scale"], kept.tensors["0.weight__scale"])


@pytest.mark.parametrize("weights", ["uint8", "e4m3*float32", "nf4"])
def test_other_formats_are_refused(weights):
    with pytest.raises(OptionError, match="signed integers"):
        Quantize(weights=weights, pair_bits=16)


def test_other_widths_are_refused():
    with pytest.raises(OptionError, match="16 or 32"):
        Quantize(pair_bits=8)  # type: ignore[arg-type]
