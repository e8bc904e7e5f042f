from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planish import metrics
from planish.errors import DataError, EngineError, UnknownName
from tests.support import require

GENERATOR = torch.Generator().manual_seed(0)


def batches(outputs, targets, size=7):
    """Data for the identity model: its input is the output that is judged."""
    return [((o,), {}, t) for o, t in zip(outputs.split(size), targets.split(size), strict=True)]


def identity(x):
    return x


def test_accuracy_equals_sklearn_and_wilson():
    sklearn_metrics = require("sklearn.metrics")
    scores, labels = torch.randn(100, 5, generator=GENERATOR), torch.randint(5, (100,), generator=GENERATOR)
    row = metrics.accuracy(identity, batches(scores, labels))
    assert row.value == pytest.approx(sklearn_metrics.accuracy_score(labels, scores.argmax(1)))
    from scipy.stats import binomtest

    oracle = binomtest(round(100 * row.value), 100).proportion_ci(method="wilson")
    assert row.spread == pytest.approx((oracle.low, oracle.high), rel=1e-6)
    assert row.details["count"] == 100
    assert row.source == "measured"


def test_accuracy_of_pixels():
    scores = torch.randn(4, 3, 5, 5, generator=GENERATOR)
    assert metrics.accuracy(identity, batches(scores, scores.argmax(1))).value == 1
    with pytest.raises(DataError, match="class numbers"):
        metrics.accuracy(identity, batches(scores, torch.zeros(4, dtype=torch.int64)))


def test_pearson_equals_scipy():
    x, y = torch.randn(60, generator=GENERATOR), torch.randn(60, generator=GENERATOR)
    from scipy.stats import pearsonr

    oracle = pearsonr(x.numpy(), y.numpy())
    row = metrics.pearson(identity, batches(x, y))
    assert row.value == pytest.approx(oracle.statistic, abs=1e-6)
    assert row.spread == pytest.approx(tuple(oracle.confidence_interval(0.95)), abs=1e-5)


def test_perplexity_equals_its_definition():
    logits, tokens = torch.randn(9, 6, 11, generator=GENERATOR), torch.randint(11, (9, 6), generator=GENERATOR)
    tokens[3, 4:] = -100
    oracle = torch.nn.functional.cross_entropy(logits.reshape(-1, 11), tokens.reshape(-1)).exp()
    assert metrics.perplexity(identity, batches(logits, tokens)).value == pytest.approx(oracle.item(), rel=1e-6)


def test_uniform_perplexity_is_the_vocabulary():
    data = batches(torch.zeros(4, 3, 17), torch.zeros(4, 3, dtype=torch.int64))
    row = metrics.perplexity(identity, data)
    assert row.value == pytest.approx(17)
    assert row.spread == pytest.approx((17, 17))


@pytest.mark.parametrize("decibels", [0.0, 20.0, 60.0])
def test_sqnr_of_known_noise(decibels):
    signal = torch.randn(50, 200, generator=GENERATOR)
    noise = torch.randn(50, 200, generator=GENERATOR)
    noise *= signal.norm() / noise.norm() * 10 ** (-decibels / 20)
    row = metrics.sqnr(identity, batches(signal + noise, signal))
    assert row.value == pytest.approx(decibels, abs=1e-3)
    assert row.spread[0] <= row.value <= row.spread[1]


def test_sqnr_of_equal_outputs_is_finite():
    x = torch.randn(3, 4, generator=GENERATOR)
    assert metrics.sqnr(identity, batches(x, x)).value == pytest.approx(20 * math.log10(2**24))


@settings(max_examples=20)
@given(st.floats(0.1, 10), st.integers(2, 12))
def test_mean_cosine_ignores_scale(scale, rows):
    x = torch.randn(rows, 5, generator=torch.Generator().manual_seed(rows))
    assert metrics.mean_cosine(identity, batches(scale * x, x)).value == pytest.approx(1, abs=1e-6)
    assert metrics.mean_cosine(identity, batches(-scale * x, x)).value == pytest.approx(-1, abs=1e-6)


def test_mse_and_its_interval_cover_the_truth():
    noise = torch.randn(200, 10, generator=GENERATOR)
    row = metrics.mse(identity, batches(noise, torch.zeros_like(noise)))
    assert row.value == pytest.approx(noise.square().mean().item(), rel=1e-6)
    assert row.spread[0] < 1 < row.spread[1]


def test_batch_size_changes_nothing():
    x, y = torch.randn(30, 8, generator=GENERATOR), torch.randn(30, 8, generator=GENERATOR)
    for name in ("mean_cosine", "sqnr", "mse", "pearson"):
        metric = metrics.get(name)
        one, other = (metric(identity, batches(x, y, size)) for size in (1, 30))
        assert one.value == pytest.approx(other.value)
        np.testing.assert_allclose(one.spread, other.spread)


def test_with_reference_runs_the_model_once():
    calls = []

    def model(x):
        calls.append(1)
        return {"hidden": x[:, :1], "logits": 2 * x}

    data = metrics.with_reference(model, batches(torch.randn(14, 3), torch.zeros(14)))
    first, second = list(data), list(data)
    assert len(calls) == 2
    torch.testing.assert_close(first[1][2], 2 * first[1][0][0])
    assert all(a[2] is b[2] for a, b in zip(first, second, strict=True))
    assert metrics.mean_cosine(model, data).value == pytest.approx(1)
    assert len(calls) == 4
    assert metrics.mean_cosine(data.recall(), data).value == pytest.approx(1)
    assert len(calls) == 4


@pytest.mark.parametrize(
    "output", [torch.ones(2), {"logits": torch.ones(2)}, (torch.ones(2), None), [(torch.ones(2),)]]
)
def test_read_tensor(output):
    assert metrics.read_tensor(output).shape == (2,)


def test_bad_input_is_named():
    x = torch.ones(2, 3)
    with pytest.raises(UnknownName, match="did you mean 'accuracy'"):
        metrics.get("acuracy")
    with pytest.raises(DataError, match="no data"):
        metrics.mse(identity, [])
    with pytest.raises(DataError, match="with_reference"):
        metrics.sqnr(identity, [((x,), {})])
    with pytest.raises(DataError, match="shape"):
        metrics.mse(identity, [((x,), {}, torch.ones(5))])
    with pytest.raises(EngineError, match="NaN"):
        metrics.mse(identity, [((x * torch.nan,), {}, x)])
    with pytest.raises(DataError, match="returned str"):
        metrics.mse(lambda x: "text", [((x,), {}, x)])
