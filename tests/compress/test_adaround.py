"""AdaRound: its objective, that it goes up or down and never further, and that it helps."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from planish.compress import Quantize
from planish.compress.adaround import adaround, loss, soft, undecided
from planish.compress.columns import Fixed, damped
from planish.compress.grid import Grid, Layout
from planish.errors import OptionError
from planish.formats import get
from tests.compress.models import attention, convnet, error, items, mlp


def problem(out: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """A weight, inputs that are alike, and their Gram matrix."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, width, generator=generator) @ torch.randn(width, width, generator=generator)
    return torch.randn(out, width, generator=generator), inputs, damped((inputs.T @ inputs).double())


def test_the_loss_is_that_of_the_outputs():
    weight, inputs, _ = problem(6, 10)
    other = weight + torch.randn(6, 10) * 0.1
    expected = (inputs.double() @ (weight - other).double().T).square().sum()
    assert torch.allclose(loss((weight - other).double(), (inputs.T @ inputs).double()), expected, rtol=1e-5)


@pytest.mark.parametrize("v", [-6.0, -1.0, 0.0, 0.3, 5.0])
def test_the_relaxation_is_the_papers(v):
    """Equations 23 and 24 of arXiv 2004.10568."""
    h = min(max(1.2 / (1 + math.exp(-v)) - 0.1, 0.0), 1.0)
    assert float(soft(torch.tensor(v, dtype=torch.float64))) == pytest.approx(h)
    assert float(undecided(torch.tensor(v, dtype=torch.float64), 3.0)) == pytest.approx(1 - abs(2 * h - 1) ** 3)


def test_it_comes_near_the_best_of_all_choices():
    weight, _, gram = problem(4, 8)
    form = get("int3@channel0")
    parameters = form.parameters(weight)
    found = adaround(weight.double(), gram, Grid(form, parameters, Layout((4, 8))))
    step = parameters[0]
    low = (weight / step).floor().clamp(-4, 3)
    high = (low + 1).clamp(-4, 3)
    assert bool(
        ((found.float() - low * step).abs() < 1e-5).logical_or((found.float() - high * step).abs() < 1e-5).all()
    )
    best = torch.full((4,), math.inf, dtype=torch.float64)
    for choice in itertools.product((0, 1), repeat=8):
        off = weight - torch.where(torch.tensor(choice).bool(), high, low) * step
        best = torch.minimum(best, (off.double() @ gram * off).sum(1))
    nearest = loss((weight - form.cast(weight, parameters)).double(), gram)
    mine = loss(weight.double() - found, gram)
    assert float(mine) < 0.9 * float(nearest)
    assert float(mine) < 1.5 * float(best.sum())


@pytest.mark.parametrize("text", ["int4@channel0", "uint3@g16", "mxfp4", "nvfp4"])
def test_gives_numbers_of_the_format_and_keeps_what_is_fixed(text):
    weight, _, gram = problem(12, 32)
    form = get(text)
    parameters = form.parameters(weight)
    where = torch.rand(32, 12) > 0.7
    fixed = Fixed(where, torch.zeros(32, 12))
    found = adaround(weight, gram, Grid(form, parameters, Layout((12, 32))), fixed)
    assert torch.equal(form.cast(found, parameters), found)
    assert bool((found.T[where] == 0).all())


@pytest.mark.parametrize("make", [mlp, convnet, attention])
def test_a_model_loses_less_and_biases_are_corrected(make):
    graph = make()
    data = items(graph, 64)
    nearest, learned, corrected = (
        error(graph, Quantize("int3", where="linear | conv", **options)(graph, data), seed=1)
        for options in ({}, {"by": "adaround"}, {"by": "adaround", "correct_bias": True})
    )
    assert learned < nearest
    assert corrected < nearest


def test_formats_and_pairs_that_it_cannot_do_are_refused():
    with pytest.raises(OptionError, match="above or below"):
        Quantize("lut4", by="adaround")
    with pytest.raises(OptionError, match="pairs"):
        Quantize("int8", by="adaround", pair_bits=16)
