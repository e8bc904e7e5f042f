"""An artifact timed once more, in turn with everything that it was chosen from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from planish.errors import EngineError
from planish.graph import Graph
from planish.measure import Progress, compare
from planish.record import Measurement
from planish.targets.cpu.artifact import CpuArtifact, how
from planish.targets.cpu.engine import ENGINES
from planish.targets.cpu.signature import Signature

EAGER = "eager fp32"


def compiled_again(graph: Graph, row: Measurement, like: CpuArtifact) -> CpuArtifact | None:
    """What a `latency` row was measured of, compiled again; None where its engine takes the graph no more."""
    engine, precision = str(row.details["engine"]), str(row.details["precision"])
    options = replace(like.options, exact=row.subject.endswith(" exact"), bfloat16=precision.endswith("bf16"))
    try:
        compiled = ENGINES[engine]().compile(graph, options)
    except EngineError:
        return None
    return CpuArtifact(engine, compiled, Signature.of(graph), options, precision)


def race(
    chosen: CpuArtifact,
    others: Mapping[str, CpuArtifact],
    original: Graph,
    call: tuple[tuple[Any, ...], dict[str, Any]],
    *,
    baselines: frozenset[str],
    seconds: float = 8.0,
    progress: Progress | None = None,
) -> list[Measurement]:
    """`latency` and `speedup` rows of everything, from one interleaved measurement.

    Args:
        chosen: The artifact.
        others: What it is compared with, by label.
        original: The unchanged graph, run eagerly.
        call: Inputs.
        baselines: Labels among `others` that run the original; the fastest of them is the baseline.
        seconds: About how long to measure.
        progress: Told how far it is.
    """
    every = {chosen.label: chosen, **others}
    runs: dict[str, Any] = {EAGER: lambda: original(*call[0], **call[1])}
    for label, artifact in every.items():
        runs[label] = artifact.timed([call])
    threads = torch.get_num_threads()
    torch.set_num_threads(chosen.options.threads)
    try:
        times = compare(runs, seconds=seconds, progress=progress)
    finally:
        torch.set_num_threads(threads)
    roles = {EAGER: "eager", chosen.label: "chosen"}
    if baselines:
        roles[min(baselines, key=times.median)] = "baseline"
    rows = []
    for label in runs:
        role = roles.get(label, "candidate")
        told = how(every[label], [call]) if label in every else {}
        details = told or {"engine": "eager", "precision": "fp32", "threads": chosen.options.threads}
        rows.append(times.latency(label, role=role, **details))
        if label != chosen.label:
            rows.append(times.speedup(label, chosen.label, role=role))
    return rows
