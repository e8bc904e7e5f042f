"""Losses against their formulas in float64."""

from __future__ import annotations

import pytest
import torch

from planish.errors import DataError
from planish.training import losses

GENERATOR = torch.Generator().manual_seed(0)
MINE, ITS = torch.randn(2, 5, 7, dtype=torch.float64, generator=GENERATOR)


def test_relative() -> None:
    expected = ((MINE - ITS) ** 2).sum() / (ITS**2).sum()
    assert float(losses.relative(MINE, ITS)) == pytest.approx(float(expected), rel=1e-6)
    assert float(losses.relative(ITS, ITS)) == 0
    assert float(losses.relative(torch.zeros_like(ITS), ITS)) == pytest.approx(1)


def test_cosine() -> None:
    expected = 1 - ((MINE * ITS).sum(-1) / MINE.norm(dim=-1) / ITS.norm(dim=-1)).mean()
    assert float(losses.cosine(MINE, ITS)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_divergence(temperature: float) -> None:
    p, q = ((each / temperature).softmax(-1) for each in (ITS, MINE))
    expected = temperature**2 * (p * (p / q).log()).sum(-1).mean()
    assert float(losses.divergence(MINE, ITS, temperature)) == pytest.approx(float(expected), rel=1e-4)


def test_outputs_of_any_structure() -> None:
    ids = torch.arange(3)
    loss = losses.of_outputs(losses.relative, {"a": MINE, "b": (ITS, ids)}, {"a": ITS, "b": (ITS, ids)})
    assert float(loss) == pytest.approx(float(losses.relative(MINE, ITS)) / 2)
    with pytest.raises(DataError, match="shapes"):
        losses.of_outputs(losses.relative, MINE, ITS[:2])
    with pytest.raises(DataError, match="shapes"):
        losses.of_outputs(losses.relative, ids, ids)
