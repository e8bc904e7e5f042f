"""What the page of a training step shows: what waits for the backward pass, where, and what would save it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from planish.record import Run
from planish.report.kind import Kind, conditions, environment, grid, model_of, stages
from planish.report.numbers import MINUS, THIN, percent, quantity
from planish.report.rows import Row, of_stage

STAGE = "training step"
HELD = ("parameters", "gradients", "optimizer", "inputs", "activations")
"""What a step holds, each a row `training_*` of the whole model."""
SAVINGS = ("recompute", "bf16", "fp8")
"""What a module's `saved_by` tells of: being computed again, or kept in a format."""
_MOST, _SHOWN = 24, 3


@dataclass(frozen=True)
class Bar:
    """A module in the figures, or what it does itself beside the modules below it.

    Attributes:
        path: Module path.
        own: Whether it is only what the module does itself.
        kept: Bytes that wait for the backward pass.
        forward: FLOPs.
        backward: FLOPs.
        saved: Bytes fewer, by what saves them; None where that saves nothing alone.
    """

    path: str
    own: bool
    kept: float
    forward: float
    backward: float
    saved: Mapping[str, float | None]

    @property
    def name(self) -> str:
        """How a sentence calls it."""
        return f"{self.path or 'the model'}{' itself' * self.own}"


@dataclass(frozen=True)
class StepView:
    """A training step, ready to be laid out.

    Attributes:
        model: Whose it is.
        rows: Of the step.
        conditions: What it was measured on, as short phrases.
    """

    model: str
    rows: Sequence[Row]
    conditions: Sequence[str]

    def one(self, name: str, source: str = "exact", subject: str = "") -> Row | None:
        """The row `training_NAME` of the whole model."""
        found = (row for row in self.rows if row.m.name == f"training_{name}" and not row.m.where)
        return next((row for row in found if (row.m.source, row.m.subject) == (source, subject)), None)

    @cached_property
    def peaks(self) -> dict[str, Row]:
        """The most memory of a step: "predicted", "measured", and "recomputed" with every block computed again."""
        found = {
            "predicted": self.one("peak_memory", "modeled"),
            "measured": self.one("peak_memory", "measured"),
            "recomputed": self.one("peak_memory", "modeled", "recomputed"),
        }
        return {name: row for name, row in found.items() if row}

    @cached_property
    def parts(self) -> dict[str, dict[str, Row]]:
        """Module path -> "kept", "forward" and "backward"; "" is the whole model."""
        found: dict[str, dict[str, Row]] = {}
        for row in self.rows:
            name = row.m.name.removeprefix("training_")
            if name in ("kept", "forward", "backward"):
                found.setdefault(row.m.where, {})[name] = row
        return found

    def saved(self, path: str, how: str) -> float | None:
        """Bytes fewer that wait if a module is computed again, or kept in a format."""
        row = self.parts.get(path, {}).get("kept")
        return row.m.details.get("saved_by", {}).get(how) if row else None

    @property
    def about(self) -> Mapping[str, Any]:
        """Batch, loss and optimizer."""
        return next((row.m.details for row in self.rows if "batch" in row.m.details), {})

    @property
    def held(self) -> list[tuple[str, Row]]:
        """What a step holds, by name."""
        found = ((name, self.one(name)) for name in HELD)
        return [({"inputs": "the batch"}.get(name, name), row) for name, row in found if row]

    @property
    def error(self) -> str:
        """The prediction against the measurement ("-5.1 %")."""
        predicted, measured = self.peaks.get("predicted"), self.peaks.get("measured")
        if not predicted or not measured:
            return ""
        off = round(100 * (predicted.m.value / measured.m.value - 1), 1) + 0.0  # no "-0.0"
        return f"{off:+.1f}{THIN}%".replace("-", MINUS)

    @property
    def again(self) -> tuple[int, str] | None:
        """How many blocks would be computed again, and the arithmetic that it takes; None where it saves nothing."""
        row = self.peaks.get("recomputed")
        if not row:
            return None
        blocks = row.m.details.get("recomputed", [])
        more = sum(self.parts[path]["forward"].m.value for path in blocks if path in self.parts)
        return len(blocks), quantity(more, "FLOP")

    @property
    def sentence(self) -> str:
        """The peak, as predicted and as measured."""
        start = f"{self.model}: a training step of {self.about.get('batch', '?')} rows"
        said = [f"{row.text} {name}" for name, row in self.peaks.items() if name != "recomputed"]
        return f"{start} peaks at {', '.join(said)}{f' ({self.error})' if self.error else ''}."

    @property
    def finding(self) -> str:
        """Where the activations are, in a sentence."""
        kept = self.parts.get("", {}).get("kept")
        if not kept or not self.bars or not kept.m.value:
            return "Nothing waits for the backward pass."
        most = max(self.bars, key=lambda bar: bar.kept)
        alike = sum(bar.kept == most.kept for bar in self.bars) - 1
        who = f"{most.name} and {alike} more keep the most, {quantity(most.kept, 'B')} each"
        if not alike:
            who = f"{most.name} keeps the most, {quantity(most.kept, 'B')}"
        return f"{kept.text} wait for the backward pass; {who} ({percent(most.kept / kept.m.value)})."

    @property
    def arithmetic(self) -> str:
        """Both passes in a sentence."""
        whole = self.parts.get("", {})
        if not whole or not whole["forward"].m.value:
            return "No matrix product, convolution or attention was counted."
        ratio = whole["backward"].m.value / whole["forward"].m.value
        both = " and ".join(f"{whole[name].text} {name}" for name in ("forward", "backward"))
        return f"{both}: the way back takes {ratio:.2f} times as much."

    @cached_property
    def bars(self) -> list[Bar]:
        """The modules of the deepest level that still makes a readable figure; together they are the whole model."""
        level = [self._bar("")] if "" in self.parts else []
        while True:
            deeper = [bar for each in level for bar in self._below(each)]
            if deeper == level or (len(deeper) > _MOST and len(level) > 1):
                return [bar for bar in level if bar.kept or bar.forward or bar.backward]
            level = deeper

    @property
    def figures(self) -> dict[str, Any]:
        """The bars, as the script draws them."""
        paths = [bar.path.split(".") for bar in self.bars if not bar.own]
        common = 0
        while paths and all(len(path) > common + 1 and path[common] == paths[0][common] for path in paths):
            common += 1
        return {
            "step": [
                {
                    "label": _label(bar, common),
                    "path": bar.path,
                    "kept": bar.kept,
                    "forward": bar.forward,
                    "backward": bar.backward,
                    "saved": bar.saved,
                    "texts": {
                        "kept": quantity(bar.kept, "B"),
                        "forward": quantity(bar.forward, "FLOP"),
                        "backward": quantity(bar.backward, "FLOP"),
                        **{how: quantity(saved, "B") for how, saved in bar.saved.items() if saved is not None},
                    },
                }
                for bar in self.bars
            ]
        }

    def _bar(self, path: str) -> Bar:
        found = {name: row.m.value for name, row in self.parts[path].items()}
        saved = {how: self.saved(path, how) for how in SAVINGS}
        return Bar(path, False, found.get("kept", 0), found.get("forward", 0), found.get("backward", 0), saved)

    def _below(self, bar: Bar) -> list[Bar]:
        """The modules below one and what it does itself; the bar as it is where there are none."""
        prefix = f"{bar.path}." if bar.path else ""
        paths = [path for path in self.parts if path.startswith(prefix) and path and "." not in path[len(prefix) :]]
        if bar.own or not paths:
            return [bar]
        below = [self._bar(path) for path in paths]
        rest = {
            name: getattr(bar, name) - sum(getattr(each, name) for each in below)
            for name in ("kept", "forward", "backward")
        }
        saved: dict[str, float | None] = {
            how: (bar.saved[how] or 0) - sum(each.saved[how] or 0 for each in below) for how in ("bf16", "fp8")
        }
        own = Bar(bar.path, True, rest["kept"], rest["forward"], rest["backward"], {"recompute": None, **saved})
        return [*below, own] if any(rest.values()) else below


def fits(run: Run) -> bool:
    """Whether a training step was analyzed in the folder."""
    return STAGE in stages(run)


def read(run: Run) -> StepView:
    """The view of a folder with a training step."""
    return StepView(model_of(run), of_stage(run, STAGE), conditions(environment(run)))


def lines(view: StepView) -> Iterator[RenderableType]:
    """The peak, what a step holds, where the activations are, what would save."""
    yield Text(view.sentence, style="bold")
    yield Text(", ".join(f"{name} {row.text}" for name, row in view.held))
    yield Text(view.arithmetic)
    table = grid("keeps the most", "kept", "recomputed", "in bf16", "in fp8")
    for bar in sorted(view.bars, key=lambda bar: -bar.kept)[:_SHOWN]:
        saved = [f"{MINUS}{quantity(less, 'B')}" if (less := bar.saved[how]) else "" for how in SAVINGS]
        if bar.kept:
            table.add_row(bar.name, quantity(bar.kept, "B"), *saved)
    yield table
    if view.again:
        blocks, more = view.again
        yield Text(f"each of {blocks} blocks computed again: about {view.peaks['recomputed'].text} for {more} more")
    said = [f"loss {view.about['loss']}, {view.about['optimizer']}"] if view.about else []
    yield Text(" · ".join([*said, *view.conditions]), style="dim")


def _label(bar: Bar, common: int) -> str:
    """The path below what all have in common; a bare number takes its parent with it."""
    parts = bar.path.split(".")
    if bar.own:
        return f"{parts[-1] or 'the model'} itself"
    return ".".join(parts[common - (common > 0 and parts[common].isdigit()) :]) or "the model"


KIND = Kind("step.html", fits, read, lines)
