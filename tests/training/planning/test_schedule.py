from __future__ import annotations

import itertools

import pytest

from planish.training.planning.schedule import timeline
from planish.training.planning.setting import Setting


@pytest.mark.parametrize(
    ("schedule", "chunks", "bubbles"),
    [("gpipe", 1, 3), ("1f1b", 1, 3), ("interleaved", 2, 1.5)],
)
def test_a_step_takes_its_work_and_the_bubble_of_the_papers(schedule: str, chunks: int, bubbles: float) -> None:
    setting = Setting(pp=4, chunks=chunks, schedule=schedule, microbatches=8)  # type: ignore[arg-type]
    pieces = timeline(setting, [(1.0 / chunks, 2.0 / chunks)] * (4 * chunks))
    assert len(pieces) == 2 * 8 * 4 * chunks
    assert max(piece.end for piece in pieces) == pytest.approx(3 * (8 + bubbles), rel=0.12)
    for device in range(4):
        own = [piece for piece in pieces if piece.device == device]
        assert all(one.end <= other.start + 1e-9 for one, other in itertools.pairwise(own))


def test_1f1b_holds_fewer_microbatches_than_gpipe() -> None:
    def held(schedule: str) -> int:
        pieces = timeline(Setting(pp=4, schedule=schedule, microbatches=8), [(1.0, 2.0)] * 4)  # type: ignore[arg-type]
        counts = itertools.accumulate(1 if p.kind == "forward" else -1 for p in pieces if p.device == 0)
        return max(counts)

    assert held("gpipe") == 8
    assert held("1f1b") == 4


def test_a_long_step_shows_its_beginning() -> None:
    assert len(timeline(Setting(pp=8, microbatches=512), [(1.0, 2.0)] * 8)) <= 512
