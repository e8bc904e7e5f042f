"""The cost model: what was synthesized, within some percent; DSP blocks and memories exactly; from parameters alone."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.targets.fpga.blocks.base import Fold, Instance, Memory
from planish.targets.fpga.blocks.linear import LinearBlock
from planish.targets.fpga.blocks.lookup import LookupBlock
from planish.targets.fpga.program import Codes, Linear, Lookup, Value
from planish.targets.fpga.streamed.cost import cost, kept, predict
from planish.targets.fpga.streamed.counting import COUNTERS, parts
from planish.targets.fpga.toolchain.utilization import Utilization, total
from tests.support import require

ROWS: list[dict[str, Any]] = kept()["rows"]
WEIGHT = np.random.default_rng(0).integers(-31, 32, (32, 64))


def _linear(fold: Fold, weight: np.ndarray = WEIGHT) -> Instance:
    x = Value("x", (weight.shape[1],), Codes(0, 63))
    loose = Linear(("x",), Value("y", (len(weight),), Codes(-(2**40), 2**40)), weight)
    low, high = loose.bounds(x)
    return LinearBlock().instance(Linear(("x",), Value("y", (len(weight),), Codes(low, high)), weight), (x,), fold)


def _lookup(words: np.ndarray) -> Instance:
    x, y = Value("x", (4,), Codes(-16, 15)), Value("y", (4,), Codes(0, 255))
    return LookupBlock().instance(Lookup(("x",), y, words, -16), (x,), Fold(4, 4))


def _designs() -> dict[str, tuple[Utilization, Utilization]]:
    found: dict[str, list[tuple[Utilization, Utilization]]] = defaultdict(list)
    for row in ROWS:
        guess = predict(row["module"], row["parameters"], kept()["prices"])
        found[row["design"]].append((guess, Utilization(**row["used"])))
    return {name: (total(a for a, _ in pairs), total(b for _, b in pairs)) for name, pairs in found.items()}


def test_some_two_hundred_designs_are_kept_with_every_block() -> None:
    assert len(_designs()) >= 200
    assert set(COUNTERS) - {row["module"] for row in ROWS} == {"replay"}  # part of others; alone it is only wires


def test_each_module_of_a_block_is_counted() -> None:
    for row in ROWS:
        count = COUNTERS[row["module"]](row["parameters"])
        assert min(count.ff, count.carries, count.ram, count.dsp, count.bram) >= 0
        assert min(count.logic.values()) >= 0


def test_dsp_blocks_and_block_memories_are_exact() -> None:
    for name, (guess, true) in _designs().items():
        assert (guess.dsp, guess.bram) == (true.dsp, true.bram), name


def test_flip_flops_carries_and_small_memories_follow_rules() -> None:
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    for name, (guess, true) in _designs().items():
        kind = name.rpartition("-")[0]
        errors[kind, "ff"].append(abs(guess.ff - true.ff) / max(true.ff, 40))
        errors[kind, "carries"].append(2 * abs(guess.ccu2c - true.ccu2c) / max(true.lut, 40))
        assert guess.ram == true.ram, name
    for which, found in errors.items():
        assert np.mean(found) <= 0.03, which


def test_the_kept_prices_are_those_of_the_kept_designs() -> None:
    require("scipy")
    from benchmarks.fpga.fit import fitted

    prices = fitted(ROWS)
    for row in ROWS:
        again = predict(row["module"], row["parameters"], prices).lut4
        assert again == pytest.approx(predict(row["module"], row["parameters"], kept()["prices"]).lut4, rel=0.02, abs=2)


def test_held_out_designs_and_networks_are_within_8_percent() -> None:
    require("scipy")
    from benchmarks.fpga.fit import errors

    found = errors(ROWS)
    assert found["wrong"] == {"dsp": [], "bram": []}
    for group in ("all", "blocks", "networks"):
        assert found["errors"][group]["lut"] <= 0.08
        assert found["errors"][group]["ff"] <= 0.08


def test_more_at_once_takes_more() -> None:
    found = [cost(_linear(Fold(simd, 4))) for simd in (2, 4, 8, 16)]
    for fewer, more in pairwise(found):
        assert fewer.lut < more.lut
        assert fewer.ff < more.ff
        assert fewer.dsp * 2 == more.dsp


@given(st.integers(1, 16), st.integers(1, 12), st.booleans(), st.sampled_from([1, 3, 31]))
def test_more_rows_at_once_never_take_fewer_products(simd: int, pe: int, dsp: bool, largest: int) -> None:
    weight = np.clip(WEIGHT, -largest, largest)
    fewer, more = (cost(_linear(Fold(simd, rows, dsp), weight)) for rows in (pe, pe + 1))
    assert fewer.dsp <= more.dsp
    assert fewer.ccu2c <= more.ccu2c
    assert (more.dsp > 0) == (dsp and largest > 1)


def test_products_in_tables_take_no_dsp_block() -> None:
    assert cost(_linear(Fold(8, 4, dsp=False))).dsp == 0
    assert cost(_linear(Fold(8, 4, dsp=False))).lut > cost(_linear(Fold(8, 4))).lut
    assert cost(_linear(Fold(8, 4))).dsp == 16  # two rows share one
    assert cost(_linear(Fold(8, 1))).dsp == 8


def test_a_block_of_somebody_elses_is_guessed_from_its_wires() -> None:
    small = Instance("mine", {}, lanes_in=(1,), lanes_out=1)
    table = Memory(np.zeros(4096, dtype=np.int64), 9)
    large = Instance("mine", {}, {"TABLE": table}, lanes_in=(8,), lanes_out=8)
    assert 0 < cost(small).lut < cost(large).lut
    assert 0 < cost(small).ff < cost(large).ff
    assert (cost(small).bram, cost(large).bram) == (0, 2)


def test_parts_follow_their_systemverilog() -> None:
    assert parts.tree(4, 8) == (9 + 9 + 10, 5 + 5 + 5, 0)
    assert parts.tree(3, 8) == (9 + 8 + 10, 5 + 5, 0)  # an odd one goes on alone
    assert parts.tree(4, 8, most=9)[0] == 27
    assert parts.tree(2, 3) == (4, 0, 4)  # too few bits for a carry chain
    assert parts.mult((18, 1), (18, 1), 1, 64, 0, 0) == (0, 0, 0, 0, 1)
    # seen on yosys 0.70: what is left of a wide number after parts of 18 bits goes to tables if it is one bit
    assert [parts.mult((bits, 1), (12, 0), 1, 64, 0, 0)[-1] for bits in (18, 19, 20, 26, 36, 37)] == [1, 1, 2, 2, 2, 2]
    assert parts.mult((25, 1), (13, 0), 1, 64, 0, 0)[-1] == 2
    registers, carries, chosen, _, dsp = parts.mult((6, 0), (6, 1), 0, 64, 0, 0)
    assert (registers, carries, chosen, dsp) == (3 * 8 + 11 + 8 + 12, 4 * 3 + 5 + 4, 36, 0)
    assert parts.blocks(36, 512) == (1, 1)
    assert parts.blocks(18, 1024) == parts.blocks(9, 2048) == (1, 1)
    assert parts.blocks(37, 512) == (2, 1)
    assert parts.blocks(36, 1024)[0] == 2
    assert parts.ram(8, 16) == (2, 0, 1)
    assert parts.ram(36, 512) == (0, 1, 1)
    assert parts.trailing_zeros(24) == 3
    assert parts.distinct(10, 1) == 0
    assert parts.distinct(100, 2) <= 2
    assert parts.distinct(10, 500) == 10


@pytest.mark.parametrize(("width", "block"), [(16, 0), (17, 1)])
def test_yosys_moves_a_large_table_to_block_memory(width: int, block: int) -> None:
    count = parts.Count("mine")
    count.rom(width, 128)
    assert count.bram == block
    assert count.ff == (0 if block else 2 * width)


def test_a_table_costs_what_varies_in_it() -> None:
    nothing, wires, smooth, noise = (
        np.zeros(32, dtype=np.int64),
        np.arange(32) * 8,
        np.rint(np.tanh(np.arange(32) / 16) * 255).astype(np.int64),
        np.random.default_rng(0).integers(0, 256, 32),
    )
    assert cost(_lookup(nothing)).lut == cost(_lookup(wires)).lut < cost(_lookup(smooth)).lut < cost(_lookup(noise)).lut
    assert cost(_lookup(nothing)).ff == 2
    assert cost(_lookup(wires)).ff == 2 + 4 * 2 * 5  # three of eight bits are never set
