"""How long things take on ECP5 of speed grade 6, by nextpnr's tables and its placements of a few hundred sums (ns)."""

from __future__ import annotations

from planish.targets.fpga.unrolled.circuit import Clamp, Input, Node, Sum, Table

REGISTER = 0.52
"""From the clock to a register's output; it takes no time to be set."""
WIRE = 1.05
"""A wire, as placed: it takes more than the logic."""
TABLE = 0.24
"""A look-up table of four inputs."""
MUX = 0.2
"""Each further input, by the slice's multiplexers."""
INTO_CHAIN = 0.45
ALONG_CHAIN = 0.036
"""For each bit."""
OUT_OF_CHAIN = 0.44


def through(node: Node) -> float:
    """The delay of a node and of the wires to it."""
    match node:
        case Input():
            return REGISTER
        case Sum():
            return WIRE + INTO_CHAIN + ALONG_CHAIN * node.width + OUT_OF_CHAIN
        case Table():
            return WIRE + TABLE + MUX * max(0, len(node.index) - 4)
        case Clamp():
            return 2 * (WIRE + TABLE)
    return 0.0
