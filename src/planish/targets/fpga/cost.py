"""What a block takes, in microseconds, from its parameters: for choosing folds and for search.

Each block's registers, adders, choices and memories are counted from its parameters, as its SystemVerilog has them.
What yosys makes of them differs by shared logic and cut carry chains, so each count has a price in tables and one in
flip-flops, fitted on synthesized designs (`benchmarks/fpga/syntheses.py`; both are in `syntheses.json`). DSP blocks,
block memories and the initiation interval follow rules and are exact.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from planish.targets.fpga.blocks.base import Instance
from planish.targets.fpga.counting import COUNTERS, Features, Parameters
from planish.targets.fpga.utilization import Utilization

FILE = Path(__file__).with_name("syntheses.json")


def cost(instance: Instance) -> Utilization:
    """What a block takes; tables are LUT4-equivalents. A block that was never synthesized is guessed by its lanes."""
    if instance.module not in _prices():
        return _guess(instance)
    more = toggles(instance)
    return predict(instance.module, {**instance.parameters, **more} if more else instance.parameters)


def predict(module: str, parameters: Parameters) -> Utilization:
    """What a module of the library takes, from its parameters and the `toggles` of its tables."""
    features, dsp, bram = COUNTERS[module](parameters)
    lut = ff = 0.0
    for feature, for_lut, for_ff in zip(features, *_prices()[module], strict=True):
        lut += feature * for_lut
        ff += feature * for_ff
    return Utilization(lut4=round(lut), ff=round(ff), dsp=dsp, bram=bram)


def _guess(instance: Instance) -> Utilization:
    """A rule of thumb: something for each lane, each product in tables, and the memories."""
    at, sizes = instance.parameters, [memory.words.size * memory.bits for memory in instance.memories.values()]
    lanes = sum(instance.lanes_in) + instance.lanes_out
    lut = 40 + 20 * lanes + sum(bits // 16 for bits in sizes if bits <= 2048)
    dsp, bram = 0, sum(-(-bits // 18432) for bits in sizes if bits > 2048)
    if instance.module in COUNTERS:
        _, dsp, bram = COUNTERS[instance.module](at)
    if not dsp:
        bits = at.get("A_WIDTH", at.get("IN_WIDTH", 0)) * at.get("B_WIDTH", at.get("WEIGHT_WIDTH", 0))
        lut += at.get("SIMD", 1) * at.get("PE", at.get("LANES", 1)) * bits
    return Utilization(lut4=lut, ff=60 + 24 * lanes, dsp=dsp, bram=bram)


def toggles(instance: Instance) -> dict[str, int]:
    """How often neighboring entries of a table differ in a bit: smooth functions take few LUTs."""
    if instance.module != "lookup":
        return {}
    words = np.asarray(instance.memories["TABLE"].words, dtype="<i8")
    return {"TOGGLES": int(np.unpackbits((words[1:] ^ words[:-1]).view(np.uint8)).sum())}


@cache
def kept() -> dict[str, Any]:
    """The synthesized designs and the fitted prices."""
    return json.loads(FILE.read_text()) if FILE.exists() else {"model": {}, "rows": []}


@cache
def _prices() -> dict[str, tuple[Features, Features]]:
    return {module: (tuple(found["lut"]), tuple(found["ff"])) for module, found in kept()["model"].items()}
