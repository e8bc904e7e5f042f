"""Real sentences, rated by people.

- 23,703 snippets of film reviews, product reviews, newspaper editorials and tweets, each with the mean of some twenty
  ratings between -4 (negative) and 4 (positive): Hutto and Gilbert, "VADER" (ICWSM 2014), in vaderSentiment's source
  archive.
- 50 news texts with the mean similarity that people gave each pair: Lee, Pincombe and Welsh (2005), inside gensim.

Sentences are ordered by a hash of their text: any machine gets the same order, repeated sentences become one, and the
splits share none. A film snippet in `probe_train` or `probe_test` is in no other split; `training` is all that is left.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from planish.errors import DataError
from planish.models.data import package_file, source_archive

ARCHIVE = ("vaderSentiment", "3.3.2", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9")
GENRES = ("amazonReviewSnippets", "movieReviewSnippets", "nytEditorialSnippets", "tweets")
COUNTS = {"evaluation": 500, "validation": 500, "calibration": 512, "probe_train": 1000, "probe_test": 1000}
Split = Literal["evaluation", "validation", "calibration", "training", "probe_train", "probe_test"]


@dataclass(frozen=True)
class Rated:
    """A sentence, its kind, and the mean of its ratings from -4 to 4."""

    text: str
    genre: str
    rating: float


@cache
def rated_sentences() -> tuple[Rated, ...]:
    """All distinct sentences, in hash order; fetched on first use.

    Raises:
        DataError: The archive cannot be fetched or read.
    """
    path = source_archive(*ARCHIVE)
    name, version, _ = ARCHIVE
    rows: dict[str, Rated] = {}
    try:
        with tarfile.open(path) as outer:
            inner = outer.extractfile(f"{name}-{version}/additional_resources/hutto_ICWSM_2014.tar.gz")
            assert inner is not None, "the member is a file: the archive's hash is pinned"
            with tarfile.open(fileobj=io.BytesIO(inner.read())) as archive:
                for genre in GENRES:
                    member = archive.extractfile(f"hutto_ICWSM_2014/{genre}_GroundTruth.txt")
                    assert member is not None, "the member is a file: the archive's hash is pinned"
                    for line in member.read().decode().strip().split("\n"):
                        _, rating, text = line.split("\t", 2)
                        rows.setdefault(_key(text), Rated(text.strip(), genre, float(rating)))
    except (tarfile.TarError, OSError, EOFError, KeyError, ValueError) as error:
        raise DataError(f"the sentences cannot be read: {error}", str(path), "delete the file and run again") from error
    return tuple(rows[key] for key in sorted(rows))


def _key(text: str) -> str:
    """Equal for sentences that differ in case and spacing only."""
    return hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest()


@cache
def split(name: Split) -> tuple[Rated, ...]:
    """The sentences of one of the splits, `COUNTS[name]` of them, or all that no other has ("training").

    The probe's are film snippets that lean to one side; the others are of every kind.
    """
    ordered = rated_sentences()
    films = [row for row in ordered if row.genre == "movieReviewSnippets" and row.rating]
    probe = films[: COUNTS["probe_train"] + COUNTS["probe_test"]]
    if name in ("probe_train", "probe_test"):
        return tuple(probe[: COUNTS["probe_train"]] if name == "probe_train" else probe[COUNTS["probe_train"] :])
    taken = {row.text for row in probe}
    rest = [row for row in ordered if row.text not in taken]
    start = 0
    for other in ("evaluation", "validation", "calibration"):
        if other == name:
            break
        start += COUNTS[other]
    return tuple(rest[start:] if name == "training" else rest[start : start + COUNTS[name]])


@cache
def lee() -> tuple[tuple[str, ...], np.ndarray]:
    """The 50 texts of the Lee corpus, and their `(50, 50)` similarities by people, from 0 to 1.

    Raises:
        MissingExtra: gensim, whose wheel carries the files, is not installed; it is never imported.
    """
    corpus = package_file("gensim", "zoo", "gensim/test/test_data/lee.cor").read_text(encoding="cp1252")
    upper = np.loadtxt(package_file("gensim", "zoo", "gensim/test/test_data/similarities0-1.txt"))
    return tuple(corpus.strip().split("\n")), np.maximum(upper, upper.T)
