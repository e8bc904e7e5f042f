"""Blocks that look at windows over axes of space, as their SystemVerilog has them."""

from __future__ import annotations

from planish.targets.fpga.streamed.counting.parts import SMALL, Count, Parameters, distinct, trailing_zeros
from planish.targets.fpga.streamed.counting.products import fill_matvec

_LOOPS = [f"{name}_{axis}" for name in ("COUNT", "KERNEL") for axis in range(3)]
_AXES = [
    tuple(f"{name}_{axis}" for name in ("SIZE", "BEFORE", "COUNT", "KERNEL", "STRIDE", "DILATION")) for axis in range(3)
]


def _window(made: Count, p: Parameters, width: int, beats: int) -> None:
    """Of rtl/window.sv: loops and addresses, and the buffer."""
    groups, lines = p["GROUPS"], p["LINES"]
    line = p["SIZE_1"] * p["SIZE_2"] * groups * beats
    address = max((lines * line - 1).bit_length(), 1)
    loops = [count for count in (*[p[name] for name in _LOOPS], groups, beats) if count > 1]
    for count in loops:
        made.counter(count)
    made.logic["loop"] += address * len(loops)
    made.counter(line)
    made.counter(lines * line)
    made.ff += address + lines.bit_length() + 2
    made.adder(address + 1)
    ring = address - trailing_zeros(lines * line)  # places that going around the ring changes
    if ring > SMALL:
        made.adder(ring)
    else:
        made.comparator(ring + 1)
    padded = False
    for size_of, before_of, count_of, kernel_of, stride_of, dilation_of in _AXES:
        size, before, count, kernel = p[size_of], p[before_of], p[count_of], p[kernel_of]
        reach = (count - 1) * p[stride_of] + (kernel - 1) * p.get(dilation_of, 1) - before
        if before > 0 or reach >= size:
            bits = (max(reach, size) + before).bit_length() + 1
            made.ff += 2 * bits
            made.adder(bits, 2)
            made.adder(bits - trailing_zeros(p[stride_of]))
            made.comparator(bits - trailing_zeros(size))
            made.logic["padding"] += bits
            padded = True
    if padded:
        made.ff += 2
        made.logic["choice"] += width
    made.memory(width, lines * line, 2)


def convolve(p: Parameters) -> Count:
    """Of rtl/convolve.sv: a window and a matrix."""
    made = Count("convolve")
    _window(made, p, p["SIMD"] * p["IN_WIDTH"], p["BEATS"])
    fill_matvec(made, p, p["KERNEL_0"] * p["KERNEL_1"] * p["KERNEL_2"] * p["BEATS"])
    return made


def depthwise(p: Parameters) -> Count:
    """Of rtl/depthwise.sv."""
    lanes, given, weight, out, groups = p["LANES"], p["IN_WIDTH"], p["WEIGHT_WIDTH"], p["OUT_WIDTH"], p["GROUPS"]
    taps = p["KERNEL_0"] * p["KERNEL_1"] * p["KERNEL_2"]
    made = Count("depthwise", 2 * 5 + 2)
    _window(made, p, lanes * given, 1)
    made.counter(taps)
    made.counter(groups * taps)
    made.ff += 2 * lanes * given
    made.rom(lanes * weight, groups * taps, p["WEIGHT_BLOCK"])
    if p["BIAS"]:
        made.counter(groups)
        made.ff += 3 * (groups - 1).bit_length()
        made.rom(lanes * out, groups, stored=distinct(lanes * p["BIAS_BITS"], groups))
    made.mult((given, p["IN_SIGNED"]), (weight, 1), p["DSP"], lanes, groups * taps)
    made.ff += lanes * out
    made.adder(out, lanes)
    made.logic["sum"] += lanes * out
    return made


def pool(p: Parameters) -> Count:
    """Of rtl/pool.sv."""
    lanes, width, out = p["LANES"], p["WIDTH"], p["OUT_WIDTH"]
    made = Count("pool", 1 + lanes * out)
    _window(made, p, lanes * width, 1)
    made.counter(p["KERNEL_0"] * p["KERNEL_1"] * p["KERNEL_2"])
    if p["MAX"]:
        made.comparator(out, lanes)
    else:
        made.adder(out, lanes)
    made.logic["sum"] += lanes * out
    return made
