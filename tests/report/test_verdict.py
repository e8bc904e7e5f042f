from __future__ import annotations

import pytest

from planish.record import Measurement
from planish.report.rows import Rows
from planish.report.verdict import judge


def _rows(ratio: float, spread: tuple[float, float] | None, chosen_size: float = 25.0, quality: float = 0.9) -> Rows:
    return Rows(
        [
            Measurement("size", 100.0, "B", "exact", subject="original"),
            Measurement("size", chosen_size, "B", "exact", subject="chosen"),
            Measurement("latency", 0.02, "s", "measured", subject="a", details={"role": "baseline"}),
            Measurement("latency", 0.02 / ratio, "s", "measured", subject="b", details={"role": "chosen"}),
            Measurement("speedup", ratio, "x", "measured", spread, "a", details={"role": "baseline"}),
            Measurement("accuracy", 0.9, "1", "measured", subject="original"),
            Measurement(
                "accuracy",
                quality,
                "1",
                "measured",
                (quality - 0.01, quality + 0.01),
                "chosen",
                details={"headline": True},
            ),
        ]
    )


def test_a_gain_is_said_with_its_factor() -> None:
    verdict = judge(_rows(2.5, (2.4, 2.6)), "net")
    assert (
        verdict.sentence == "net is 4.00× smaller and 2.50× faster than the best fp32 engine; accuracy 0.9000 → 0.9000."
    )
    assert [change.tone for change in verdict.changes] == ["better", "better", "same"]


def test_a_loss_is_called_one() -> None:
    verdict = judge(_rows(0.5, (0.48, 0.52), chosen_size=200.0, quality=0.8), "net")
    assert verdict.sentence.startswith("net is 2.00× larger and 2.00× slower than the best fp32 engine; ")
    assert [change.tone for change in verdict.changes] == ["worse", "worse", "worse"]


@pytest.mark.parametrize("ratio", [0.99, 1.02])
def test_a_ratio_whose_interval_holds_one_is_no_gain(ratio: float) -> None:
    verdict = judge(_rows(ratio, (0.9, 1.1)), "net")
    assert verdict.latency.tone == "same"
    assert "as fast as the best fp32 engine;" in verdict.sentence


def test_the_ratio_is_the_paired_one_not_the_quotient_of_medians() -> None:
    rows = [*_rows(2.5, (2.4, 2.6))]
    measured = [row.m for row in rows] + [
        Measurement("speedup", 2.2, "x", "measured", (2.1, 2.3), "a", details={"role": "baseline"})
    ]
    assert "2.20× faster" in judge(Rows(measured), "net").sentence


def test_nothing_measured_is_no_verdict() -> None:
    assert judge(Rows([]), "net").sentence == "net: nothing to compare yet."


def test_without_a_best_engine_it_is_held_against_eager() -> None:
    rows = [
        Measurement("latency", 0.02, "s", "measured", subject="eager fp32", details={"role": "eager"}),
        Measurement("latency", 0.01, "s", "measured", subject="b", details={"role": "chosen"}),
        Measurement("speedup", 2.0, "x", "measured", (1.9, 2.1), "eager fp32", details={"role": "eager"}),
    ]
    assert judge(Rows(rows), "net").sentence == "net is 2.00× faster than eager PyTorch."


def test_a_distance_to_the_original_is_neither_good_nor_bad() -> None:
    rows = [
        Measurement("size", 100.0, "B", "exact", subject="original"),
        Measurement("size", 50.0, "B", "exact", subject="chosen"),
        Measurement("mean_cosine", 1.0, "1", "measured", (1, 1), "original", details={"headline": True}),
        Measurement("mean_cosine", 0.99, "1", "measured", (0.98, 1), "chosen", details={"headline": True}),
    ]
    verdict = judge(Rows(rows), "net")
    assert verdict.sentence == "net is 2.00× smaller; mean cosine to the original 0.9900."
    assert verdict.quality.tone == "same"
