"""Synthesizes the designs that the cost model is fitted on, fits it, and tells how far off it is.

    python -m benchmarks.fpga.syntheses             # about half an hour of one core; stop and go on when you like
    python -m benchmarks.fpga.syntheses --fit       # fit anew what was synthesized before

Only blocks whose SystemVerilog changed are synthesized again; some stand beside each other in one design, since half of
the time of a small one is yosys reading its library. What was synthesized and the fitted model are kept in the package,
in src/planish/targets/fpga/syntheses.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.fpga import fit
from benchmarks.fpga.designs import KINDS, NETWORKS, RESIDUALS, network, residual, single, together
from planish.errors import PlanishError
from planish.record import environment
from planish.targets.fpga import cost, tools
from planish.targets.fpga.emit import design, sources
from planish.targets.fpga.netlist import Netlist
from planish.targets.fpga.synthesize import Synthesis, synthesize

LIMITS = tools.Limits(seconds=900, megabytes=6000)
TOGETHER = 6
"""Blocks in one design."""


def main() -> None:
    """Synthesize what is missing, fit, print the errors, write the file."""
    parser = argparse.ArgumentParser(prog="benchmarks.fpga.syntheses")
    parser.add_argument("--fit", action="store_true", help="fit only")
    parser.add_argument("--only", default=".", help="names of designs, as a regular expression")
    options = parser.parse_args()
    rows = read()
    for names, netlist in () if options.fit else wanted(rows, options.only):
        try:
            made = counted(netlist)
        except PlanishError as error:
            print(f"{', '.join(names)}: {error}", file=sys.stderr, flush=True)
            continue
        # another process may have added some meanwhile
        rows = [row for row in read() if row["design"] not in names] + table(names, netlist, made)
        write(rows)
        print(f"{', '.join(names)}: {made.total}", flush=True)
    rows = read()
    write(rows)
    print("\n".join(fit.report(rows)))


def read() -> list[dict[str, Any]]:
    """What was synthesized so far."""
    return json.loads(cost.FILE.read_text(encoding="utf-8"))["rows"] if cost.FILE.exists() else []


def wanted(rows: list[dict[str, Any]], only: str) -> Iterator[tuple[list[str], Netlist]]:
    """Designs, with the names of what is in them, that were not synthesized from their present sources."""
    have = {row["design"]: row["source"] for row in rows}
    for make, count in ((network, NETWORKS), (residual, RESIDUALS)):
        for number in range(count):
            name = f"{make.__name__}-{number}"
            if re.search(only, name):
                netlist = make(number)
                if have.get(name) != source(netlist):
                    yield [name], netlist
    for kind, count in KINDS.items():
        missing = {}
        for number in range(count):
            name = f"{kind.__name__}-{number}"
            if not re.search(only, name):
                continue
            try:
                program = single(kind, number)
                if have.get(name) != source(together({name: program})):
                    missing[name] = program
            except PlanishError as error:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
        names = list(missing)
        for start in range(0, len(names), TOGETHER):
            chosen = names[start : start + TOGETHER]
            yield chosen, together({name: missing[name] for name in chosen})


def source(netlist: Netlist) -> str:
    """Digest of the modules of a design and of their parameters."""
    found = [(cell.instance.module, sorted(cell.instance.parameters.items())) for cell in netlist.cells]
    return hashlib.sha256(repr([found, sorted(sources(netlist).items())]).encode()).hexdigest()[:12]


def counted(netlist: Netlist) -> Synthesis:
    """The synthesis of a design, of which only the counts are kept."""
    with TemporaryDirectory() as folder:
        for file, text in design(netlist).files.items():
            path = Path(folder, "design", file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return synthesize(Path(folder, "design"), Path(folder, "made"), limits=LIMITS)


def table(names: list[str], netlist: Netlist, made: Synthesis) -> list[dict[str, Any]]:
    """A row for each instance of a design."""
    rows = []
    alone = {name: source(together({name: program})) for name, program in _programs(names).items()}
    for cell in netlist.cells:
        found = made.instances.get(cell.name)
        if found is not None:
            name = names[0] if len(names) == 1 else cell.path
            parameters = {**cell.instance.parameters, **cost.toggles(cell.instance)}
            facts = {"design": name, "source": alone.get(name) or source(netlist), "module": cell.instance.module}
            rows.append({**facts, "parameters": parameters, "used": asdict(found)})
    return rows


def _programs(names: list[str]) -> dict[str, Any]:
    kinds = {kind.__name__: kind for kind in KINDS}
    parts = (name.partition("-") for name in names)
    return {f"{kind}-{number}": single(kinds[kind], int(number)) for kind, _, number in parts if kind in kinds}


def write(rows: list[dict[str, Any]]) -> None:
    """Fit, and write the file of the package."""
    kept = {
        "time": environment()["time"],
        "tools": tools.versions("yosys"),
        "model": fit.fitted(row for row in rows if not row["design"].startswith("network")),
    }
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in kept.items()]
    lines = ",\n".join(json.dumps(row) for row in sorted(rows, key=lambda row: (row["module"], row["design"])))
    draft = cost.FILE.with_suffix(f".{os.getpid()}.draft")
    draft.write_text("{" + ",\n".join([*parts, f'"rows": [\n{lines}\n]']) + "}\n", encoding="utf-8")
    draft.replace(cost.FILE)


if __name__ == "__main__":
    main()
