"""LetterRecognition, and a perceptron trained on it.

20,000 printed capital letters, each as 16 whole numbers from 0 to 15 (moments and edge counts of the pixels): Frey and
Slate, "Letter Recognition Using Holland-style Adaptive Classifiers" (1991), UCI; inside the Debian package
r-cran-mlbench. As its authors did, the first 16,000 train and the last 4,000 judge; of the former 1,000 are kept to
calibrate with and 1,000 to choose options by.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from planish.models.data import Batches, debian_file
from planish.models.mlp import MLP
from planish.models.rda import read_frame
from planish.models.task import Task
from planish.models.weights import read_weights

FILE = (
    "r-cran-mlbench",
    "usr/lib/R/site-library/mlbench/data/LetterRecognition.rda",
    "967a1a3e10b548d7269cbe50182bcecd6365cc58ea07638bbc34c51f17f34f1d",
)
WIDTHS = (16, 192, 128, 26)
Split = Literal["train", "calibration", "validation", "evaluation"]
SPLITS: dict[Split, tuple[int, int]] = {
    "train": (0, 14_000),
    "calibration": (14_000, 15_000),
    "validation": (15_000, 16_000),
    "evaluation": (16_000, 20_000),
}


@cache
def _load() -> tuple[Tensor, Tensor]:
    frame = read_frame(debian_file(*FILE))
    labels = torch.tensor(frame.pop("lettr"), dtype=torch.int64)
    return torch.tensor(np.stack(list(frame.values()), 1), dtype=torch.float32) / 7.5 - 1, labels


def letters(split: Split) -> tuple[Tensor, Tensor]:
    """Features `(count, 16)` between -1 and 1, and the letters `(count,)` from 0 to 25.

    Raises:
        DataError: The data is not installed and cannot be fetched.
    """
    features, labels = _load()
    rows = slice(*SPLITS[split])
    return features[rows], labels[rows]


def batches(split: Split, size: int = 100) -> Batches:
    """Features with letters as targets, in batches."""
    x, y = letters(split)
    items = [((a,), {}, b) for a, b in zip(x.split(size), y.split(size), strict=True)]
    return Batches(items, f"{len(x):,} printed letters of LetterRecognition ({split})")


def mlp() -> Task:
    """A perceptron on 16 features of printed letters."""
    model = MLP(WIDTHS)
    accuracy = read_weights("letters", model)
    return Task(
        model=model,
        example_inputs=(letters("calibration")[0][:2],),
        calibration=batches("calibration"),
        evaluation=batches("evaluation"),
        validation=batches("validation"),
        metric=("accuracy", "sqnr"),
        name="letters",
        dynamic={"x": {0: "batch"}},
        family="multilayer perceptron",
        description=f"trained on LetterRecognition by benchmarks/train_tasks.py, {accuracy}",
    )
