"""Blocks with products: a row of features for each, by its parameters."""

from __future__ import annotations

from planish.targets.fpga.counting import parts
from planish.targets.fpga.counting.parts import Counted, Parameters


def matvec(p: Parameters) -> Counted:
    """Of rtl/matvec.sv."""
    simd, pe, given, made, style = p["SIMD"], p["PE"], p["IN_WIDTH"], p["OUT_WIDTH"], p["STYLE"]
    beats, passes, weight = p["BEATS"], p["PASSES"], p["WEIGHT_WIDTH"]
    rows, bias = p["GROUPS"] * passes, p["BIAS"]
    depth, products = rows * beats, simd * pe
    dsp = signs = 0
    soft = (0, 0)
    if style == 2:
        pairs = (pe + 1) // 2
        word, dsp = pairs * simd * (p["HIGH_WIDTH"] + weight), pairs * simd
        low, high = parts.tree(simd, p["SPLIT"], made), parts.tree(simd, given + p["HIGH_WIDTH"], made)
        tree = tuple(pairs * x + pe // 2 * y for x, y in zip(low, high, strict=True))
    else:
        word = products * weight
        width = given + (not p["IN_SIGNED"] if style == 3 else weight)
        tree = tuple(pe * x for x in parts.tree(simd, width, made))
        if style == 3:
            signs = products * width
        else:
            registers, adders, dsp = (products * x for x in parts.mult(given, weight, style))
            soft = (registers, adders)
    bram = 0
    rom = words = 0
    if p["WEIGHT_BLOCK"]:
        bram = parts.blocks(word, 1 << parts.counter(depth))
    else:
        rom, words = parts.rom(word, depth), 2 * word * (depth > 1)
    numbers = simd * given
    _, blocks = parts.ram(numbers, 2 << parts.counter(beats)) if passes > 1 else (0, 0)
    direct = 3 + (1 if style == 3 else 3) + (simd - 1).bit_length() + bias
    slots = (direct + 2 + beats) // beats if direct + 1 > beats else 0
    queued = pe * made if slots else 0
    _, queue_blocks = parts.ram(queued, 1 << parts.counter(max(slots, 2))) if slots else (0, 0)
    sums = pe * made
    biases = 2 * sums * bias * (rows > 1)
    control = parts.counter(beats) + parts.counter(passes) + parts.counter(depth) + (parts.counter(rows) if bias else 0)
    registers = numbers * (2 - (blocks > 0)) + sums * (1 + (beats > 1) + bias) + queued * (queue_blocks == 0) + control
    adders = tree[1] + sums * ((beats > 1) + bias)
    memory = rom + parts.rom(sums * bias, rows)
    memory += parts.muxes(numbers, 2 << parts.counter(beats)) if passes > 1 else 0
    memory += parts.muxes(queued, 1 << parts.counter(max(slots, 2))) if slots else 0
    features = (1.0, control, words + biases, registers + tree[0], adders, memory, *soft, signs)
    return features, dsp, bram + blocks + queue_blocks


def matmul(p: Parameters) -> Counted:
    """Of rtl/matmul.sv."""
    simd, pe, a, b, made = p["SIMD"], p["PE"], p["A_WIDTH"], p["B_WIDTH"], p["OUT_WIDTH"]
    steps, tiles = -(-p["K"] // simd), -(-p["N"] // pe)
    banks, lanes = (pe, simd) if p["TRANSPOSED"] else (simd, pe)
    words_of_bank = lanes * b, 2 << parts.counter(steps * tiles)
    _, blocks = parts.ram(*words_of_bank)
    again = parts.replay(simd * a, steps, tiles)
    registers, adders, dsp = (simd * pe * x for x in parts.mult(a, b, p["DSP"]))
    tree = parts.tree(simd, a + b)
    words = 0 if blocks else banks * lanes * b
    control = (
        parts.counter(steps)
        + parts.counter(tiles)
        + parts.counter(p["M"])
        + parts.counter(p["K"])
        + 3 * parts.counter(steps * tiles)
    )
    features = (
        1.0,
        control,
        words + simd * a + again[0],
        again[1],
        banks * parts.muxes(*words_of_bank) + again[2],
        registers,
        adders,
        pe * (tree[0] + made),
        pe * (tree[1] + made),
    )
    return features, dsp, banks * blocks + again[3]


def aggregate(p: Parameters) -> Counted:
    """Of rtl/aggregate.sv."""
    lanes, width, weight, made = p["LANES"], p["WIDTH"], p["WEIGHT"], p["OUT_WIDTH"]
    address = parts.counter(p["NODES"] * p["BEATS"])
    _, blocks = parts.ram(lanes * width, 2 << address)
    registers, adders, dsp = (lanes * x for x in parts.mult(width, weight, p["DSP"]))
    entry = weight + p["SOURCE"]
    listed = p["EDGES"] * entry >= 2048
    lists = parts.rom(entry, p["EDGES"]) * (not listed) + parts.rom(p["DEGREE"], p["TARGETS"])
    control = (
        4 * address
        + 2 * parts.counter(p["EDGES"])
        + 2 * parts.counter(p["TARGETS"])
        + 3 * p["DEGREE"]
        + parts.counter(p["BEATS"])
    )
    features = (
        1.0,
        control,
        entry + 3 * weight,
        lanes * width * (2 - (blocks > 0)),
        parts.muxes(lanes * width, 2 << address),
        lists,
        registers,
        adders,
        lanes * made,
    )
    return features, dsp, blocks + (parts.blocks(entry, p["EDGES"]) if listed else 0)


def normalize(p: Parameters) -> Counted:
    """Of rtl/normalize.sv."""
    lanes, a, b, table = p["LANES"], p["A_WIDTH"], p["B_WIDTH"], p["TABLE_BITS"]
    stages = parts.counter(b)
    more = stages - 1 if p["ROOT"] and stages > 1 else stages
    wide = max(b, p["INDEX"] + 1)
    depth = 1 << (p["INDEX"] + p["ROOT"])
    registers, adders, dsp = (lanes * x for x in parts.mult(a, table, p["DSP"]))
    whole = max(a + table + 1, p["OUT_WIDTH"] + 1)
    bram = parts.blocks(table, depth) if table * depth >= 2048 else 0
    again = parts.replay(table + more, 1, p["BEATS"])
    moved = lanes * whole
    features = (
        1.0,
        wide * stages,
        0 if bram else parts.rom(table, depth),
        again[0] + again[1],
        registers,
        adders,
        moved,
        moved * more,
        lanes * p["OUT_WIDTH"],
    )
    return features, dsp, bram + again[3]
