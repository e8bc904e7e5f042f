"""Does one program beat another in speed and in quality at once? By paired bootstrap.

Rounds of timing are resampled together for both, and so are the judged rows. A rival *dominates* us where it is at
least as fast and at least as good in 95 % of the resamples; it does not where that happens in fewer than 5 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

RESAMPLES = 2000
Verdict = Literal["dominates", "undecided", "does not"]


@dataclass(frozen=True)
class Quality:
    """Fidelity to fp32.

    Attributes:
        kind: "cosine": the mean over rows; "sqnr": in dB, energy of the answers over that of the differences.
        terms: What each judged row adds: `(rows, 1)` cosines, or `(rows, 2)` energies of signal and noise.
    """

    kind: str
    terms: np.ndarray

    @classmethod
    def of(cls, kind: str, given: np.ndarray, wanted: np.ndarray) -> Quality:
        """Compare answers `(rows, features)` with those of fp32."""
        given, wanted = given.astype(np.float64), wanted.astype(np.float64)
        if kind == "cosine":
            norms = np.linalg.norm(given, axis=1) * np.linalg.norm(wanted, axis=1)
            return cls(kind, ((given * wanted).sum(1) / norms)[:, None])
        return cls(kind, np.stack([(wanted**2).sum(1), ((given - wanted) ** 2).sum(1)], axis=1))

    def value(self) -> float:
        """The number that is reported."""
        return float(self._reduce(self.terms.mean(0)))

    def resampled(self, picks: np.ndarray) -> np.ndarray:
        """The number for each row of `picks`, which are places of judged rows."""
        return self._reduce(self.terms[picks].mean(1))

    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval."""
        low, high = np.percentile(self.resampled(_picks(len(self.terms), 0)), [2.5, 97.5])
        return float(low), float(high)

    def _reduce(self, mean: np.ndarray) -> np.ndarray:
        if self.kind == "cosine":
            return mean[..., 0]
        # differences below float32's own rounding are no quality
        return 10 * np.log10(mean[..., 0] / np.maximum(mean[..., 1], 2.0**-48 * mean[..., 0]))


def dominance(
    rival_seconds: np.ndarray, our_seconds: np.ndarray, rival: Quality, ours: Quality
) -> tuple[float, Verdict]:
    """Share of resamples in which the rival is at least as fast and as good, and what follows from it.

    Args:
        rival_seconds: Of each round.
        our_seconds: Of the same rounds.
        rival: On the same judged rows as `ours`.
        ours: Our quality.
    """
    rounds = _picks(len(our_seconds), 1)
    faster = np.median((rival_seconds / our_seconds)[rounds], axis=1) <= 1
    rows = _picks(len(ours.terms), 2)
    better = rival.resampled(rows) >= ours.resampled(rows)
    share = float((faster & better).mean())
    return share, "dominates" if share >= 0.95 else "does not" if share < 0.05 else "undecided"


def _picks(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
