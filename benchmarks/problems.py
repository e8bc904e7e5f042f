"""What is timed and judged: models with their data, as every peer reads it (named numpy arrays).

Ranges are calibrated on the calibration split and options chosen on the validation split; the evaluation split is only
judged on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from planish.models import get, minilm, sentences
from planish.models.task import Task

Feed = Mapping[str, np.ndarray]
Call = Callable[[Feed], np.ndarray]


@dataclass(frozen=True)
class Problem:
    """A model, an input shape, and the data it is calibrated and judged on.

    Attributes:
        model: Name in `planish models`.
        shape: "128": sentences padded to 128 tokens, timed without padding; "stream": one after the other, unpadded;
            "": the only shape there is.
        batch: Rows in a call.
        judged: Rows of the evaluation split.
    """

    model: str
    shape: str
    batch: int
    judged: int = 500

    @property
    def name(self) -> str:
        """For tables and files."""
        return "-".join(filter(None, [self.model, self.shape, f"b{self.batch}"]))

    @property
    def is_text(self) -> bool:
        """Whether it reads sentences."""
        return self.model == "minilm"

    @property
    def is_transformer(self) -> bool:
        """Whether presets for transformers apply."""
        return self.model in ("minilm", "vit_tiny")

    @property
    def kind(self) -> str:
        """How fidelity to fp32 is told: "cosine" for embeddings, "sqnr" for logits."""
        return "cosine" if self.is_text else "sqnr"

    @cached_property
    def task(self) -> Task:
        """The model with its data, as Planish gets it."""
        if self.is_text:
            return minilm.minilm(length=128 if self.shape == "128" else None)
        # a network of random weights has no accuracy: more images would only narrow the interval of the SQNR
        return get(self.model)(count=64)

    @cached_property
    def module(self) -> nn.Module:
        """The fp32 network."""
        return self.task.model

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return ("input_ids", "attention_mask") if self.is_text else tuple(self.task.dynamic or ("x",))

    def feed(self, args: Sequence[Tensor]) -> Feed:
        """Positional tensors as named arrays."""
        return {name: tensor.contiguous().numpy() for name, tensor in zip(self.arguments, args, strict=True)}

    def calibration(self, count: int = 300) -> list[Feed]:
        """Single rows of natural length: padding would widen no range, and costs time."""
        if self.is_text:
            rows = sentences.split("calibration")[:count]
            return [self.feed(minilm.encode([row.text])) for row in rows]
        return self._images("calibration", 1)[:count]

    def padded(self, count: int) -> list[Feed]:
        """Calibration rows of one length, for a tool that takes no others."""
        if not self.is_text:
            return self.calibration(count)
        return [self.feed(minilm.encode([row.text], 128)) for row in sentences.split("calibration")[:count]]

    def rows(self, split: sentences.Split, count: int) -> list[Feed]:
        """`count` rows of a split, in whole calls of the timed batch and shape."""
        if not self.is_text:
            return self._images(split, self.batch)[: max(1, count // self.batch)]
        texts = [row.text for row in sentences.split(split)[: count - count % self.batch]]  # sizes may be fixed
        length = 128 if self.shape == "128" else None
        parts = [texts[start : start + self.batch] for start in range(0, len(texts), self.batch)]
        return [self.feed(minilm.encode(part, length)) for part in parts]

    def timed(self) -> list[Feed]:
        """The calls of one timed run: one call, or 20 of a stream."""
        if self.shape == "stream":
            return self.rows("validation", 20 * self.batch)
        if self.is_text:
            return [self.feed(minilm.full(self.batch))]
        return self._images("calibration", self.batch)[:1]

    def reference(self, feeds: Sequence[Feed]) -> np.ndarray:
        """What the fp32 network answers."""
        return answers(self.eager, feeds)

    def tensors(self, feed: Feed) -> list[Tensor]:
        """The inputs of a PyTorch module."""
        return [torch.from_numpy(feed[name]) for name in self.arguments]

    def eager(self, feed: Feed) -> np.ndarray:
        """The fp32 network, run by PyTorch as it is."""
        with torch.no_grad():
            return self.module(*self.tensors(feed)).numpy()

    def _images(self, split: str, batch: int) -> list[Feed]:
        images = torch.cat([item[0][0] for item in getattr(self.task, split)])
        whole = len(images) - len(images) % batch
        return [self.feed((part,)) for part in images[:whole].split(batch)]


def answers(call: Call, feeds: Sequence[Feed]) -> np.ndarray:
    """The answers to all calls, rows one below the other; copied, since engines reuse their buffers."""
    return np.concatenate([np.array(call(feed)) for feed in feeds])
