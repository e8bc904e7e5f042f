"""Blocks that take and give numbers as they come."""

from __future__ import annotations

from planish.targets.fpga.counting import parts
from planish.targets.fpga.counting.parts import Counted, Parameters


def requantize(p: Parameters) -> Counted:
    """Of rtl/requantize.sv."""
    lanes, width, made, factor = p["LANES"], p["WIDTH"], p["OUT_WIDTH"], p["FACTOR_WIDTH"]
    registers = adders = dsp = rom = stored = 0
    if factor:
        registers, adders, dsp = (lanes * x for x in parts.mult(width, factor, p["DSP"]))
        if p["CHANNELS"]:
            rom = parts.rom(lanes * factor, p["BEATS"])
            stored = 2 * lanes * (width + factor * (p["BEATS"] > 1))
    wide = width + factor
    whole = max(wide + 1 - p["SHIFT"] if p["SHIFT"] < wide else 1, made) + 1
    nearest = p["EVEN"] | p["UP"]
    tie = lanes * max(min(p["SHIFT"], wide), 0) * p["EVEN"]
    features = (
        1.0,
        lanes,
        lanes * whole * nearest,
        lanes * (whole - made),
        lanes * made,
        tie,
        stored,
        registers * p["CHANNELS"],
        registers * (1 - p["CHANNELS"]),
        adders * p["CHANNELS"],
        adders * (1 - p["CHANNELS"]),
        rom,
    )
    return features, dsp, 0


def lookup(p: Parameters) -> Counted:
    """Of rtl/lookup.sv."""
    lanes, bits, made = p["LANES"], p["WIDTH"], p["OUT_WIDTH"]
    if p["BLOCK"]:
        return (1.0, 0, 0, 0), 0, lanes * parts.blocks(made, 1 << bits)
    return (1.0, lanes * made, lanes * parts.rom(made, 1 << bits), lanes * p.get("TOGGLES", 0)), 0, 0


def _two(p: Parameters) -> tuple[list[int], int]:
    """Registers, choices and LUT4 of memories, and block memories, of both `replay` of a block."""
    found = [
        parts.replay(p[f"{port}_LANES"] * p[f"{port}_WIDTH"], p[f"{port}_BEATS"], p[f"{port}_TIMES"]) for port in "AB"
    ]
    a, b = found
    return [x + y for x, y in zip(a[:3], b[:3], strict=True)], a[3] + b[3]


def add(p: Parameters) -> Counted:
    """Of rtl/add.sv."""
    (registers, choices, memory), blocks = _two(p)
    sums = p["LANES"] * p["OUT_WIDTH"]
    return (1.0, sums, registers, choices, memory, sums * (p["A_MINUS"] + p["B_MINUS"])), 0, blocks


def multiply(p: Parameters) -> Counted:
    """Of rtl/multiply.sv."""
    (registers, choices, memory), blocks = _two(p)
    made, adders, dsp = (p["LANES"] * x for x in parts.mult(p["A_WIDTH"], p["B_WIDTH"], p["DSP"]))
    return (1.0, registers, choices, memory, made, adders), dsp, blocks


def reduce(p: Parameters) -> Counted:
    """Of rtl/reduce.sv."""
    lanes, width, made = p["LANES"], p["WIDTH"], p["OUT_WIDTH"]
    registers, adders = parts.tree(lanes, width, width if p["MAX"] else 64)
    largest = p["MAX"]
    control = parts.counter(-(-p["ROW"] // lanes)) + 2 * (lanes - 1).bit_length()
    sums, compared = adders * (1 - largest) + made * (1 - largest), (adders + made) * largest
    return (1.0, control, registers + made, sums, compared), 0, 0


def permute(p: Parameters) -> Counted:
    """Of rtl/permute.sv."""
    address = parts.counter(p["BEATS"])
    _, blocks = parts.ram(p["BITS"], 2 << address)
    memory = parts.muxes(p["BITS"], 2 << address)
    levels = sum(p[f"COUNT{level}"] > 1 for level in range(6))
    counters = sum(parts.counter(p[f"COUNT{level}"]) for level in range(6) if p[f"COUNT{level}"] > 1)
    return (1.0, address, counters, levels * address, p["BITS"] * (2 - (blocks > 0)), memory), 0, blocks


def embed(p: Parameters) -> Counted:
    """Of rtl/embed.sv."""
    width, depth = p["LANES"] * p["WIDTH"], p["ROWS"] * p["BEATS"]
    block = depth > 16 and depth * width > 16 * 128
    bram = parts.blocks(width, 1 << parts.counter(depth)) if block else 0
    return (1.0, p["IN_WIDTH"] + parts.counter(p["BEATS"]), width, 0 if block else parts.rom(width, depth)), 0, bram


def constant(p: Parameters) -> Counted:
    """Of rtl/constant.sv."""
    word = p["LANES"] * p["WIDTH"]
    if p["BLOCK"]:
        return (1.0, parts.counter(p["BEATS"]), 0, 0), 0, parts.blocks(word, 1 << parts.counter(p["BEATS"]))
    return (1.0, parts.counter(p["BEATS"]), 2 * word * (p["BEATS"] > 1), parts.rom(word, p["BEATS"])), 0, 0


def fifo(p: Parameters) -> Counted:
    """Of rtl/fifo.sv."""
    depth = 1 << parts.counter(max(p["DEPTH"], 2))
    _, blocks = parts.ram(p["WIDTH"], depth)
    registers = p["WIDTH"] * (1 + (p["DEPTH"] > 64) - (blocks > 0))
    return (1.0, parts.counter(p["DEPTH"]), registers, parts.muxes(p["WIDTH"], depth)), 0, blocks


def lanes(p: Parameters) -> Counted:
    """Of rtl/lanes.sv."""
    taken, given = p["LANES_IN"] * p["WIDTH"], p["LANES_OUT"] * p["WIDTH"]
    return (1.0, parts.counter(p["ROW"]), taken, given), 0, 0


def split(p: Parameters) -> Counted:
    """Of rtl/split.sv."""
    return (1.0, p["OUTPUTS"]), 0, 0


def concat(p: Parameters) -> Counted:
    """Of rtl/concat.sv."""
    return (1.0, parts.counter(max(p["A_BEATS"], p["B_BEATS"])), p["LANES"] * p["OUT_WIDTH"]), 0, 0


def part(p: Parameters) -> Counted:
    """Of rtl/slice.sv."""
    return (1.0, parts.counter(p["SIZE"]), parts.counter(p["INNER"])), 0, 0


def spread(p: Parameters) -> Counted:
    """Of rtl/spread.sv."""
    loops = [p[f"{name}_{axis}"] for name in ("SIZE", "STRIDE") for axis in range(3)] + [p["BEATS"]]
    return (1.0, sum(parts.counter(count) for count in loops if count > 1), p["WIDTH"]), 0, 0


def upsample(p: Parameters) -> Counted:
    """Of rtl/upsample.sv: a `replay` for each axis."""
    inner = p["BEATS"], p["SIZE_2"] * p["BEATS"], p["SIZE_1"] * p["SIZE_2"] * p["BEATS"]
    found = [parts.replay(p["WIDTH"], beats, p[f"TIMES_{2 - axis}"]) for axis, beats in enumerate(inner)]
    registers, choices, memory, blocks = (sum(each) for each in zip(*found, strict=True))
    return (1.0, registers, choices, memory), 0, blocks


def replay(p: Parameters) -> Counted:
    """Of rtl/replay.sv."""
    registers, choices, memory, blocks = parts.replay(p["BITS"], p["BEATS"], p["TIMES"])
    return (float(p["TIMES"] > 1), registers, choices, memory), 0, blocks
