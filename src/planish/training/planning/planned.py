"""What a planner answers: candidates, and the best one by layer."""

from __future__ import annotations

from dataclasses import dataclass

from planish.training.parallel.plan import Plan
from planish.training.planning.hardware import Cluster
from planish.training.planning.setting import Setting
from planish.training.planning.steptime import Estimate


@dataclass(frozen=True)
class Candidate:
    """A plan and what it is predicted to take.

    Attributes:
        plan: The plan.
        estimate: Of its step.
        fits: Its fullest device has memory enough.
        why: What it loses by; "" for the best.
    """

    plan: Plan
    estimate: Estimate
    fits: bool
    why: str = ""


@dataclass(frozen=True)
class LayerRow:
    """What a plan means for a layer, or for all that equal it.

    Attributes:
        path: Module path of the first.
        count: How many are alike.
        sharding: Which parameters tensor parallelism divides, and along which axis.
        moved: Bytes that each device moves for one of them in a step.
        seconds: Of one of them in a step.
        memory: Bytes of one of them on a device.
    """

    path: str
    count: int
    sharding: str
    moved: float
    seconds: float
    memory: float


@dataclass(frozen=True)
class Planned:
    """The answer.

    Attributes:
        best: The fastest candidate that fits.
        others: The best of each other way to deal out the devices, fastest first, those that do not fit last.
        rows: The best plan by layer.
        stages: Paths of the first layer of each stage.
        stage_seconds: Forward and backward, of each stage and microbatch.
        unknown: Operations that DTensor cannot divide, by module path; each device does them all.
        refused: Ways to deal out the devices that no plan can have, and why.
        cluster: What it was made for.
        batch: Samples of a step.
        limit: Bytes of a device that a plan may take.
    """

    best: Candidate
    others: tuple[Candidate, ...]
    rows: tuple[LayerRow, ...]
    stages: tuple[str, ...]
    stage_seconds: tuple[tuple[float, float], ...]
    unknown: tuple[str, ...]
    refused: tuple[str, ...]
    cluster: Cluster
    batch: int
    limit: float

    @property
    def plan(self) -> Plan:
        """The best one."""
        return self.best.plan

    def stages_of(self, device: int) -> tuple[str, ...]:
        """Paths of the first layers of the stages that a device of the pipeline has."""
        return tuple(self.stages[index] for index in Setting.of(self.plan).own(device))
