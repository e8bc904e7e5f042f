"""`planish plan`: how to spread a training over devices, and why so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planish.cli.console import console, escape, suggest, table, working
from planish.cli.job import Model, RunDir, Trust, write_page
from planish.record import Run

if TYPE_CHECKING:
    from planish.training.parallel.plan import Precision
    from planish.training.planning import Candidate, Planned

SHOWN = 8
UNITS = {"GB": 1e9, "GIB": 2**30, "MB": 1e6, "MIB": 2**20, "TB": 1e12, "B": 1.0}


def plan(
    model: Model,
    devices: Annotated[int | None, typer.Option(min=1, help="How many; their axes are left open.")] = None,
    mesh: Annotated[str | None, typer.Option(metavar="AXES", help="Such as 16x8x8, the last axis in a node.")] = None,
    hardware: Annotated[str, typer.Option(metavar="NAME", help="h100-sxm, a100-sxm-80gb, cpu... or a .toml.")] = "cpu",
    memory: Annotated[str | None, typer.Option(metavar="BYTES", help="Of a device [default: the hardware's].")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Samples of a step [default: 8 a device].")] = None,
    precision: Annotated[str | None, typer.Option(help="Of products: fp32 or bf16 [default: bf16; cpu: fp32].")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show what it means for each layer.")] = False,
    run: RunDir = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The plan [default: RUN/plan.toml].")
    ] = None,
    trust: Trust = False,
) -> None:
    """Find the fastest way to train a model on many devices, and say why it is.

    Times and memory are modeled: nothing is run.

    \b
    planish plan model.py:make --devices 8 --hardware h100-sxm
    planish plan model.py:make --mesh 16x8x8 --hardware h100-sxm --explain
    """
    folder = run or Path("runs") / (Path(model.rpartition(":")[2]).stem or "model")
    with working(folder) as progress:
        progress(0, 0, "loading PyTorch and the model")
        from planish.flow import planning, resolve
        from planish.training.planning import Cluster, parse_mesh

        axes = parse_mesh(mesh) if mesh else None
        limit = parse_bytes(memory) if memory else None
        cluster = Cluster.of(hardware, devices, axes)
        source = resolve(model, trust)
        progress(0, 0, "judging plans")
        found = planning.make(Run(folder), source, cluster, batch, limit, _precision(precision), out)
    _tell(found, explain)
    write_page(Run(folder))
    file = out or folder / planning.FILE
    console.print(f"plan {file}", style="dim", whole=True)
    suggest(f"planish train {model} --plan {file}")


def parse_bytes(text: str) -> float:
    """Bytes of "80GB".

    Raises:
        OptionError: It is no size.
    """
    from planish.errors import OptionError

    upper = text.strip().upper()
    for unit in sorted(UNITS, key=len, reverse=True):
        if upper.endswith(unit):
            try:
                return float(upper.removesuffix(unit)) * UNITS[unit]
            except ValueError:
                break
    raise OptionError(f"not a size: {text!r}", "--memory", "--memory 80GB")


def _precision(name: str | None) -> Precision | None:
    from typing import get_args

    from planish.errors import UnknownName
    from planish.training.parallel.plan import Precision

    known: dict[str, Precision] = {each: each for each in get_args(Precision)}
    if name is not None and name not in known:
        raise UnknownName("precision", name, known, "--precision")
    return known[name] if name else None


def _tell(found: Planned, explain: bool) -> None:
    from planish.report.numbers import quantity

    best, cluster = found.best, found.cluster
    mesh = "×".join(map(str, cluster.mesh))
    console.print(f"[bold]{escape(str(best.plan))}[/]")
    console.print(
        f"on {mesh} {escape(cluster.hardware.name)}, {found.batch} samples a step; all figures are modeled\n",
        whole=True,
    )

    def line(candidate: Candidate) -> list[str]:
        estimate = candidate.estimate
        return [str(candidate.plan), quantity(estimate.seconds, "s"), quantity(estimate.peak, "B"), candidate.why]

    console.print(
        table(["plan", "step", "memory", "why not"], map(line, [best, *found.others[: SHOWN - 1]]), right=(1, 2))
    )
    parts = [f"{name} {quantity(seconds, 's')}" for name, seconds in best.estimate.parts.items() if seconds > 0]
    console.print(f"\na step: {', '.join(parts)}", whole=True)
    if best.plan.pp > 1:
        shares = zip(range(best.plan.pp), best.estimate.memory, strict=True)
        rows = [[str(i), ", ".join(found.stages_of(i)), quantity(each.total, "B")] for i, each in shares]
        console.print(table(["device", "stages from", "memory"], rows, right=(2,)))
    if found.unknown:
        console.print(
            f"each device does all of: {', '.join(found.unknown)} (DTensor cannot divide them)",
            style="yellow",
            markup=False,
        )
    if explain:
        _explain(found)


def _explain(found: Planned) -> None:
    from planish.report.numbers import quantity

    rows = [
        [
            row.path,
            str(row.count),
            row.sharding or "whole",
            quantity(row.moved, "B"),
            quantity(row.seconds, "s"),
            quantity(row.memory, "B"),
        ]
        for row in found.rows
    ]
    console.print()
    console.print(table(["layer", "alike", "divided by tp", "moved", "time", "memory"], rows, right=(1, 3, 4, 5)))
    for each in found.refused[:SHOWN]:
        console.print(f"not possible: {each}", style="dim", markup=False)
