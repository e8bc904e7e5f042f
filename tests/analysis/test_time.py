"""Peaks, the roofline over them, and measured times."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from planish.analysis import analyze, peaks, profile, roofline_time
from planish.analysis.peaks import Peak, Peaks
from planish.analysis.work import NodeCost, Work
from planish.errors import OptionError
from planish.frontends import capture

ROUND = Peaks(
    "a machine", 1, {"f32": Peak(1e9, "k"), "bf16": Peak(1e9, "k"), "int8": Peak(4e9, "k")}, Peak(1e8, "k"), 1e-6
)


def node(compute: str, **work: float) -> NodeCost:
    return NodeCost("n", "linear", "", "", "arithmetic", compute, Work(**work))


def test_roofline_by_hand() -> None:
    assert roofline_time(node("f32", flops=1e9, activation_bytes=1e7), ROUND) == pytest.approx(1 + 1e-6)
    assert roofline_time(node("int8", flops=1e9, activation_bytes=1e7), ROUND) == pytest.approx(0.25 + 1e-6)
    assert roofline_time(node("int8", flops=1e6, activation_bytes=1e7), ROUND) == pytest.approx(0.1 + 1e-6)
    assert roofline_time(node("f32"), ROUND) == 0


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Peaks, Path]:
    home = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        threads = torch.get_num_threads()
        found = peaks(refresh=True)
        assert torch.get_num_threads() == threads
        assert peaks() == found  # from the cache, else two measurements would differ
    return found, home


def test_peaks_are_plausible_cached_and_reported(measured: tuple[Peaks, Path]) -> None:
    found, home = measured
    assert len(list(home.glob("planish/*.json"))) == 1
    assert 1e9 < found.gemm["f32"].rate < 1e14
    assert 1e8 < found.memory.rate < 1e13
    assert 1e-8 < found.overhead < 1e-3
    rows = found.measurements()
    assert {row.subject for row in rows if row.name == "peak"} == {"gemm f32", "gemm bf16", "gemm int8", "memory"}
    assert all(row.source == "measured" for row in rows)
    assert Peaks.from_json(found.to_json()) == found


def test_measuring_again_never_lowers_a_peak(
    measured: tuple[Peaks, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    idle = replace(ROUND, gemm={**ROUND.gemm, "f32": Peak(9e9, "idle")}, overhead=9.0)
    busy = replace(ROUND, memory=Peak(9e8, "triad"))
    for one in (idle, busy):  # as many bursts as there are
        monkeypatch.setattr(sys.modules["planish.analysis.peaks"], "_measure", lambda _threads, one=one: one)
        found = peaks(refresh=True)
    assert (found.gemm["f32"], found.memory, found.overhead) == (Peak(9e9, "idle"), Peak(9e8, "triad"), 1e-6)
    assert peaks() == found


def test_a_peak_is_no_lower_than_what_was_seen() -> None:
    raised = ROUND.raised({"f32": Peak(2e9, "linear of fc"), "int8": Peak(1e9, "slower"), "memory": Peak(3e8, "add")})
    assert raised.gemm == {**ROUND.gemm, "f32": Peak(2e9, "linear of fc")}
    assert raised.memory == Peak(3e8, "add")
    row = next(row for row in raised.measurements() if row.subject == "gemm f32")
    assert row.details["kernel"] == "linear of fc"


def test_a_torn_cache_is_measured_again(measured: tuple[Peaks, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    _, home = measured
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    file = next(home.glob("planish/*.json"))
    file.write_text(file.read_text()[:40])
    assert peaks().cpu


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(OptionError, match="threads"):
        peaks(threads=10**4)


def test_profile_times_every_operation() -> None:
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8))
    graph = capture(model.eval(), (torch.zeros(16, 64),), training=False)
    seen: list[int] = []
    found = profile(graph, repeats=5, progress=lambda done, _total, _what: seen.append(done))
    assert list(found.timings) == [node.name for node in graph.nodes]
    assert seen == [1, 2, 3, 4, 5]
    rows = found.measurements()
    assert [row.details["op"] for row in rows] == ["linear", "relu", "linear"]
    assert all(row.spread[0] <= row.value <= row.spread[1] for row in rows)
    assert found.total == pytest.approx(sum(row.value for row in rows))


def test_modeled_times_are_marked_as_such() -> None:
    graph = capture(nn.Linear(4, 4).eval(), (torch.zeros(1, 4),), training=False)
    rows = analyze(graph).measurements(ROUND)
    assert [row.source for row in rows if row.name == "roofline_time"] == ["modeled"]
