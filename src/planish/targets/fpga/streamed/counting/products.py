"""Blocks with products, as their SystemVerilog has them."""

from __future__ import annotations

from planish.targets.fpga.streamed.counting.parts import SMALL, Count, Parameters, distinct, trailing_zeros

LUTS, DSP, SHARED, SIGNS = range(4)


def matvec(p: Parameters) -> Count:
    """Of rtl/matvec.sv."""
    made = Count("matvec")
    fill_matvec(made, p, p["BEATS"])
    return made


def fill_matvec(made: Count, p: Parameters, beats: int) -> None:
    """A matrix-vector unit within another block."""
    simd, pe, given, out, style = p["SIMD"], p["PE"], p["IN_WIDTH"], p["OUT_WIDTH"], p["STYLE"]
    passes, weight, bias = p["PASSES"], p["WEIGHT_WIDTH"], p["BIAS"]
    rows = p["GROUPS"] * passes
    depth, numbers, sums = rows * beats, simd * given, pe * out
    levels = (simd - 1).bit_length()
    summed = 2 + (1 if style == SIGNS else 3) + levels
    direct = summed + 1 + bias
    slots = (direct + 2 + beats) // beats if direct + 1 > beats else 1

    made.ff += slots.bit_length() + 2 + (slots > 1)
    made.counter(max(beats, 2))
    made.counter(max(passes, 2))
    made.counter(depth)
    if passes == 1:
        made.ff += 2 * numbers
    else:
        made.ff += 4
        made.counter(beats)
        made.memory(numbers, 2 << max((beats - 1).bit_length(), 1), 2)
        made.logic["matvec buffer"] += 1

    if style == SHARED:
        pairs, odd = (pe + 1) // 2, pe // 2
        word = pairs * simd * (p["HIGH_WIDTH"] + weight)
        made.dsp += pairs * simd
        made.tree(simd, p["SPLIT"], out, pairs)
        made.tree(simd, given + p["HIGH_WIDTH"], out, odd)
        made.ff += odd * _lacking(simd)
    else:
        word = simd * pe * weight
        width = given + (not p["IN_SIGNED"] if style == SIGNS else weight)
        made.tree(simd, width, out, pe)
        if style == SIGNS:
            made.ff += pe * (simd * (width + 1) + _lacking(simd))
            made.logic["sign"] += simd * pe * width
        else:
            made.mult((given, p["IN_SIGNED"]), (weight, 1), style, simd * pe, depth)
    made.rom(word, depth, p["WEIGHT_BLOCK"])

    made.ff += 2 * summed + sums
    if beats > 1:
        made.ff += sums
    made.adder(out, pe if beats > 1 or style == SIGNS else pe // 2 if style == SHARED else 0)
    if bias:
        made.ff += 2 + sums
        made.counter(rows)
        made.rom(sums, rows, stored=distinct(pe * p["BIAS_BITS"], rows))
        made.adder(out, pe)
    else:
        made.ff += 1
    if slots > 1:
        fill_fifo(made, sums, slots)
    else:
        made.ff += 1


def _lacking(lanes: int) -> int:
    """Registers of the ones that the sums of rtl/dot_tree.sv still lack."""
    found = 0
    while lanes > 1:
        lanes = (lanes + 1) // 2
        found += lanes
    return found


def fill_fifo(made: Count, width: int, depth: int) -> None:
    """A queue within another block."""
    address = max((depth - 1).bit_length(), 1)
    made.ff += 3 * address + 2
    made.logic["queue"] += 1
    if address > SMALL:
        made.carries += 2 * ((address + 1) // 2)
    if address + 1 > SMALL:
        made.carries += (address + 2) // 2
    made.logic["queue address"] += 3 * address
    made.memory(width, 1 << address, 1)
    if depth > 64:
        made.ff += 1


def matmul(p: Parameters) -> Count:
    """Of rtl/matmul.sv."""
    simd, pe, a, b, out = p["SIMD"], p["PE"], p["A_WIDTH"], p["B_WIDTH"], p["OUT_WIDTH"]
    steps, tiles, turned = -(-p["K"] // simd), -(-p["N"] // pe), p["TRANSPOSED"]
    banks, lanes = (pe, simd) if turned else (simd, pe)
    address = max((steps * tiles - 1).bit_length(), 1)
    levels = (simd - 1).bit_length()
    made = Count("matmul", 4 + 3 * address + 3 * (5 + levels) + 3)
    made.adder(address)
    made.adder(address - (0 if turned else trailing_zeros(tiles)))
    if not turned:
        made.adder((tiles - 1).bit_length())
    made.logic["matmul address"] += 3 * address
    for size in (banks, p["N"] if turned else p["K"], steps if turned else tiles, steps, tiles, p["M"]):
        made.counter(size)
    made.replay(simd * a, steps, tiles)
    for _ in range(banks):
        made.memory(lanes * b, 2 << address, 2)
    made.ff += 2 * simd * a
    made.mult((a, p["A_SIGNED"]), (b, p["B_SIGNED"]), p["DSP"], simd * pe)
    made.tree(simd, a + b, 64, pe)
    made.ff += pe * out
    made.adder(out, pe)
    made.logic["sum"] += pe * out
    made.logic["missing"] += (steps * simd - p["K"]) * a + (tiles * pe - p["N"]) * out
    made.logic["matmul bank"] += banks
    return made


def aggregate(p: Parameters) -> Count:
    """Of rtl/aggregate.sv."""
    lanes, width, weight, out = p["LANES"], p["WIDTH"], p["WEIGHT"], p["OUT_WIDTH"]
    words, entry = p["NODES"] * p["BEATS"], p["WEIGHT"] + p["SOURCE"]
    address = max((words - 1).bit_length(), 1)
    made = Count("aggregate", 4 + 3 + 2 + 2 * p["DEGREE"] + address + 1 + 2 + 16 + 2 + 3 * weight)
    for size in (words, p["TARGETS"], p["TARGETS"], p["BEATS"], p["EDGES"], 1 << p["DEGREE"]):
        made.counter(size)
    made.ff += (p["EDGES"] - 1).bit_length() + 2 * (p["BEATS"] - 1).bit_length()
    made.logic["first edge"] += (p["EDGES"] - 1).bit_length()
    made.adder(address)
    made.logic["rom"] += p["DEGREE"]
    made.logic["deep rom"] += p["DEGREE"] * max(p["TARGETS"] - 16, 0) / 8
    made.rom(entry, p["EDGES"], p["EDGES"] * entry > 2048)
    made.memory(lanes * width, 2 << address, 2)
    made.mult((width, p["SIGNED"]), (weight, 1), p["DSP"], lanes)
    made.ff += lanes * out
    made.adder(out, lanes)
    made.logic["sum"] += lanes * out
    return made


def normalize(p: Parameters) -> Count:
    """Of rtl/normalize.sv and rtl/shift_round.sv."""
    lanes, a, b, table, out, index = (
        p[name] for name in ("LANES", "A_WIDTH", "B_WIDTH", "TABLE_BITS", "OUT_WIDTH", "INDEX")
    )
    stages = max((b - 1).bit_length(), 1)
    more = stages - 1 if p["ROOT"] and stages > 1 else stages
    depth = 1 << (index + p["ROOT"])
    made = Count("normalize", stages + 2 + 2 * more + 7 + 3 * more + stages * (stages + 1) // 2)
    for stage in range(1, stages + 1):  # of the number that moves left, only what gets to the top matters
        kept = min(max(b, index + 1), index + (1 << stages - stage))
        made.ff += kept
        made.logic["choice"] += kept
    made.adder(stages)
    made.table(table, depth, table * depth > 2048, p["COLUMNS"], p["LEAVES"], p["BRANCHES"])
    made.replay(p["COLUMNS"] + more, 1, p["BEATS"])
    made.mult((a, p["A_SIGNED"]), (table, 0), p["DSP"], lanes)
    kept = max(a + table - p["SHIFT"], 1)  # bits that may lie above the point
    made.ff += lanes * (2 * (kept + 2) + kept + 1 + out) + more // 2
    made.adder(kept + 1, lanes)
    if kept + 1 > out:
        if p["A_SIGNED"]:
            made.comparator(kept, lanes)
        if p["LOW"]:
            made.comparator(kept + 1 - trailing_zeros(p["LOW"]), lanes)
        made.logic["clamp"] += lanes * out
    made.logic["shift"] += lanes * (kept + 2) * more
    return made
