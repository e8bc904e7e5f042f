"""How many beats wait where paths that part meet again: before an addition of a residual, or a product with what was
made of the same row.

If the short way could not hold what comes while the long way makes its first beat, the split before both would stop,
the long way would starve, and nothing would move any more. From each block's latency and interval follows when beats
come at the latest; the simulation of a few samples tells how many there were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from planish.targets.fpga.blocks.base import Instance
from planish.targets.fpga.netlist import Cell, Netlist, Wire
from planish.targets.fpga.streams import Stream

_SLACK = 2  # beats beyond those that are computed: registers of splits and lane converters are not told of


@dataclass(frozen=True)
class _Flow:
    """When a stream's beats of one sample come, if nothing waits.

    Attributes:
        first: Cycle of the first one.
        span: Cycles in which all come.
        parted: Streams that were split on the way here.
    """

    first: float
    span: float
    parted: frozenset[str] = frozenset()


def depths(netlist: Netlist) -> dict[str, int]:
    """Beats that a FIFO before an input must hold, by `value.port`; only where paths meet that parted before.

    Each is an upper bound: every block is taken to begin its output as late as it can.
    """
    flows = {stream.name: _Flow(0.0, float(stream.beats)) for stream in netlist.inputs}
    wanted: dict[str, int] = {}
    for part in netlist.parts:
        if isinstance(part, Wire):
            flows[part.made.name] = flows[part.source.name]
            continue
        if part.operation is None:
            made = _passed(part, flows[part.inputs["in"].name])
            flows |= {stream.name: made for stream in part.outputs}
            continue
        inputs = {port: flows[stream.name] for port, stream in part.inputs.items()}
        made = _made(part.instance, list(inputs.values()), part.outputs[0])
        flows[part.outputs[0].name] = made
        for port, flow in inputs.items():
            others = [other.parted for name, other in inputs.items() if name != port]
            if any(flow.parted & parted for parted in others):
                pace = part.inputs[port].beats / max(flow.span, 1.0)
                wanted[f"{part.operation.output.name}.{port}"] = ceil((made.first - flow.first) * pace) + _SLACK
    return wanted


def _passed(part: Cell, flow: _Flow) -> _Flow:
    """What leaves a split or a lane converter, which waits for the beats that make a larger one."""
    (before,), after = part.inputs.values(), part.outputs[0]
    waits = flow.span / max(before.beats, 1) * -(-after.lanes // before.lanes) if after.lanes > before.lanes else 0.0
    parted = flow.parted | {part.name} if len(part.outputs) > 1 else flow.parted
    return _Flow(flow.first + waits + part.instance.latency, max(flow.span, float(after.beats)), parted)


def _made(instance: Instance, inputs: list[_Flow], stream: Stream) -> _Flow:
    """When a block's output comes. It is slower where its input is slower than the block could be."""
    span = max([float(instance.interval), float(stream.beats), *(flow.span for flow in inputs)])
    stretch = max([1.0, *(flow.span / instance.interval for flow in inputs)])
    first = max((flow.first for flow in inputs), default=0.0) + instance.latency * stretch
    parted = frozenset().union(*(flow.parted for flow in inputs))
    return _Flow(first, span, parted)


def needed(netlist: Netlist, depths: Mapping[str, int], peaks: Mapping[str, int]) -> dict[str, int]:
    """Depths that a simulation without pauses showed to be enough.

    With these, beats come and go in every cycle as they did in the simulation; and as the long way made its first beat
    in it, it does so with them.

    Args:
        netlist: What was simulated.
        depths: The depths that it had.
        peaks: The most beats that each FIFO held, by its instance.
    """
    sources = {stream.name: cell.name for cell in netlist.fifos for stream in cell.outputs}
    found = {}
    for cell in netlist.blocks:
        assert cell.operation is not None
        for port, stream in cell.inputs.items():
            if stream.name in sources:
                key = f"{cell.operation.output.name}.{port}"
                found[key] = max(1, min(depths[key], peaks[sources[stream.name]]))
    return found
