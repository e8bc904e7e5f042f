"""Folds for a budget or a pace: against trying everything."""

from __future__ import annotations

from itertools import product

import pytest

from planish.errors import OptionError, UserError
from planish.targets.fpga.blocks.base import Instance
from planish.targets.fpga.folding import Folding, choices, choose
from planish.targets.fpga.utilization import Utilization
from tests.targets.fpga.programs import mlp_program


def cost(instance: Instance) -> Utilization:
    """Something that grows with the lanes, and with the products that are made at once."""
    at = instance.parameters
    products = at.get("SIMD", 0) * at.get("PE", 0)
    dsp = products if at.get("STYLE") in (1, 2) else 0
    return Utilization(10 * (sum(instance.lanes_in) + instance.lanes_out) + 30 * (products - dsp), 0, products, dsp)


def test_the_fastest_that_fits_is_the_fastest_of_all() -> None:
    program = mlp_program((7, 5, 3))
    budget = {"lut": 900, "dsp": 3}
    options = [[(each.output.name, choice) for choice in choices(program, each, cost)] for each in program.operations]
    fits = [Folding(dict(picked)) for picked in product(*options)]
    fastest = min(each.interval for each in fits if not each.excess(budget))
    found = choose(program, budget, cost)
    assert not found.excess(budget)
    assert found.interval == fastest


def test_a_pace_is_kept_at_the_least_cost() -> None:
    program = mlp_program((7, 5, 3))
    for pace in (35, 20, 8):
        found = choose(program, {"lut": 10**6}, cost, pace)
        assert found.interval <= pace
        for each in program.operations:
            able = [choice.cost.lut for choice in choices(program, each, cost) if choice.interval <= pace]
            assert found.choices[each.output.name].cost.lut == min(able)


def test_more_budget_is_never_slower() -> None:
    program = mlp_program()
    paces = [choose(program, {"lut": lut, "dsp": 8}, cost).interval for lut in (1500, 2500, 5000, 20000)]
    assert paces == sorted(paces, reverse=True)
    assert paces[0] > paces[-1]


def test_products_move_to_tables_where_dsp_blocks_are_scarce() -> None:
    program = mlp_program()
    assert choose(program, {"lut": 10**6, "dsp": 0}, cost, 20).cost.dsp == 0
    assert choose(program, {"lut": 10**6, "dsp": 6}, cost, 20).cost.dsp <= 6


def test_what_is_too_large_is_told_with_what_would_fit() -> None:
    program = mlp_program()
    with pytest.raises(UserError, match=r"needs [\d,]+ LUT4-equivalents where there are 10 \(\+\d+%\)"):
        choose(program, {"lut": 10}, cost)
    with pytest.raises(UserError, match=r"try:   \d+ cycles a sample fit"):
        choose(program, {"lut": 1500, "dsp": 4}, cost, 1)
    with pytest.raises(OptionError, match="cycles at least, not 0"):
        choose(program, {}, cost, 0)
