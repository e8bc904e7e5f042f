"""What a block takes, in microseconds, from its parameters: for choosing folds and for search.

Each block's registers, adders, choices and memories are counted from its parameters, as its SystemVerilog has them.
What yosys makes of them differs by shared logic and cut carry chains, so each count has a price in tables and one in
flip-flops, fitted on synthesized designs (`benchmarks/fpga/syntheses.py`; both are in `syntheses.json`). DSP blocks,
block memories and the initiation interval follow rules and are exact.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from planish.errors import UserError
from planish.targets.fpga.blocks.base import Instance
from planish.targets.fpga.utilization import Utilization

FILE = Path(__file__).with_name("syntheses.json")
Parameters = Mapping[str, int]
Counts = tuple[float, ...]
Counted = tuple[Counts, int, int]
"""Features, DSP blocks, block memories."""


def cost(instance: Instance) -> Utilization:
    """What a block takes; tables are LUT4-equivalents.

    Raises:
        UserError: The model knows nothing of the block.
    """
    return predict(instance.module, {**instance.parameters, **toggles(instance)})


def predict(module: str, parameters: Parameters) -> Utilization:
    """What a module takes, from its parameters and the `toggles` of its tables."""
    prices = _prices().get(module)
    if prices is None:
        raise UserError(f"the cost model knows nothing of {module}", "cost", "python -m benchmarks.fpga.syntheses")
    features, dsp, bram = count(module, parameters)
    lut = ff = 0.0
    for feature, for_lut, for_ff in zip(features, *prices, strict=True):
        lut += feature * for_lut
        ff += feature * for_ff
    return Utilization(lut4=round(lut), ff=round(ff), dsp=dsp, bram=bram)


def count(module: str, parameters: Parameters) -> Counted:
    """Features of a module, its DSP blocks and block memories; a module of somebody else's is counted by its wires."""
    return COUNTERS.get(module, _unknown)(parameters)


def toggles(instance: Instance) -> dict[str, int]:
    """How often neighboring entries of a table differ in a bit: smooth functions take few LUTs."""
    if instance.module != "lookup":
        return {}
    words = instance.memories["TABLE"].words
    return {"TOGGLES": int(np.bitwise_count(words[1:] ^ words[:-1]).sum())}


@cache
def kept() -> dict[str, Any]:
    """The synthesized designs and the fitted prices."""
    return json.loads(FILE.read_text()) if FILE.exists() else {"model": {}, "rows": []}


@cache
def _prices() -> dict[str, tuple[Counts, Counts]]:
    return {module: (tuple(found["lut"]), tuple(found["ff"])) for module, found in kept()["model"].items()}


# Parts of blocks -----------------------------------------------------------------------------------------------------


def _bits(size: int) -> int:
    """Of a counter that runs to `size`."""
    return (size - 1).bit_length() or 1


def _mult(a: int, b: int, dsp: int) -> tuple[int, int, int]:
    """Registers, adder bits and DSP blocks of rtl/mult.sv."""
    if dsp and a <= 18 and b <= 18:
        return 0, 0, 1
    if dsp:
        tiles = _tiles(a + 1) * _tiles(b + 1)
        return a + b + 2 + 2 * (a + b), (tiles - 1) * (a + b), tiles
    few, many = min(a, b), max(a, b)
    pairs = (few + 1) // 2
    fours = (pairs + 1) // 2
    adders = few // 2 * (many + 3) + pairs // 2 * (many + 5) + (fours - 1) * (a + b)
    return pairs * (many + 3) + fours * (many + 5) + a + b, adders, 0


def _tiles(bits: int) -> int:
    """Parts in which yosys multiplies a signed number of so many bits."""
    return 1 if bits <= 18 else -(-(bits - 1) // 17)


def _tree(lanes: int, width: int, most: int = 64) -> tuple[int, int]:
    """Registers and adder bits of rtl/dot_tree.sv and rtl/tree.sv."""
    registers = adders = level = 0
    while lanes > 1:
        level += 1
        bits = min(width + level, most)
        adders += lanes // 2 * bits
        lanes = (lanes + 1) // 2
        registers += lanes * bits
    return registers, adders


def _rom(width: int, depth: int) -> int:
    """LUT4 of words in tables."""
    return width * -(-depth // 16) if depth > 1 else 0


def _blocks(width: int, depth: int) -> int:
    """Block memories of so many words."""
    return min(-(-width // w) * -(-depth // d) for w, d in ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192)))


def _ram(width: int, depth: int) -> tuple[int, int]:
    """Distributed memories (16 words of 4 bits), or else block memories, of one that is written: as yosys chooses."""
    cells, blocks = -(-width // 4) * -(-depth // 16), _blocks(width, depth)
    return (cells, 0) if 4 * cells <= 128 * blocks else (0, blocks)


def _replay(bits: int, beats: int, times: int) -> tuple[int, int, int, int]:
    """Registers, choices, distributed and block memories of rtl/replay.sv."""
    if times == 1:
        return 0, 0, 0, 0
    cells, blocks = _ram(bits, 1 << _bits(beats))
    registers = 2 * bits + _bits(beats) + _bits(times) + 2
    return registers - bits * (blocks > 0), bits + _bits(beats) + _bits(times), cells, blocks


# Blocks --------------------------------------------------------------------------------------------------------------


def _matvec(p: Parameters) -> Counted:
    simd, pe, given, made, style = p["SIMD"], p["PE"], p["IN_WIDTH"], p["OUT_WIDTH"], p["STYLE"]
    beats, passes, weight = p["BEATS"], p["PASSES"], p["WEIGHT_WIDTH"]
    rows, bias = p["GROUPS"] * passes, p["BIAS"]
    depth, products = rows * beats, simd * pe
    dsp = signs = 0
    soft = (0, 0)
    if style == 2:
        pairs = (pe + 1) // 2
        word, dsp = pairs * simd * (p["HIGH_WIDTH"] + weight), pairs * simd
        low, high = _tree(simd, p["SPLIT"], made), _tree(simd, given + p["HIGH_WIDTH"], made)
        tree = tuple(pairs * x + pe // 2 * y for x, y in zip(low, high, strict=True))
    else:
        word = products * weight
        width = given + (not p["IN_SIGNED"] if style == 3 else weight)
        tree = tuple(pe * x for x in _tree(simd, width, made))
        if style == 3:
            signs = products * width
        else:
            registers, adders, dsp = (products * x for x in _mult(given, weight, style))
            soft = (registers, adders)
    bram = 0
    rom = words = 0
    if p["WEIGHT_BLOCK"]:
        bram = _blocks(word, 1 << _bits(depth))
    else:
        rom, words = _rom(word, depth), 2 * word * (depth > 1)
    numbers = simd * given
    cells, blocks = _ram(numbers, 2 << _bits(beats)) if passes > 1 else (0, 0)
    direct = 3 + (1 if style == 3 else 3) + (simd - 1).bit_length() + bias
    slots = (direct + 2 + beats) // beats if direct + 1 > beats else 0
    queued = pe * made if slots else 0
    queue, queue_blocks = _ram(queued, 1 << _bits(max(slots, 2))) if slots else (0, 0)
    sums = pe * made
    biases = 2 * sums * bias * (rows > 1)
    control = _bits(beats) + _bits(passes) + _bits(depth) + (_bits(rows) if bias else 0)
    registers = numbers * (2 - (blocks > 0)) + sums * (1 + (beats > 1) + bias) + queued * (queue_blocks == 0) + control
    adders = tree[1] + sums * ((beats > 1) + bias)
    features = (
        1.0,
        control,
        words + biases,
        registers + tree[0],
        adders,
        rom,
        _rom(sums * bias, rows),
        cells + queue,
        soft[0],
        soft[1],
        signs,
        products if style == 2 else 0,
    )
    return features, dsp, bram + blocks + queue_blocks


def _requantize(p: Parameters) -> Counted:
    lanes, width, made, factor = p["LANES"], p["WIDTH"], p["OUT_WIDTH"], p["FACTOR_WIDTH"]
    registers = adders = dsp = rom = 0
    if factor:
        registers, adders, dsp = (lanes * x for x in _mult(width, factor, p["DSP"]))
        if p["CHANNELS"]:
            rom = _rom(lanes * factor, p["BEATS"])
            registers += 2 * lanes * (width + factor * (p["BEATS"] > 1))
        elif p["DSP"] and width <= 18 and factor <= 18:
            rom = 0
    wide = width + factor
    whole = max(wide + 1 - p["SHIFT"] if p["SHIFT"] < wide else 1, made) + 1
    tie = lanes * max(p["SHIFT"], 0) * p["EVEN"]
    constant = 0 if p["CHANNELS"] else 1
    soft = adders * constant
    features = (1.0, lanes, lanes * whole, lanes * made, tie, registers, adders - soft, soft, rom)
    return features, dsp, 0


def _lookup(p: Parameters) -> Counted:
    lanes, bits, made = p["LANES"], p["WIDTH"], p["OUT_WIDTH"]
    if p["BLOCK"]:
        return (1.0, 0, 0, 0), 0, lanes * _blocks(made, 1 << bits)
    return (1.0, lanes * made, lanes * _rom(made, 1 << bits), lanes * p.get("TOGGLES", 0)), 0, 0


def _two(p: Parameters) -> tuple[list[int], int]:
    """Registers, choices and distributed memories, and block memories, of both `replay` of a block."""
    parts = [_replay(p[f"{port}_LANES"] * p[f"{port}_WIDTH"], p[f"{port}_BEATS"], p[f"{port}_TIMES"]) for port in "AB"]
    a, b = parts
    return [x + y for x, y in zip(a[:3], b[:3], strict=True)], a[3] + b[3]


def _add(p: Parameters) -> Counted:
    (registers, choices, cells), blocks = _two(p)
    sums = p["LANES"] * p["OUT_WIDTH"]
    return (1.0, sums, registers, choices, cells, sums * (p["A_MINUS"] + p["B_MINUS"])), 0, blocks


def _multiply(p: Parameters) -> Counted:
    (registers, choices, cells), blocks = _two(p)
    made, adders, dsp = (p["LANES"] * x for x in _mult(p["A_WIDTH"], p["B_WIDTH"], p["DSP"]))
    return (1.0, registers, choices, cells, made, adders), dsp, blocks


def _matmul(p: Parameters) -> Counted:
    simd, pe, a, b, made = p["SIMD"], p["PE"], p["A_WIDTH"], p["B_WIDTH"], p["OUT_WIDTH"]
    steps, tiles = -(-p["K"] // simd), -(-p["N"] // pe)
    banks, lanes = (pe, simd) if p["TRANSPOSED"] else (simd, pe)
    cells, blocks = _ram(lanes * b, 2 << _bits(steps * tiles))
    again = _replay(simd * a, steps, tiles)
    registers, adders, dsp = (simd * pe * x for x in _mult(a, b, p["DSP"]))
    tree = _tree(simd, a + b)
    words = 0 if blocks else banks * lanes * b
    control = _bits(steps) + _bits(tiles) + _bits(p["M"]) + _bits(p["K"]) + 3 * _bits(steps * tiles)
    features = (
        1.0,
        control,
        words + simd * a + again[0],
        again[1],
        banks * cells + again[2],
        registers,
        adders,
        pe * (tree[0] + made),
        pe * (tree[1] + made),
    )
    return features, dsp, banks * blocks + again[3]


def _reduce(p: Parameters) -> Counted:
    lanes, width, made = p["LANES"], p["WIDTH"], p["OUT_WIDTH"]
    registers, adders = _tree(lanes, width, width if p["MAX"] else 64)
    largest = p["MAX"]
    control = _bits(-(-p["ROW"] // lanes)) + 2 * (lanes - 1).bit_length()
    sums, compared = adders * (1 - largest) + made * (1 - largest), (adders + made) * largest
    return (1.0, control, registers + made, sums, compared), 0, 0


def _normalize(p: Parameters) -> Counted:
    lanes, a, b, table = p["LANES"], p["A_WIDTH"], p["B_WIDTH"], p["TABLE_BITS"]
    stages = _bits(b)
    more = stages - 1 if p["ROOT"] and stages > 1 else stages
    wide = max(b, p["INDEX"] + 1)
    depth = 1 << (p["INDEX"] + p["ROOT"])
    registers, adders, dsp = (lanes * x for x in _mult(a, table, p["DSP"]))
    whole = max(a + table + 1, p["OUT_WIDTH"] + 1)
    bram = _blocks(table, depth) if table * depth >= 2048 else 0
    again = _replay(table + more, 1, p["BEATS"])
    moved = lanes * whole
    features = (
        1.0,
        wide * stages,
        0 if bram else _rom(table, depth),
        again[0] + again[1],
        registers,
        adders,
        moved,
        moved * more,
        lanes * p["OUT_WIDTH"],
    )
    return features, dsp, bram + again[3]


def _permute(p: Parameters) -> Counted:
    address = _bits(p["BEATS"])
    cells, blocks = _ram(p["BITS"], 2 << address)
    levels = sum(p[f"COUNT{level}"] > 1 for level in range(6))
    counters = sum(_bits(p[f"COUNT{level}"]) for level in range(6) if p[f"COUNT{level}"] > 1)
    return (1.0, address, counters, levels * address, p["BITS"] * (2 - (blocks > 0)), cells), 0, blocks


def _embed(p: Parameters) -> Counted:
    width, depth = p["LANES"] * p["WIDTH"], p["ROWS"] * p["BEATS"]
    block = depth > 16 and depth * width > 16 * 128
    bram = _blocks(width, 1 << _bits(depth)) if block else 0
    return (1.0, p["IN_WIDTH"] + _bits(p["BEATS"]), width, 0 if block else _rom(width, depth)), 0, bram


def _aggregate(p: Parameters) -> Counted:
    lanes, width, weight, made = p["LANES"], p["WIDTH"], p["WEIGHT"], p["OUT_WIDTH"]
    address = _bits(p["NODES"] * p["BEATS"])
    cells, blocks = _ram(lanes * width, 2 << address)
    registers, adders, dsp = (lanes * x for x in _mult(width, weight, p["DSP"]))
    entry = weight + p["SOURCE"]
    listed = p["EDGES"] * entry >= 2048
    lists = _rom(entry, p["EDGES"]) * (not listed) + _rom(p["DEGREE"], p["TARGETS"])
    control = 4 * address + 2 * _bits(p["EDGES"]) + 2 * _bits(p["TARGETS"]) + 3 * p["DEGREE"] + _bits(p["BEATS"])
    features = (
        1.0,
        control,
        entry + 3 * weight,
        lanes * width * (2 - (blocks > 0)),
        cells,
        lists,
        registers,
        adders,
        lanes * made,
    )
    return features, dsp, blocks + (_blocks(entry, p["EDGES"]) if listed else 0)


def _constant(p: Parameters) -> Counted:
    word = p["LANES"] * p["WIDTH"]
    if p["BLOCK"]:
        return (1.0, _bits(p["BEATS"]), 0, 0), 0, _blocks(word, 1 << _bits(p["BEATS"]))
    return (1.0, _bits(p["BEATS"]), 2 * word * (p["BEATS"] > 1), _rom(word, p["BEATS"])), 0, 0


def _fifo(p: Parameters) -> Counted:
    cells, blocks = _ram(p["WIDTH"], 1 << _bits(max(p["DEPTH"], 2)))
    registers = p["WIDTH"] * (1 + (p["DEPTH"] > 64) - (blocks > 0))
    return (1.0, _bits(p["DEPTH"]), registers, cells), 0, blocks


def _lanes(p: Parameters) -> Counted:
    taken, given = p["LANES_IN"] * p["WIDTH"], p["LANES_OUT"] * p["WIDTH"]
    return (1.0, _bits(p["ROW"]), taken, given), 0, 0


def _split(p: Parameters) -> Counted:
    return (1.0, p["OUTPUTS"]), 0, 0


def _unknown(p: Parameters) -> Counted:
    return (1.0, p.get("LANES", 1) * p.get("WIDTH", 1), p.get("LANES", 1) * p.get("OUT_WIDTH", 1)), 0, 0


COUNTERS: dict[str, Callable[[Parameters], Counted]] = {
    "matvec": _matvec,
    "requantize": _requantize,
    "lookup": _lookup,
    "add": _add,
    "multiply": _multiply,
    "matmul": _matmul,
    "reduce": _reduce,
    "normalize": _normalize,
    "permute": _permute,
    "embed": _embed,
    "aggregate": _aggregate,
    "constant": _constant,
    "fifo": _fifo,
    "lanes": _lanes,
    "split": _split,
}
