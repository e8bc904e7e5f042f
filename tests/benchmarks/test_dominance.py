"""The verdict of the benchmarks: a rival must be both faster and better, beyond chance."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.dominance import Quality, dominance

RNG = np.random.default_rng(0)
OURS = RNG.normal(size=(200, 16))
DRIFT = RNG.lognormal(0, 0.5, 40)  # the machine's, the same for both programs


def rival(speed: float, noise: float, our_noise: float = 0.1) -> str:
    wanted = OURS
    error = np.random.default_rng(3).normal(size=wanted.shape)
    theirs, ours = (Quality.of("cosine", wanted + level * error, wanted) for level in (noise, our_noise))
    seconds = DRIFT * np.random.default_rng(4).uniform(0.97, 1.03, 40)
    return dominance(seconds / speed, DRIFT, theirs, ours)[1]


@pytest.mark.parametrize(
    ("speed", "noise", "verdict"),
    [(1.5, 0.05, "dominates"), (1.5, 0.2, "does not"), (0.7, 0.05, "does not"), (0.7, 0.2, "does not")],
)
def test_a_rival_must_win_both(speed: float, noise: float, verdict: str) -> None:
    assert rival(speed, noise) == verdict


def test_equals_are_not_told_apart() -> None:
    assert rival(1.0, 0.05) in ("undecided", "dominates")
    assert rival(1.0, 0.2) == "does not"


def test_sqnr_is_ten_logarithms_of_energies() -> None:
    wanted = np.ones((10, 4))
    quality = Quality.of("sqnr", wanted * 1.1, wanted)
    assert quality.value() == pytest.approx(20)
    assert quality.interval() == pytest.approx((20, 20))
    assert Quality.of("sqnr", wanted, wanted).value() == pytest.approx(144.5, abs=0.1)


def test_cosine_ignores_length() -> None:
    assert Quality.of("cosine", 3 * OURS, OURS).value() == pytest.approx(1)
