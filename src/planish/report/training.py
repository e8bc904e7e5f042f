"""What the page of a training shows: did it help, how the loss fell, and by which plan."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from planish.record import Run
from planish.report.charts import Chart, trend
from planish.report.kind import Kind, conditions, environment, grid, model_of, stages
from planish.report.numbers import NONE, words
from planish.report.rows import Row, of_stage
from planish.report.verdict import STYLES, Tone, tone_of

STAGE = "train"
AXES = ("dp", "fsdp", "tp", "pp")


@dataclass(frozen=True)
class Judged:
    """A metric of the task.

    Attributes:
        label: Its name.
        before: Of the model that came in; None where it was not judged yet.
        trained: Of the one that came out.
    """

    label: str
    before: Row | None
    trained: Row | None

    @property
    def data(self) -> str:
        """What it was judged on."""
        return next((row.detail("data") for row in (self.trained, self.before) if row), "")


@dataclass(frozen=True)
class TrainingView:
    """A training, ready to be laid out.

    Attributes:
        model: What was trained.
        rows: Of the training.
        plan: How it was spread, as TOML; empty for one process.
        conditions: What it ran on, as short phrases.
    """

    model: str
    rows: Sequence[Row]
    plan: str
    conditions: Sequence[str]

    def one(self, name: str) -> Row | None:
        """The row of that name, if there is one."""
        return next((row for row in self.rows if row.m.name == name), None)

    @cached_property
    def losses(self) -> list[Row]:
        """The mean loss of each epoch."""
        return [row for row in self.rows if row.m.name == "training_loss"]

    @cached_property
    def metrics(self) -> list[Judged]:
        """The task's metrics, the one that decides first."""
        judged = {(row.m.name, row.m.subject): row for row in self.rows if row.m.subject}
        told = sorted(judged.values(), key=lambda row: not row.m.details.get("headline"))
        names = dict.fromkeys(row.m.name for row in told)
        return [Judged(words(name), judged.get((name, "before")), judged.get((name, "trained"))) for name in names]

    @property
    def headline(self) -> Judged | None:
        """The metric that decides, where the model was judged before and after."""
        return next((each for each in self.metrics if each.before and each.trained), None)

    @property
    def ended(self) -> bool:
        """Whether it reached its limit."""
        return self.one("training_time") is not None

    @property
    def length(self) -> str:
        """ "3 epochs", or steps where no epoch was noted."""
        count = self.losses[-1].m.details["epoch"] if self.losses else None
        if count is not None:
            return f"{count} epoch{'s' * (count != 1)}"
        steps = self.one("training_steps")
        return f"{steps.text} steps" if steps else "no epoch"

    @property
    def spread(self) -> str:
        """The plan's axes in words: "fsdp 2 × tp 2"; "one process" where nothing is divided."""
        try:
            plan = tomllib.loads(self.plan)
        except tomllib.TOMLDecodeError:
            return "plan.toml"
        return " × ".join(f"{axis} {plan[axis]}" for axis in AXES if plan.get(axis, 1) != 1) or "one process"

    @property
    def tone(self) -> Tone:
        """Whether what decides got better."""
        it = self.headline
        return tone_of(it.before, it.trained) if it and it.before and it.trained else "same"

    @cached_property
    def parts(self) -> list[tuple[str, Tone | None]]:
        """The verdict in pieces, each with the tone it is colored by."""
        it, said = self.headline, ""
        if it and it.before and it.trained:
            said = f"{it.label.lower()} {it.before.text} → {it.trained.text}"
        elif self.losses:
            first, last = (row.text for row in (self.losses[0], self.losses[-1]))
            said = f"loss {first} → {last}" if len(self.losses) > 1 else f"loss {last}"
        time = self.one("training_time")
        spent, end = (f" in {time.text}", "") if time else ("", "; it is not at its end")
        by = f" by {self.spread}" if self.spread != "one process" else ""
        return [
            (f"{self.model}: ", None),
            (said or "trained", self.tone),
            (f" after {self.length}{spent}{by}{end}.", None),
        ]

    @property
    def sentence(self) -> str:
        """The verdict as plain text."""
        return "".join(text for text, _ in self.parts)

    @property
    def finding(self) -> str:
        """How the loss went, in a sentence."""
        return trend(self.losses, "Mean loss", "epoch") or "No epoch ended in this run: it went on from a checkpoint."

    @property
    def figures(self) -> dict[str, Any]:
        """The loss by epoch."""
        return {"charts": [Chart("loss", "epoch", {"mean training loss": self.losses}).data]} if self.losses else {}


def fits(run: Run) -> bool:
    """Whether a training left rows."""
    return STAGE in stages(run)


def read(run: Run) -> TrainingView:
    """The view of a folder with a training."""
    plan = (run.read("plan.toml") or "").strip()
    return TrainingView(model_of(run), of_stage(run, STAGE), plan, conditions(environment(run)))


def lines(view: TrainingView) -> Iterator[RenderableType]:
    """The verdict, the metrics before and after, the loss at both ends."""
    yield Text.assemble(*((text, STYLES[tone] if tone else "bold") for text, tone in view.parts))
    table = grid("", "before", "trained", "95 %", left=(0, 3))
    for each in view.metrics[:3]:
        cells = [row.text if row else NONE for row in (each.before, each.trained)]
        table.add_row(each.label.lower(), *cells, (each.trained.interval if each.trained else "") or NONE)
    if view.losses:
        ends = [row.text for row in (view.losses[0], view.losses[-1])]
        table.add_row("mean loss", *ends, f"first and last of {view.length}")
    yield table
    steps = view.one("training_steps")
    said = [f"{steps.text} steps"] if steps else ["not at its end: the same command goes on from the last checkpoint"]
    yield Text(" · ".join([*said, f"plan: {view.spread}", *view.conditions]), style="dim")


KIND = Kind("training.html", fits, read, lines)
