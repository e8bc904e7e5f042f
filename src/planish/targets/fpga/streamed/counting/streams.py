"""Blocks that take and give numbers as they come, as their SystemVerilog has them."""

from __future__ import annotations

from planish.targets.fpga.streamed.counting.parts import Count, Parameters, trailing_zeros
from planish.targets.fpga.streamed.counting.products import fill_fifo


def requantize(p: Parameters) -> Count:
    """Of rtl/requantize.sv, rtl/round_clamp.sv and rtl/skid.sv."""
    lanes, width, out, factor, shift = p["LANES"], p["WIDTH"], p["OUT_WIDTH"], p["FACTOR_WIDTH"], p["SHIFT"]
    channels, nearest = p["CHANNELS"], p["EVEN"] | p["UP"]
    made = Count("requantize", 2 + (7 if channels and factor else 5 if factor else 2))
    if factor:
        if channels:
            made.counter(p["BEATS"])
            made.ff += 2 * lanes * width
            made.rom(lanes * factor, p["BEATS"])
        unread = 0 if p["EVEN"] else max(min(shift - p["UP"], width + factor), 0)
        constant = 0 if channels else p["FACTOR"]
        made.mult((width, p["SIGNED"]), (factor, 0), p["DSP"], lanes, p["BEATS"], unread, constant)
    wide = width + factor
    kept = max(wide - shift, 0)  # bits that stay
    if shift > 0 and nearest:
        kept += 1
        made.adder(kept, lanes)
    low, high, signed = p["LOW"], p["HIGH"], p["LOW"] < 0
    if low > -(1 << out - 1) and signed:
        made.comparator(out - 1 - trailing_zeros(low), lanes)
    if high + 1 < 1 << out - signed:
        made.comparator(out - signed - trailing_zeros(high + 1), lanes)
    made.ff += lanes * (kept + 3 * out)
    made.logic["choice"] += lanes * out
    made.logic["clamp"] += lanes * out
    made.logic["bound"] += lanes * max(kept - out, 0)
    made.logic["tie"] += lanes * max(min(shift, wide), 0) * p["EVEN"]
    return made


def lookup(p: Parameters) -> Count:
    """Of rtl/lookup.sv."""
    made = Count("lookup", 2)
    for _ in range(p["LANES"]):
        made.table(p["OUT_WIDTH"], 1 << p["WIDTH"], p["BLOCK"], p["COLUMNS"], p["LEAVES"], p["BRANCHES"])
    return made


def add(p: Parameters) -> Count:
    """Of rtl/add.sv."""
    lanes, out = p["LANES"], p["OUT_WIDTH"]
    made = Count("add", 1 + lanes * out)
    for port in "AB":
        made.replay(p[f"{port}_LANES"] * p[f"{port}_WIDTH"], p[f"{port}_BEATS"], p[f"{port}_TIMES"])
    made.adder(out, lanes)
    return made


def multiply(p: Parameters) -> Count:
    """Of rtl/multiply.sv."""
    made = Count("multiply", 3)
    for port in "AB":
        made.replay(p[f"{port}_LANES"] * p[f"{port}_WIDTH"], p[f"{port}_BEATS"], p[f"{port}_TIMES"])
    made.mult((p["A_WIDTH"], p["A_SIGNED"]), (p["B_WIDTH"], p["B_SIGNED"]), p["DSP"], p["LANES"])
    return made


def reduce(p: Parameters) -> Count:
    """Of rtl/reduce.sv."""
    lanes, width, out, largest = p["LANES"], p["WIDTH"], p["OUT_WIDTH"], p["MAX"]
    beats, levels = -(-p["ROW"] // lanes), (lanes - 1).bit_length()
    made = Count("reduce", 2 + out + 2 * levels)
    made.counter(beats)
    if largest:
        made.ff += _halved(lanes) * width
        made.adder(width + 1, lanes - 1)
        made.logic["choice"] += (lanes - 1) * width
        made.adder(out + 1)
    else:
        made.tree(lanes, width)
        made.adder(out)
    made.logic["sum"] += out
    made.logic["missing"] += (beats * lanes - p["ROW"]) * width
    return made


def microscale(p: Parameters) -> Count:
    """Of rtl/microscale.sv, rtl/shift_round.sv and two of rtl/fifo.sv."""
    lanes, width, run, out, element = (p[name] for name in ("LANES", "WIDTH", "RUN", "OUT_WIDTH", "ELEMENT"))
    most, beats = width - 1 - p["TOP"], -(-p["ROW"] // lanes)
    more = most.bit_length()
    made = Count("microscale", 5 + lanes * most + most + more + 5 + 4 * more + more // 2)
    made.counter(run)
    if run < beats:
        made.counter(beats)
    if p["SIGNED"]:
        made.adder(width, lanes)
        made.logic["magnitude"] += lanes * width
    made.logic["missing"] += (beats * lanes - p["ROW"]) * width
    made.logic["highest"] += lanes * most
    fill_fifo(made, lanes * width + 1, run + 7)
    fill_fifo(made, more, run + 7)
    made.ff += lanes * (2 * (width + 2) + width + 1 + element + out)
    made.adder(width + 1, lanes)
    if p["SIGNED"]:
        made.comparator(width + 2 - p["TOP"], lanes)
    made.logic["clamp"] += lanes * element
    made.logic["shift"] += lanes * (width + 2) * more
    made.logic["back"] += lanes * out * more
    return made


def _halved(lanes: int) -> int:
    """Numbers on all levels of a tree but the first."""
    found = 0
    while lanes > 1:
        lanes = (lanes + 1) // 2
        found += lanes
    return found


def permute(p: Parameters) -> Count:
    """Of rtl/permute.sv."""
    made = Count("permute", 4 + 2)
    address = (p["BEATS"] - 1).bit_length()
    made.counter(p["BEATS"])
    made.ff += address
    made.adder(address)
    for level in range(6):
        if p[f"COUNT{level}"] > 1:
            made.counter(p[f"COUNT{level}"])
            made.logic["jump"] += address
    made.memory(p["BITS"], 2 << address, 2)
    return made


def embed(p: Parameters) -> Count:
    """Of rtl/embed.sv."""
    width, depth = p["LANES"] * p["WIDTH"], p["ROWS"] * p["BEATS"]
    address = max((depth - 1).bit_length(), 1)
    made = Count("embed", 3 + address)
    made.counter(max(p["BEATS"], 2))
    made.adder(address)
    made.logic["jump"] += address
    places = [place for place in range(address) if p["BEATS"] >> place & 1]
    for place in places[1:]:  # the number times the beats of a row
        made.adder(address - place)
    made.rom(width, depth, depth * width > 2048)
    return made


def constant(p: Parameters) -> Count:
    """Of rtl/constant.sv."""
    made = Count("constant", 2)
    made.counter(p["BEATS"])
    made.rom(p["LANES"] * p["WIDTH"], p["BEATS"], p["BLOCK"])
    return made


def fifo(p: Parameters) -> Count:
    """Of rtl/fifo.sv."""
    made = Count("fifo")
    fill_fifo(made, p["WIDTH"], p["DEPTH"])
    return made


def lanes(p: Parameters) -> Count:
    """Of rtl/lanes.sv."""
    made = Count("lanes")
    taken, given, width = p["LANES_IN"], p["LANES_OUT"], p["WIDTH"]
    piece = _shared(taken, given)
    pieces = -(-p["ROW"] // piece)
    if taken > piece:
        made.ff += 3 + (taken // piece - 1).bit_length() + taken * width
        made.counter(pieces)
        made.logic["apart"] += (taken - piece) * width
        made.logic["apart control"] += 1
    if given > piece:
        made.ff += 1 + given // piece + given * width
        made.counter(pieces)
        made.logic["together"] += given // piece
        made.logic["together bits"] += given * width
    return made


def _shared(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


def skid(p: Parameters) -> Count:
    """Of rtl/skid.sv."""
    made = Count("skid", 2 + 2 * p["WIDTH"])
    made.logic["choice"] += p["WIDTH"]
    return made


def split(p: Parameters) -> Count:
    """Of rtl/split.sv."""
    made = Count("split", p["OUTPUTS"])
    made.logic["reader"] += p["OUTPUTS"]
    return made


def concat(p: Parameters) -> Count:
    """Of rtl/concat.sv."""
    made = Count("concat", 1)
    made.counter(max(p["A_BEATS"], p["B_BEATS"]))
    made.logic["choice"] += p["LANES"] * p["OUT_WIDTH"]
    return made


def part(p: Parameters) -> Count:
    """Of rtl/slice.sv."""
    made = Count("slice", (p["SIZE"] - 1).bit_length())
    made.counter(p["SIZE"])
    made.counter(max(p["INNER"], 2))
    made.adder((p["SIZE"] - 1).bit_length())
    return made


def spread(p: Parameters) -> Count:
    """Of rtl/spread.sv."""
    missing = sum(p[f"STRIDE_{axis}"] == 1 for axis in range(3))
    made = Count("spread", 1 + p["WIDTH"] + 2 * missing)
    for size in (*(p[f"{name}_{axis}"] for name in ("SIZE", "STRIDE") for axis in range(3)), p["BEATS"]):
        made.counter(size)
    return made


def upsample(p: Parameters) -> Count:
    """Of rtl/upsample.sv: a `replay` for each axis."""
    made = Count("upsample")
    beats = p["BEATS"]
    for axis in (2, 1, 0):
        made.replay(p["WIDTH"], beats, p[f"TIMES_{axis}"])
        beats *= p.get(f"SIZE_{axis}", 1)
    return made


def replay(p: Parameters) -> Count:
    """Of rtl/replay.sv."""
    made = Count("wires")
    made.replay(p["BITS"], p["BEATS"], p["TIMES"])
    return made
