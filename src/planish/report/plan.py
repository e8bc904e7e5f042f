"""What the page of a plan shows: its step, what else was possible, memory by device, a timeline of the schedule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from planish.record import Measurement, Run
from planish.report.kind import Kind, grid, stages
from planish.report.numbers import quantity

STAGE = "plan"
WIDTH, LANE, GAP = 960.0, 22.0, 5.0
_SHOWN = 3
PARTS = ("parameters", "gradients", "optimizer", "activations", "gathered")


@dataclass(frozen=True)
class Box:
    """A rectangle of a figure, and what it says when pointed at."""

    x: float
    y: float
    width: float
    kind: str
    title: str


@dataclass(frozen=True)
class PlanView:
    """A plan, ready to be laid out.

    Attributes:
        rows: Its measurements.
        text: The plan, as TOML.
    """

    rows: Sequence[Measurement]
    text: str

    def named(self, name: str) -> list[Measurement]:
        """The measurements of that name."""
        return [row for row in self.rows if row.name == name]

    @cached_property
    def best(self) -> Measurement:
        """The plan's step time."""
        return next(row for row in self.named("step_time") if row.subject == "best")

    @property
    def about(self) -> Mapping[str, Any]:
        """What it was made for."""
        return self.best.details

    @property
    def sentence(self) -> str:
        """The answer in one line."""
        mesh = "×".join(map(str, self.about["mesh"]))
        return f"{self.about['plan']}: a step in {quantity(self.best.value, 's')} on {mesh} {self.about['hardware']}"

    @cached_property
    def candidates(self) -> list[tuple[Measurement, float]]:
        """Step times with peak memory, the best first."""
        peaks = {row.subject: row.value for row in self.named("peak_memory")}
        return [(row, peaks[row.subject]) for row in self.named("step_time")]

    @cached_property
    def parts(self) -> list[tuple[str, float, float]]:
        """Name, seconds and share of what a step consists of."""
        found = [
            (str(row.details.get("said", row.subject)), row.value) for row in self.named("step_part") if row.value > 0
        ]
        whole = sum(value for _, value in found)
        return [(name, value, value / whole) for name, value in found]

    @cached_property
    def devices(self) -> list[Measurement]:
        """Memory by device."""
        return self.named("device_memory")

    @cached_property
    def memory(self) -> list[Box]:
        """A bar for each device, in parts, to the scale of what a device may hold."""
        scale = WIDTH / max(self.about["limit"], *(row.value for row in self.devices))
        boxes: list[Box] = []
        for place, row in enumerate(self.devices):
            x = 0.0
            for part in PARTS:
                width = row.details[part] * scale
                title = f"{row.subject}, {part}: {quantity(row.details[part], 'B')}"
                boxes.append(Box(x, place * (LANE + GAP), width, part, title))
                x += width
        return boxes

    @property
    def limit(self) -> float:
        """Where the end of a device's memory is drawn."""
        return WIDTH * self.about["limit"] / max(self.about["limit"], *(row.value for row in self.devices))

    @cached_property
    def timeline(self) -> list[Box]:
        """What each device of the pipeline does when; nothing without one."""
        rows = self.named("timeline")
        if not rows:
            return []
        scale = WIDTH / rows[0].value
        return [
            Box(
                start * scale,
                device * (LANE + GAP),
                (end - start) * scale,
                f"{kind} {'even' if microbatch % 2 == 0 else 'odd'}",
                f"device {device}, stage {stage}, microbatch {microbatch}, {kind}: {quantity(end - start, 's')}",
            )
            for device, stage, microbatch, kind, start, end in rows[0].details["pieces"]
        ]

    @property
    def figures(self) -> dict[str, Any]:
        """None that a script draws."""
        return {}

    @property
    def height(self) -> float:
        """Of a figure with a lane for each device."""
        return len(self.devices) * (LANE + GAP)


def fits(run: Run) -> bool:
    """Whether a plan was made in the folder."""
    return STAGE in stages(run)


def read(run: Run) -> PlanView:
    """The view of a folder with a plan."""
    return PlanView([row for row in run.measurements() if row.stage == STAGE], run.read("plan.toml") or "")


def lines(view: PlanView) -> Iterator[RenderableType]:
    """The plan, what its step consists of, and what else was possible."""
    yield Text(view.sentence, style="bold")
    parts = ", ".join(f"{name} {quantity(seconds, 's')}" for name, seconds, _ in view.parts)
    yield Text(f"a step: {parts}")
    table = grid("plan", "step", "memory", "why not", left=(0, 3))
    for row, peak in view.candidates[:_SHOWN]:
        table.add_row(row.details["plan"], quantity(row.value, "s"), quantity(peak, "B"), row.details.get("why", ""))
    yield table
    limit = quantity(view.about["limit"], "B")
    yield Text(f"{view.about['batch']} samples a step · {limit} a device · all modeled: nothing was run", style="dim")


KIND = Kind("plan.html", fits, read, lines)
