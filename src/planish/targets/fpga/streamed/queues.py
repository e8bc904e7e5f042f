"""How many beats wait where paths that part meet again: before an addition of a residual, or a product with what was
made of the same row; and a few before windows, which take their input in bursts.

If the short way could not hold what comes until the long way makes its first beat, the split before both would stop,
the long way would starve, and nothing would move any more. How far the long way lags behind follows from the latency of
its blocks; the simulation of a few samples tells how much of that was needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from planish.targets.fpga.operations.layout import Repeat
from planish.targets.fpga.operations.products import Convolve
from planish.targets.fpga.operations.rows import Pool
from planish.targets.fpga.streamed.netlist import Cell, Netlist, Wire

_SLACK = 4  # beats beyond those that are computed, for registers that no latency tells of


_BURST = 4  # beats that a window takes at once, while it slides on
_BUSY = 0.5  # share of the pace from which on a block has no time to wait


@dataclass(frozen=True)
class _Flow:
    """How a stream goes.

    Attributes:
        lag: Samples, or parts of one, that have come in from outside when its first beat comes.
        parted: The splits before it.
    """

    lag: float = 0.0
    parted: frozenset[str] = frozenset()


def depths(netlist: Netlist) -> dict[str, int]:
    """Beats that a FIFO before an input must hold, by `value.port`; only where paths meet that parted before.

    Each is an upper bound: every block is taken to have read as much as it can before it begins.
    """
    pace = max((cell.instance.interval for cell in netlist.blocks), default=1)
    flows = {stream.name: _Flow() for stream in netlist.inputs}
    wanted: dict[str, int] = {}
    for part in netlist.parts:
        if isinstance(part, Wire):
            flows[part.made.name] = flows[part.source.name]
            continue
        inputs = {port: flows[stream.name] for port, stream in part.inputs.items()}
        made = _made(part, inputs, pace)
        flows |= {stream.name: made for stream in part.outputs}
        if part.operation is None:
            continue
        for port, flow in inputs.items():
            others = [other.parted for name, other in inputs.items() if name != port]
            if any(flow.parted & parted for parted in others):
                waiting = (made.lag - flow.lag) * part.inputs[port].beats
                wanted[f"{part.operation.output.name}.{port}"] = ceil(waiting) + _SLACK
    return wanted


def bursts(netlist: Netlist) -> dict[str, int]:
    """Beats before busy windows and before repeated rows, by `value.port`, that let the blocks before them go on.

    Two busy blocks that wait for each other in turn are both slower than either alone. Whether they do, only a
    simulation tells.
    """
    pace = max((cell.instance.interval for cell in netlist.blocks), default=1)
    outside = {stream.name for stream in netlist.inputs}
    found = {}
    for cell in netlist.blocks:
        assert cell.operation is not None
        window = isinstance(cell.operation, Convolve | Pool) and cell.instance.interval > _BUSY * pace
        if window or isinstance(cell.operation, Repeat):
            for port, stream in cell.inputs.items():
                if stream.name not in outside:
                    row = stream.beats // stream.value.shape[0]
                    found[f"{cell.operation.output.name}.{port}"] = _BURST if window else row
    return found


def _made(cell: Cell, inputs: Mapping[str, _Flow], pace: int) -> _Flow:
    """What leaves a cell. In its latency it reads a beat a cycle, but of no further sample, and time passes."""
    read = [min(cell.instance.latency / stream.beats, 1.0) for stream in cell.inputs.values()]
    lag = max((flow.lag for flow in inputs.values()), default=0.0) + max(read, default=0.0)
    parted = frozenset().union(*(flow.parted for flow in inputs.values()))
    split = frozenset({cell.name}) if len(cell.outputs) > 1 else frozenset()
    return _Flow(lag + cell.instance.latency / pace, parted | split)


def needed(netlist: Netlist, depths: Mapping[str, int], peaks: Mapping[str, int]) -> dict[str, int]:
    """Depths that a simulation showed to be enough, whose inputs came at the design's own pace and did not pause.

    With them, what happened in the simulation can happen again, cycle by cycle. A network of streams in which each step
    is taken as soon as it can be is never slower than another order of steps that its queues allow, so that it keeps
    this pace; and as the long way made its first beat in the simulation, nothing stops for good.

    Args:
        netlist: What was simulated.
        depths: The depths that it had.
        peaks: The most beats that each FIFO held, by its instance; 0 where none had to wait: there it goes.
    """
    sources = {stream.name: cell.name for cell in netlist.fifos for stream in cell.outputs}
    found = {}
    for cell in netlist.blocks:
        assert cell.operation is not None
        for port, stream in cell.inputs.items():
            if stream.name in sources:
                key = f"{cell.operation.output.name}.{port}"
                found[key] = min(depths[key], peaks[sources[stream.name]])
    return {key: depth for key, depth in found.items() if depth}
