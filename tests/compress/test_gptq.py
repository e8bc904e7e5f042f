"""GPTQ in every kind of format: what it gives is the format's own, and no worse than rounding."""

# ruff: noqa: A001
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from planish.compress import Quantize
from planish.compress.gptq import gptq
from planish.formats import get
from tests.compress.models import error, items, mlp

FORMATS = ["int8@channel0", "uint4@channel0", "int4@g32", "int4@g24*float16", "nvfp4", "mxfp4", "nf4_double", "e4m3",
           "q4_k", "lut4@channel0", "lut3@g32*float16", "lut2@tensor", "int3@channel0&int3@g16", "q5_0"]  # fmt: skip


def problem(text: str) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """A weight, the Gram matrix of inputs that are alike, and parameters from the weight."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 64, generator=generator)
    inputs = torch.randn(512, 64, generator=generator) @ torch.randn(64, 64, generator=generator)
    return weight, (inputs.T @ inputs).double(), get(text).parameters(weight)


def lost(weight: Tensor, rounded: Tensor, gram: Tensor) -> float:
    """The squared error of the outputs."""
    off = rounded.double() - weight.double()
    return float((off @ gram * off).sum())


@pytest.mark.parametrize("text", FORMATS)
def test_gives_numbers_of_the_format_that_lose_less(text: str) -> None:
    weight, gram, parameters = problem(text)
    format = get(text)
    found = gptq(weight.double(), gram, format, parameters).float()
    if format.residual is None:  # a residual is greedy: two codes may stand for nearly the same number
        assert torch.equal(format.cast(found, parameters), found)
    assert lost(weight, found, gram) <= lost(weight, format.cast(weight, parameters), gram)


@pytest.mark.parametrize("text", ["int4@channel1", "nvfp4@g16axis0", "lut3@channel1", "uint4@g8axis0"])
def test_a_weight_stored_the_other_way_is_rounded_alike(text: str) -> None:
    weight, gram, _ = problem("int8")
    format = get(text)
    stored = weight.T.contiguous()
    parameters = format.parameters(stored)
    found = gptq(weight.double(), gram, format, parameters, transposed=True).float().T.contiguous()
    assert torch.equal(format.cast(found, parameters), found)
    assert lost(weight, found.T, gram) <= lost(weight, format.cast(stored, parameters).T, gram)


@pytest.mark.parametrize("text", ["nvfp4", "mxfp4", "nf4_double", "int4@g32", "lut4"])
def test_a_model_loses_less(text: str) -> None:
    graph = mlp()
    data = items(graph, 16)
    nearest, small = (Quantize(weights=text, by=by)(graph, data) for by in ("rtn", "gptq"))
    assert error(graph, small) < error(graph, nearest)
    for node in (node for node in small.nodes if node.op == "cast"):
        weight = small.tensors[str(node.inputs[0].target)].detach()
        parameters = tuple(small.tensors[str(place.target)] for place in node.args[1])
        assert torch.equal(node.format.cast(weight, parameters), weight)
