"""What a circuit takes of an ECP5, before synthesis: its chains and registers exactly, its tables about."""

from __future__ import annotations

from collections import defaultdict

from planish.targets.fpga.toolchain.utilization import OUTSIDE, Utilization
from planish.targets.fpga.unrolled.circuit import Circuit, Clamp, Input, Node, Sum, Table, width
from planish.targets.fpga.unrolled.pipeline import Pipeline
from planish.targets.fpga.unrolled.share import TABLE_BITS

SHORTEST = 3
"""Bits of the shortest sum that `carry_sum.sv` makes a chain."""
MUXED = 7
"""Inputs of a function whose tables the multiplexers of the slices join for nothing."""


def areas(circuit: Circuit, cut: Pipeline) -> dict[str, Utilization]:
    """Cells of each layer, by the name of what it makes; `OUTSIDE` tells which stages hold a sample."""
    found: defaultdict[str, Utilization] = defaultdict(Utilization)
    for node in circuit.nodes:
        found[node.layer] += logic(node)
        if isinstance(node, Input):
            found[node.layer] += Utilization(ff=node.width)
    last = [*cut.stage, cut.stages]
    for (node, _), readers in circuit.readers.items():
        kept = max(last[reader] for reader in readers) - cut.stage[node]
        found[circuit.nodes[node].layer] += Utilization(ff=kept)
    found[OUTSIDE] += Utilization(lut4=2, ff=cut.stages + 1)
    return dict(found)


def logic(node: Node) -> Utilization:
    """Cells that make the bits of a node."""
    match node:
        case Sum():
            return _sum(node)
        case Table():
            bits = [tuple(entry >> place & 1 for entry in node.entries) for place in range(node.width)]
            return Utilization(lut4=_functions(set(bits), len(node.index)))
        case Clamp():
            return Utilization(lut4=_clamp(node))
    return Utilization()


def _sum(node: Sum) -> Utilization:
    """As `carry_sum.sv` spells it out."""
    if node.width < SHORTEST:
        return Utilization(lut4=node.width + (node.width > 1 and not node.carry.constant))
    merged = node.carry.constant and node.width % 2 == 0
    return Utilization(lut4=int(merged), ccu2c=node.width // 2 if merged else (node.width + 2) // 2)


def _functions(bits: set[tuple[int, ...]], inputs: int) -> int:
    """Tables of four inputs that make functions of the same inputs; the other inputs choose between them."""
    codes = range(1 << inputs)
    wires = {tuple(code >> place & 1 ^ flip for code in codes) for place in range(inputs) for flip in (0, 1)}
    made: set[tuple[int, ...]] = set()
    muxes = 0
    for bit in bits - wires:
        parts = {bit[start : start + (1 << TABLE_BITS)] for start in range(0, len(bit), 1 << TABLE_BITS)}
        made |= {part for part in parts if len(set(part)) > 1}
        muxes += (1 << max(0, inputs - MUXED)) - 1
    return len(made) + muxes


def _clamp(node: Clamp) -> int:
    """A table for each bit that comes out, and those that tell whether the word is beyond a bound or between two."""
    tables, size = node.width, len(node.word.bits)
    if node.word.high > node.high:
        whole = node.high + 1 & node.high == 0  # the bits above tell
        tables += _gathered(size - node.word.signed - width(0, node.high) if whole else size)
    if node.word.low < node.low < 0:
        whole = node.low & -node.low - 1 == 0
        tables += _gathered(size - width(node.low, 0) if whole else size)
    return tables + (1 + _gathered(len(node.ties)) if node.ties else 0)


def _gathered(bits: int) -> int:
    """Tables of four inputs that make one bit of some."""
    return max(0, -(-(bits - 1) // (TABLE_BITS - 1)))
