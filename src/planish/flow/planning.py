"""`planish plan`: a model and a cluster in; a plan, and what it was chosen by, out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from planish.flow.source import Source
from planish.record import Measurement, Run, environment
from planish.training.parallel.plan import Precision
from planish.training.planning import Candidate, Cluster, Planned, plan
from planish.training.planning.planner import SAID
from planish.training.planning.schedule import timeline
from planish.training.planning.setting import Setting

STAGE = "plan"
FILE = "plan.toml"
TOLD = 12
"""Runners-up that a run folder keeps."""


def make(
    run: Run,
    source: Source,
    cluster: Cluster,
    batch: int | None = None,
    memory: float | None = None,
    precision: Precision | None = None,
    out: Path | None = None,
) -> Planned:
    """Find the fastest plan, write it, and keep what it was chosen by.

    Args:
        run: Gets `plan.toml` and the modeled figures.
        source: The model.
        cluster: The devices.
        batch: Samples of a step, over all devices.
        memory: Bytes of each device.
        precision: Of products.
        out: Where the plan goes instead.

    Raises:
        OptionError: There is no such plan; says why.
    """
    found = plan(source.graph, cluster, batch, memory, precision)
    run.write("environment.json", json.dumps(environment(), indent=2) + "\n")
    found.plan.write(out or run.path / FILE)
    run.drop(STAGE)
    run.add(rows(found), STAGE)
    return found


def rows(found: Planned) -> Iterator[Measurement]:
    """What a run folder keeps of a plan: `step_time` and `peak_memory` of it and its runners-up, its parts, its
    devices and its layers."""
    about = {
        "hardware": found.cluster.hardware.name,
        "mesh": list(found.cluster.mesh),
        "batch": found.batch,
        "limit": found.limit,
        "stages": list(found.stages),
    }
    yield from _candidate(found.best, "best", about)
    for name, seconds in found.best.estimate.parts.items():
        yield Measurement("step_part", seconds, "s", "modeled", subject=name, details={"said": SAID[name]})
    for device, memory in enumerate(found.best.estimate.memory):
        details = {**asdict(memory), "stages": list(found.stages_of(device))}
        yield Measurement("device_memory", memory.total, "B", "modeled", subject=f"device {device}", details=details)
    if found.plan.pp > 1:
        pieces = timeline(Setting.of(found.plan), found.stage_seconds)
        told = [[p.device, p.stage, p.microbatch, p.kind, round(p.start, 9), round(p.end, 9)] for p in pieces]
        yield Measurement("timeline", max(p.end for p in pieces), "s", "modeled", details={"pieces": told})
    for place, each in enumerate(found.others[:TOLD], 2):
        yield from _candidate(each, f"runner-up {place}", {})
    for row in found.rows:
        details = {"count": row.count, "sharding": row.sharding, "moved": row.moved, "memory": row.memory}
        yield Measurement("layer_step_time", row.seconds, "s", "modeled", where=row.path, details=details)


def _candidate(candidate: Candidate, subject: str, about: dict[str, object]) -> Iterator[Measurement]:
    details = {"plan": str(candidate.plan), "why": candidate.why, "fits": candidate.fits, **about}
    yield Measurement("step_time", candidate.estimate.seconds, "s", "modeled", subject=subject, details=details)
    yield Measurement("peak_memory", candidate.estimate.peak, "B", "modeled", subject=subject)
