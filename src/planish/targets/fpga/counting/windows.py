"""Blocks that look at windows over axes of space."""

from __future__ import annotations

from planish.targets.fpga.counting import parts
from planish.targets.fpga.counting.parts import Counted, Parameters
from planish.targets.fpga.counting.products import matvec


def _window(p: Parameters, width: int, beats: int) -> Counted:
    """Of rtl/window.sv: loops and addresses, and the buffer."""
    line = p["SIZE_1"] * p["SIZE_2"] * p["GROUPS"] * beats
    ring = p["LINES"] * line
    address = parts.counter(ring)
    _, blocks = parts.ram(width, 1 << address)
    counts = [p[f"{name}_{axis}"] for name in ("COUNT", "KERNEL") for axis in range(3)] + [p["GROUPS"], beats]
    loops = sum(parts.counter(count) for count in counts if count > 1)
    padded = sum(p[f"BEFORE_{axis}"] > 0 for axis in range(3))
    control = loops + parts.counter(line) + parts.counter(p["LINES"] + 1)
    moved = address * (2 + sum(count > 1 for count in counts))
    return (control, moved, padded * 8.0, width * (2 - 2 * (blocks > 0)), parts.muxes(width, 1 << address)), 0, blocks


def convolve(p: Parameters) -> Counted:
    """Of rtl/convolve.sv: a window and a matrix."""
    window, _, blocks = _window(p, p["SIMD"] * p["IN_WIDTH"], p["BEATS"])
    taps = p["KERNEL_0"] * p["KERNEL_1"] * p["KERNEL_2"]
    features, dsp, bram = matvec({**p, "BEATS": taps * p["BEATS"]})
    return (*features, *window), dsp, bram + blocks


def depthwise(p: Parameters) -> Counted:
    """Of rtl/depthwise.sv."""
    lanes, given, weight, made = p["LANES"], p["IN_WIDTH"], p["WEIGHT_WIDTH"], p["OUT_WIDTH"]
    window, _, bram = _window(p, lanes * given, 1)
    depth = p["GROUPS"] * p["KERNEL_0"] * p["KERNEL_1"] * p["KERNEL_2"]
    registers, adders, dsp = (lanes * x for x in parts.mult(given, weight, p["DSP"]))
    word = lanes * weight
    words = parts.rom(lanes * made * p["BIAS"], p["GROUPS"])
    if p["WEIGHT_BLOCK"]:
        bram += parts.blocks(word, 1 << parts.counter(depth))
        word = 0
    else:
        words += parts.rom(word, depth)
    stored = 2 * (lanes * given + word + lanes * made * p["BIAS"] * (p["GROUPS"] > 1))
    return (1.0, *window, words, stored, registers, adders, lanes * made), dsp, bram


def pool(p: Parameters) -> Counted:
    """Of rtl/pool.sv."""
    lanes, width, made = p["LANES"], p["WIDTH"], p["OUT_WIDTH"]
    window, _, bram = _window(p, lanes * width, 1)
    return (1.0, *window, lanes * made * p["MAX"], lanes * made * (1 - p["MAX"])), 0, bram
