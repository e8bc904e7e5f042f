"""What simulation, synthesis and routing found, as measurements: of the whole, and by the user's modules."""

from __future__ import annotations

from dataclasses import replace

from planish.record import Measurement
from planish.targets.fpga.board import Board
from planish.targets.fpga.design import Design
from planish.targets.fpga.toolchain.route import Route
from planish.targets.fpga.toolchain.simulate import Simulation
from planish.targets.fpga.toolchain.synthesize import Synthesis
from planish.targets.fpga.toolchain.utilization import OUTSIDE


def measured(
    design: Design, board: Board, mode: str, simulated: Simulation, synthesis: Synthesis, placed: Route
) -> list[Measurement]:
    """Rows of the whole design first; those of an instance carry its module's path, and its name in the details.

    Times are those of the clock that was asked for, or of the one that was reached if that is slower.

    Args:
        design: What was measured.
        board: Where it goes.
        mode: How it was made.
        simulated: Without pauses, of two samples or more.
        synthesis: Its cells.
        placed: Its clock.
    """
    paths = {part.name: part.path for part in design.parts}
    clock = min(placed.median, board.clock)
    interval = simulated.interval
    details = {"device": board.device, "MHz": clock, "mode": mode, "vectors": len(simulated.outputs[0])}
    rows = [
        Measurement("interval", interval, "cycles", "simulated", details=details),
        Measurement("latency cycles", simulated.latency, "cycles", "simulated", details=details),
        Measurement("latency", simulated.latency / clock * 1e-6, "s", "simulated", subject="chosen", details=details),
        Measurement("throughput", clock * 1e6 / interval, "samples/s", "simulated", details=details),
    ]
    for part in design.parts:
        if part.comment:
            told = {"instance": part.name, "module": part.module}
            rows.append(Measurement("cycles", part.interval, "cycles", "exact", where=part.path, details=told))
    rows += [
        Measurement("high water", peak, "beats", "simulated", where=paths.get(name, ""), details={"instance": name})
        for name, peak in simulated.peaks.items()
    ]
    rows += [_by_module(row, paths) for row in [*synthesis.measurements(), *placed.measurements()]]
    rows += [
        Measurement(
            "critical path",
            (hop.logic + hop.wires) * 1e-9,
            "s",
            "synthesized",
            where=paths.get(hop.where, ""),
            details={"instance": hop.where, "wires": hop.wires * 1e-9, "place": place},
        )
        for place, hop in enumerate(placed.path)
    ]
    return [*rows, *board.chip.power(synthesis.total, clock), board.chip.energy(synthesis.total, clock, interval)]


def _by_module(row: Measurement, paths: dict[str, str]) -> Measurement:
    """A row of an instance, told by the user's module."""
    if row.where == OUTSIDE:
        return row
    return replace(row, where=paths.get(row.where, ""), details={**row.details, "instance": row.where})
