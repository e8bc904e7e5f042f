"""A design on an FPGA in the terminal and on the page: its blocks, its budget, and the clock that it misses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from planish.record import Measurement, Run
from planish.report import write
from planish.report.hardware import hardware
from planish.report.rows import Rows
from tests.report.test_terminal import printed

LINEAR, TABLE = "body_linear", "act_lookup"


def rows(reached: float = 108.0) -> Iterator[Measurement]:
    """As a run of two blocks leaves them."""
    yield Measurement("model", 4_160, "1", "exact", subject="small", details={"task": "digits", "input": "64"})
    for subject, value in (("original", 0.97), ("chosen", 0.96)):
        yield Measurement("accuracy", value, "1", "measured", subject=subject, details={"higher_is_better": True})
    yield Measurement("interval", 224, "cycles", "simulated", details={"device": "ecp5-25k", "MHz": reached})
    yield Measurement("latency", 6.7e-6, "s", "simulated", subject="chosen")
    yield Measurement("throughput", reached * 1e6 / 224, "samples/s", "simulated")
    yield Measurement("energy", 8.8e-7, "J", "modeled")
    yield Measurement("fmax", reached, "MHz", "synthesized", (reached - 4, reached), details={"clock": 120.0})
    cells = {"lut": "LUT4", "ff": "FF", "dsp": "DSP", "bram": "BRAM"}
    for kind, unit in cells.items():
        yield Measurement("budget", 1_000, unit, "exact", subject=kind)
        yield Measurement(kind, 400, unit, "synthesized")
    for instance, path, module, cycles, lut in ((LINEAR, "body", "matvec", 224, 300), (TABLE, "act", "lookup", 64, 60)):
        told = {"instance": instance, "module": module}
        yield Measurement("cycles", cycles, "cycles", "exact", where=path, details=told)
        yield Measurement("lut", lut, "LUT4", "synthesized", where=path, details={"instance": instance})
    yield Measurement("lut", 40, "LUT4", "synthesized", details={"instance": "body_linear_lanes"})
    yield Measurement("critical path", 9.2e-9, "s", "synthesized", where="act", details={"instance": TABLE, "place": 0})


def test_blocks_have_shares_and_connectors_are_none() -> None:
    found = hardware(Rows(list(rows())))
    assert found is not None
    assert [(block.label, block.kind) for block in found.blocks] == [("body", "matvec"), ("act", "lookup")]
    assert found.share(found.blocks[1], "cycles") == pytest.approx(64 / 224)
    assert found.share(found.blocks[0], "lut") == pytest.approx(300 / 360)
    assert found.share(found.blocks[0], "dsp") == 0
    assert "body sets the pace" in found.caption
    assert "act" in found.caption.split("critical path", 1)[1]


@pytest.mark.parametrize(("reached", "told"), [(108.0, True), (131.0, False)])
def test_a_clock_that_is_missed_is_told(tmp_path: Path, reached: float, told: bool) -> None:
    run = Run(tmp_path)
    run.add(list(rows(reached)))
    page = write(tmp_path).read_text(encoding="utf-8")
    assert ("120 MHz asked for" in page) == told
    assert ("not reached" in page) == told
    assert "matvec" in page
    assert "224" in printed(run)


def test_a_run_of_no_fpga_has_no_hardware() -> None:
    assert hardware(Rows([row for row in rows() if row.name != "interval"])) is None
