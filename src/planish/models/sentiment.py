"""MiniLM-L6 as a classifier: does a film snippet speak well or ill of the film?

The encoder with its real weights and a linear layer trained on its embeddings. The snippets are the film reviews of
`planish.models.sentences`, rated by people; those of rating 0 are left out.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from planish.models.data import Batches
from planish.models.minilm import SentenceEncoder, encoder, full, text_batches
from planish.models.sentences import rated_sentences
from planish.models.task import Task
from planish.models.weights import read_weights

NAME = "minilm_sentiment"
Split = Literal["train", "calibration", "validation", "evaluation"]
SPLITS: dict[Split, tuple[int, int]] = {
    "train": (0, 5000),
    "calibration": (5000, 7000),
    "validation": (7000, 8000),
    "evaluation": (8000, 10_000),
}


class SentimentClassifier(nn.Module):
    """A sentence encoder and a linear layer."""

    def __init__(self, sentences: SentenceEncoder) -> None:
        super().__init__()
        self.sentences, self.classifier = sentences, nn.Linear(384, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Tokens and mask `(batch, sequence)` to logits `(batch, 2)`: against, for."""
        return self.classifier(self.sentences(input_ids, attention_mask))


def batches(split: Split, count: int | None = None, size: int = 25, padded: bool = True) -> Batches:
    """The first `count` snippets of a split with 0 (against) or 1 (for) as targets, those of like length together.

    Args:
        split: Which of `SPLITS`.
        count: How many of it; by default all.
        size: Snippets in an item; the last one may hold fewer.
        padded: False puts only snippets of one length together.
    """
    first, last = SPLITS[split]
    films = [row for row in rated_sentences() if row.genre == "movieReviewSnippets" and row.rating]
    rows = films[first : last if count is None else min(last, first + count)]
    described = f"{len(rows):,} film snippets rated by people ({split}), vaderSentiment"
    signs = [int(row.rating > 0) for row in rows]
    return text_batches([row.text for row in rows], described, signs, size, padded=padded)


@cache
def embeddings(split: Split) -> tuple[Tensor, Tensor]:
    """What the encoder makes of a split, `(count, 384)`, and the targets `(count,)`."""
    model, parts = encoder(), []
    with torch.no_grad():
        for args, _, target in batches(split, size=50).items:
            parts.append((model(*args), target))
    return torch.cat([part for part, _ in parts]), torch.cat([target for _, target in parts])


def minilm_sentiment(count: int = 2000) -> Task:
    """The classifier as a task, judged on `count` snippets."""
    model = SentimentClassifier(encoder())
    accuracy = read_weights(NAME, model.classifier)
    names = {0: "batch", 1: "sequence"}
    return Task(
        model=model,
        example_inputs=full(2),
        calibration=batches("calibration", 500, padded=False),
        evaluation=batches("evaluation", count),
        validation=batches("validation"),
        metric=("accuracy", "sqnr"),
        name=NAME,
        dynamic={"input_ids": names, "attention_mask": names},
        family="transformer encoder",
        description=f"MiniLM-L6 with a linear layer trained by benchmarks/train_tasks.py, {accuracy}; film snippets",
    )
