"""The cost model: what was synthesized, within some percent; DSP blocks and memories exactly; in microseconds."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest

from planish.targets.fpga import cost as model
from planish.targets.fpga.blocks.base import Fold, Instance, Memory
from planish.targets.fpga.blocks.linear import LinearBlock
from planish.targets.fpga.cost import cost, kept, predict
from planish.targets.fpga.counting import COUNTERS, parts
from planish.targets.fpga.program import Codes, Linear, Value
from planish.targets.fpga.utilization import Utilization
from tests.support import require

ROWS = [row for row in kept()["rows"] if row["module"] in kept()["model"]]


def _linear(fold: Fold) -> Instance:
    weight = np.random.default_rng(0).integers(-31, 32, (32, 64))
    x = Value("x", (64,), Codes(0, 63))
    low, high = Linear(("x",), Value("y", (32,), Codes(-(2**40), 2**40)), weight).bounds(x)
    return LinearBlock().instance(Linear(("x",), Value("y", (32,), Codes(low, high)), weight), (x,), fold)


def test_every_priced_block_has_a_price_for_each_feature() -> None:
    for module, prices in kept()["model"].items():
        row = next(row for row in ROWS if row["module"] == module)
        features, _, _ = COUNTERS[module](row["parameters"])
        assert len(prices["lut"]) == len(prices["ff"]) == len(features)
        assert min(*prices["lut"], *prices["ff"]) >= 0


def test_dsp_blocks_and_block_memories_are_exact() -> None:
    for row in ROWS:
        guess, true = predict(row["module"], row["parameters"]), Utilization(**row["used"])
        assert (guess.dsp, guess.bram) == (true.dsp, true.bram), row["design"]


@pytest.mark.xfail(reason="fitted on 49 of 178 designs: python -m benchmarks.fpga.syntheses")
@pytest.mark.parametrize("kind", ["lut", "ff"])
def test_tables_and_flip_flops_of_held_out_designs_are_within_8_percent(kind: str) -> None:
    require("scipy")
    from benchmarks.fpga.fit import errors

    assert errors(kept()["rows"])["errors"]["all"][kind] <= 0.08


def test_a_layer_takes_microseconds() -> None:
    instance = _linear(Fold(8, 4))
    cost(instance)
    best = float("inf")
    for _ in range(50):
        start = time.process_time_ns()
        for _ in range(20):
            cost(instance)
        best = min(best, (time.process_time_ns() - start) / 20_000)
    assert best < 20  # 5 to 10 where nothing else runs


def test_more_at_once_takes_more() -> None:
    found = [cost(_linear(Fold(simd, 4))) for simd in (2, 4, 8, 16)]
    for fewer, more in pairwise(found):
        assert fewer.lut < more.lut
        assert fewer.ff < more.ff
        assert fewer.dsp * 2 == more.dsp


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
    assert (cost(small).bram, cost(large).bram) == (0, 2)


def test_parts_follow_their_systemverilog() -> None:
    assert parts.tree(4, 8) == (9 + 9 + 10, 9 + 9 + 10)
    assert parts.tree(3, 8) == (9 + 9 + 10, 9 + 10)  # an odd one goes on alone
    assert parts.tree(4, 8, most=9) == (27, 27)
    assert parts.mult(18, 18, 1) == (0, 0, 1)
    assert parts.mult(6, 6, 0)[2] == 0
    assert parts.rom(10, 1) == 0
    assert parts.rom(10, 17) == 20
    assert parts.blocks(36, 512) == parts.blocks(18, 1024) == parts.blocks(9, 2048) == 1
    assert parts.blocks(37, 512) == 2
    assert parts.counter(1) == parts.counter(2) == 1
    assert parts.counter(17) == 5


def test_a_smooth_table_toggles_less() -> None:
    def table(words: np.ndarray) -> Instance:
        return Instance("lookup", {}, {"TABLE": Memory(words, 8)})

    ramp, noise = np.arange(256), np.random.default_rng(0).permutation(256)
    assert model.toggles(table(np.array([0, 1, 3, 2])))["TOGGLES"] == 3
    assert model.toggles(table(ramp))["TOGGLES"] < model.toggles(table(noise))["TOGGLES"]
