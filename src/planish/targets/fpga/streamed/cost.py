"""What a block takes, in microseconds, from its parameters: for choosing folds and for search.

Each block's registers, adders, choices and memories are counted from its parameters, as its SystemVerilog has them and
as yosys maps them. Flip-flops, carry cells, memories and DSP blocks follow from that, and what else goes to tables has
prices, fitted on synthesized designs (`benchmarks/fpga/syntheses.py`; both are in `syntheses.json`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from planish.targets.fpga.blocks.base import Instance
from planish.targets.fpga.streamed.counting import COUNTERS, Parameters
from planish.targets.fpga.toolchain.utilization import Utilization

FILE = Path(__file__).with_name("syntheses.json")
Prices = Mapping[str, float]
"""LUT4 for one of each kind of logic, by the names that `counting` gives them."""


def cost(instance: Instance) -> Utilization:
    """What a block takes. One that is not the library's is guessed by its lanes, products and memories."""
    if instance.module not in COUNTERS:
        return _guess(instance)
    at = {**instance.parameters, **facts(instance)}
    return _priced(instance.module, tuple(at), tuple(at.values()))


@lru_cache(1 << 16)  # a search asks for the same blocks again and again
def _priced(module: str, names: tuple[str, ...], values: tuple[int, ...]) -> Utilization:
    return predict(module, dict(zip(names, values, strict=True)), _prices())


def predict(module: str, parameters: Parameters, prices: Prices) -> Utilization:
    """What a module of the library takes, from its parameters and the `facts` of its memories."""
    count = COUNTERS[module](parameters)
    lut4 = sum([amount * prices.get(kind, 0.0) for kind, amount in count.logic.items()])
    return Utilization(round(lut4), count.carries, count.ff, count.dsp, count.bram, count.ram)


def _guess(instance: Instance) -> Utilization:
    """A rule of thumb: something for each lane, each product in tables, and the memories."""
    at, sizes = instance.parameters, [memory.words.size * memory.bits for memory in instance.memories.values()]
    lanes = sum(instance.lanes_in) + instance.lanes_out
    bits = at.get("A_WIDTH", at.get("IN_WIDTH", 0)) * at.get("B_WIDTH", at.get("WEIGHT_WIDTH", 0))
    products = at.get("SIMD", 1) * at.get("PE", at.get("LANES", 1)) * bits
    return Utilization(
        lut4=40 + 20 * lanes + sum(size // 16 for size in sizes if size <= 2048) + products,
        ff=60 + 24 * lanes,
        bram=sum(-(-size // 18432) for size in sizes if size > 2048),
    )


def facts(instance: Instance) -> dict[str, int]:
    """What of its memories' contents decides how much a block takes."""
    if "BIASES" in instance.memories:
        return {"BIAS_BITS": _bits(instance.memories["BIASES"].words.tobytes())}
    if instance.module in ("lookup", "normalize"):
        table = instance.memories["TABLE"]
        columns, leaves, branches = _shared(table.words.tobytes(), table.bits)
        return {"COLUMNS": columns, "LEAVES": leaves, "BRANCHES": branches}
    return {}


@lru_cache(1024)  # a layer has the same memories in each fold
def _bits(words: bytes) -> int:
    """Bits of the widest of some numbers, with a sign."""
    numbers = np.frombuffer(words, dtype=np.int64)
    return max(int(numbers.max()).bit_length(), int(~numbers.min()).bit_length()) + 1


@lru_cache(1024)
def _shared(words: bytes, bits: int) -> tuple[int, int, int]:
    """Columns of a table that differ, its tables of four inputs that do, and the choices between two that vary."""
    numbers = np.frombuffer(words, dtype=np.int64)
    planes = (numbers >> np.arange(bits)[:, None] & 1).astype(np.uint8)
    size, branches = len(numbers), 0
    columns = _varied(planes, size)
    while size > 16:
        whole = _varied(planes, size)
        size //= 2
        halves = ((part[:size], part[size:]) for part in whole)
        branches += sum(low != high and _varies(low) and _varies(high) for low, high in halves)
    wires = {(np.arange(size) >> bit & 1).astype(np.uint8).tobytes() for bit in range(4)}
    return len(columns), len(_varied(planes, size) - wires), branches


def _varied(planes: np.ndarray, size: int) -> set[bytes]:
    return {part.tobytes() for part in planes.reshape(-1, size) if 0 < part.sum() < size}


def _varies(part: bytes) -> bool:
    return 0 < sum(part) < len(part)


@cache
def kept() -> dict[str, Any]:
    """The synthesized designs and the fitted prices."""
    return json.loads(FILE.read_text()) if FILE.exists() else {"prices": {}, "rows": []}


@cache
def _prices() -> Prices:
    return kept()["prices"]
