"""Claim: the cost model is within 8 % of synthesis in tables and flip-flops, and exact in DSP blocks and memories.

    python -m benchmarks.fpga.syntheses             # about half an hour of one core; stop and go on when you like
    python -m benchmarks.fpga.syntheses --fit       # fit anew what was synthesized before

Synthesizes the designs that the model is fitted on, fits it, and judges it on designs that were held out. Only blocks
whose SystemVerilog changed are synthesized again; some stand beside each other in one design, since half of the time of
a small one is yosys reading its library. What was synthesized and the prices are kept in the package, in
src/planish/targets/fpga/streamed/syntheses.json, and how far off they are in benchmarks/results/fpga/cost.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.fpga import fit
from benchmarks.fpga.designs import KINDS, single, together
from benchmarks.fpga.networks import HELD_OUT, SHARED
from planish.errors import PlanishError
from planish.record import environment
from planish.targets.fpga.blocks.base import Instance
from planish.targets.fpga.streamed import cost
from planish.targets.fpga.streamed.emit import design, sources
from planish.targets.fpga.streamed.netlist import Netlist
from planish.targets.fpga.toolchain import tools
from planish.targets.fpga.toolchain.synthesize import Synthesis, synthesize
from planish.targets.fpga.toolchain.utilization import OUTSIDE, Utilization

RESULT = Path(__file__).parents[1] / "results" / "fpga" / "cost.json"
BARS = {"lut": 0.08, "ff": 0.08, "microseconds": 10.0}
LIMITS = tools.Limits(seconds=900, megabytes=6000)
TOGETHER = 6
"""Blocks in one design."""
SEVERAL = {make.__name__: make for make in (*SHARED, *HELD_OUT)}


def main() -> None:
    """Synthesize what is missing, fit, write the files, print the errors."""
    parser = argparse.ArgumentParser(prog="benchmarks.fpga.syntheses")
    parser.add_argument("--fit", action="store_true", help="fit only")
    parser.add_argument("--only", default=".", help="names of designs, as a regular expression")
    options = parser.parse_args()
    for names, netlist in () if options.fit else wanted(read(), options.only):
        try:
            made = counted(netlist)
        except PlanishError as error:
            print(f"{', '.join(names)}: {error}", file=sys.stderr, flush=True)
            continue
        write([row for row in read() if row["design"] not in names] + table(names, netlist, made))
        print(f"{', '.join(names)}: {made.total}", flush=True)
    rows = [row for row in read() if row["design"] in every()]
    write(rows)
    found = result(rows)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(fit.report(found)))
    print(", ".join(f"{name} {value:.3g}" for name, value in found["figures"].items()))


def read() -> list[dict[str, Any]]:
    """What was synthesized so far."""
    return json.loads(cost.FILE.read_text(encoding="utf-8"))["rows"] if cost.FILE.exists() else []


def every() -> list[str]:
    """The names of all designs."""
    kinds = {make.__name__: count for make, count in (*SHARED.items(), *HELD_OUT.items(), *KINDS.items())}
    return [f"{kind}-{number}" for kind, count in kinds.items() for number in range(count)]


def alone(name: str) -> Netlist:
    """A design by its name."""
    kind, _, number = name.rpartition("-")
    if kind in SEVERAL:
        return SEVERAL[kind](int(number))
    return together({name: single(next(each for each in KINDS if each.__name__ == kind), int(number))})


def wanted(rows: list[dict[str, Any]], only: str) -> Iterator[tuple[list[str], Netlist]]:
    """Designs, with the names of what is in them, that were not synthesized from their present sources."""
    have = {row["design"]: row["source"] for row in rows}
    missing = [name for name in every() if re.search(only, name) and have.get(name) != source(alone(name))]
    for name in missing:
        if fit.kind(name) in SEVERAL:
            yield [name], alone(name)
    for kind in KINDS:
        names = [name for name in missing if fit.kind(name) == kind.__name__]
        for start in range(0, len(names), TOGETHER):
            chosen = names[start : start + TOGETHER]
            yield chosen, together({name: single(kind, int(name.rpartition("-")[2])) for name in chosen})


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
    digests = {name: source(alone(name)) for name in names}
    if made.instances.get(OUTSIDE, Utilization()) != Utilization():
        print(f"{', '.join(names)}: belongs to no block: {made.instances[OUTSIDE]}", file=sys.stderr, flush=True)
    for cell in netlist.cells:
        name = names[0] if len(names) == 1 else cell.path
        parameters = {**cell.instance.parameters, **cost.facts(cell.instance)}
        facts = {"design": name, "source": digests[name], "module": cell.instance.module}
        used = made.instances.get(cell.name, Utilization())
        rows.append({**facts, "parameters": parameters, "used": asdict(used)})
    return rows


def write(rows: list[dict[str, Any]]) -> None:
    """Fit, and write the file of the package."""
    kept = {"time": environment()["time"], "tools": tools.versions("yosys"), "prices": fit.fitted(rows)}
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in kept.items()]
    lines = ",\n".join(json.dumps(row) for row in sorted(rows, key=lambda row: (row["module"], row["design"])))
    draft = cost.FILE.with_suffix(f".{os.getpid()}.draft")
    draft.write_text("{" + ",\n".join([*parts, f'"rows": [\n{lines}\n]']) + "}\n", encoding="utf-8")
    draft.replace(cost.FILE)


def result(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the result file holds."""
    found = fit.errors(rows)
    first, again = microseconds()
    figures = {
        "designs": len(fit.designs(rows)),
        "instances": len(rows),
        **{f"mean error of {which}": found["errors"]["all"][which] for which in ("lut", "ff")},
        **{f"mean error of {which} on networks": found["errors"]["networks"][which] for which in ("lut", "ff")},
        **{f"designs with a wrong {which}": len(names) for which, names in found["wrong"].items()},
        "microseconds of a layer": first,
        "microseconds of a layer again": again,
    }
    command = "python -m benchmarks.fpga.syntheses"
    return {
        "problem": {"held out": f"{fit.FOLDS}-fold by design, and networks that nothing is fitted on"},
        "environment": {**environment(seed=0, command=command), "tools": tools.versions("yosys")},
        "figures": figures,
        "bars": BARS,
        **found,
    }


def microseconds() -> tuple[float, float]:
    """What a layer of the held-out networks costs to price: as if it were the first time, and again."""
    layers = [
        cell.instance for make, count in HELD_OUT.items() for number in range(count) for cell in make(number).blocks
    ]
    cost.kept()

    def first(layer: Instance) -> None:
        cost.predict(layer.module, {**layer.parameters, **cost.facts(layer)}, cost.kept()["prices"])

    return mean(map(_timed(first), layers)), mean(map(_timed(cost.cost), layers))


def _timed(price: Callable[[Instance], object], times: int = 200) -> Callable[[Instance], float]:
    def best(layer: Instance) -> float:
        found = []
        for _ in range(times):
            start = time.perf_counter_ns()
            price(layer)
            found.append(time.perf_counter_ns() - start)
        return min(found[1:]) / 1e3

    return best


if __name__ == "__main__":
    main()
