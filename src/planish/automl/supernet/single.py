"""Weight sharing by one path at a time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Literal

from planish.automl.supernet.flow import flows, positive
from planish.automl.supernet.network import Supernet
from planish.automl.supernet.rank import MOST, rank, some_points, with_prior
from planish.automl.supernet.result import (
    Diary,
    Loss,
    Progress,
    Result,
    Weights,
    as_list,
    check_positive,
    endless,
    fair,
)
from planish.training import randomness


@dataclass(frozen=True)
class SinglePath:
    """Train a supernet by one random path a step, then rank all points with its weights.

    Guo et al., "Single Path One-Shot" (arXiv 1904.00420); every option is trained equally often, as in FairNAS
    (arXiv 1907.01845). Points are judged by their loss on the validation data, batch norms calibrated for each.

    Attributes:
        steps: Of training.
        learning_rate: The highest; it rises and falls once.
        weight_decay: Of AdamW.
        most: As many points are ranked, drawn at random where there are more.
        prior: "synflow" ranks by the sum of two places, that by the loss and that by the synaptic flow of the untrained
            supernet; None by the loss alone.
    """

    steps: int = 500
    learning_rate: float = 2e-2
    weight_decay: float = 1e-2
    most: int = MOST
    prior: Literal["synflow"] | None = "synflow"

    def __post_init__(self) -> None:
        check_positive(steps=self.steps, learning_rate=self.learning_rate, most=self.most)

    def run(
        self, net: Supernet, training: Any, validation: Any, loss: Loss, seed: int = 0, progress: Progress | None = None
    ) -> Result:
        """Search.

        Args:
            net: Is trained.
            training: Items that weights learn from.
            validation: Items that points are judged on.
            loss: `(module, item)` to a scalar.
            seed: Of paths and the order of data.
            progress: Called with (done, total, what).
        """
        train, judged = as_list(training, "training"), as_list(validation, "validation")
        diary = Diary(self.steps, progress)
        points = some_points(net, self.most, seed)
        flow = flows(positive(net), points) if self.prior else []
        with randomness.seeded(seed):
            self._train(net, train, loss, random.Random(seed), diary)
        ranking = rank(net, points, judged, loss)
        if self.prior:
            ranking = with_prior(ranking, points, flow)
        return Result(dict(ranking[0][0]), ranking, tuple(diary.rows))

    def _train(self, net: Supernet, train: list[Any], loss: Loss, chance: random.Random, diary: Diary) -> None:
        weights = Weights.of(net, self.learning_rate, self.weight_decay, self.steps)
        paths, data = fair([len(slot.labels) for slot in net.slots], chance), endless(train, chance)
        net.train()
        for step in range(self.steps):
            net.choice = list(next(paths))
            diary.write(step, loss=weights.step(loss(net, next(data))))
        net.eval()
