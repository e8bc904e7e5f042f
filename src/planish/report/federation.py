"""What the page of a federated training shows: quality, bytes and privacy by round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from planish.record import Run
from planish.report.charts import Chart, trend
from planish.report.kind import Kind, conditions, environment, grid, json_of, model_of, stages
from planish.report.numbers import quantity, words
from planish.report.rows import Row, of_stage

STAGE = "federation"
SAID = {
    "training_loss": "loss",
    "bytes_sent": "sent",
    "bytes_received": "received",
    "round_time": "time",
    "epsilon": "epsilon",
}
"""The rows of each round besides its quality, and what the page calls them."""
_SHOWN = 4


@dataclass(frozen=True)
class FederationView:
    """A federated training, ready to be laid out.

    Attributes:
        model: What was trained.
        rows: Of all rounds.
        asked: Its options, as `federation.json` has them.
        conditions: What it ran on, as short phrases.
    """

    model: str
    rows: Sequence[Row]
    asked: Mapping[str, Any]
    conditions: Sequence[str]

    @cached_property
    def rounds(self) -> dict[int, dict[str, Row]]:
        """Number -> name -> row."""
        found: dict[int, dict[str, Row]] = {}
        for row in self.rows:
            found.setdefault(int(row.m.details.get("round", 0)), {})[row.m.name] = row
        return dict(sorted(found.items()))

    @property
    def last(self) -> Mapping[str, Row]:
        """The last round."""
        return self.rounds[max(self.rounds)]

    @cached_property
    def metrics(self) -> list[str]:
        """What the model was judged by, the one that decides first."""
        return list(dict.fromkeys(row.m.name for row in self.rows if row.m.name not in SAID))

    @cached_property
    def columns(self) -> dict[str, str]:
        """The rows of a round in order, and their headings."""
        names = [*self.metrics, *SAID]
        return {name: SAID.get(name, words(name).lower()) for name in names if self.named(name)}

    def named(self, name: str) -> list[Row]:
        """The rows of that name by round."""
        return [found[name] for found in self.rounds.values() if name in found]

    def total(self, name: str) -> str:
        """The sum over all rounds."""
        rows = self.named(name)
        return quantity(sum(row.m.value for row in rows), rows[0].m.unit) if rows else ""

    @property
    def refused(self) -> list[str]:
        """Clients whose answers did not count, and why."""
        return [
            f"round {number}, client {client}: {reason}"
            for number, found in self.rounds.items()
            for client, reason in next(iter(found.values())).m.details.get("refused", [])
        ]

    @property
    def options(self) -> dict[str, str]:
        """What was asked for, in words."""
        given = {name: value for name, value in self.asked.items() if name != "federation"}
        given.update(self.asked.get("federation", {}))
        return {name.replace("_", " "): _words(value) for name, value in given.items()}

    @property
    def missing(self) -> int:
        """Rounds that were asked for and are not done."""
        return max(0, int(self.asked.get("federation", {}).get("rounds", 0)) - len(self.rounds))

    @property
    def sentence(self) -> str:
        """How good it got, after how much, and what privacy it spent."""
        name = next(iter(self.metrics), "training_loss")
        row, spent = self.last.get(name), self.last.get("epsilon")
        clients = next(iter(self.last.values())).m.details.get("clients")
        count = len(self.rounds)
        said = f"{self.columns[name]} {row.text}" if row else "trained"
        told = f"{self.model}: {said} after {count} round{'s' * (count != 1)} of {clients} client{'s' * (clients != 1)}"
        return f"{told}; epsilon {spent.text} spent." if spent else f"{told}."

    @property
    def finding(self) -> str:
        """How what decides went, in a sentence."""
        name = next(iter(self.metrics), "training_loss")
        return trend(self.named(name), words(name), "round")

    @property
    def figures(self) -> dict[str, Any]:
        """Quality, loss, bytes and budget by round."""
        traffic = {label: self.named(name) for name, label in SAID.items() if name.startswith("bytes")}
        charts = [
            Chart("quality", "round", {words(name).lower(): self.named(name) for name in self.metrics[:1]}),
            Chart("loss", "round", {"mean training loss": self.named("training_loss")}),
            Chart("bytes", "round", traffic, bars=True),
            Chart("epsilon", "round", {"epsilon": self.named("epsilon")}),
        ]
        return {"charts": [chart.data for chart in charts if any(chart.lines.values())]}


def fits(run: Run) -> bool:
    """Whether a federated training left rows."""
    return STAGE in stages(run)


def read(run: Run) -> FederationView:
    """The view of a folder with a federated training."""
    asked = json_of(run, "federation.json")
    model = str(asked.get("model", "")) or model_of(run)
    return FederationView(model, of_stage(run, STAGE), asked, conditions(environment(run)))


def lines(view: FederationView) -> Iterator[RenderableType]:
    """The verdict, the last rounds, what was sent in all."""
    yield Text(view.sentence, style="bold")
    table = grid("round", *view.columns.values())
    for number, found in list(view.rounds.items())[-_SHOWN:]:
        table.add_row(str(number), *(found[name].text if name in found else "" for name in view.columns))
    yield table
    said = [f"{view.total('bytes_sent')} sent, {view.total('bytes_received')} received"]
    said += [
        f"{name} {view.options[name]}"
        for name in ("partition", "strategy", "update", "privacy")
        if name in view.options
    ]
    yield Text(" · ".join([*said, *view.conditions]), style="dim")
    if view.missing:
        yield Text(f"not complete: {view.missing} rounds are missing; the same command goes on", style="yellow")


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_words(each)}" for name, each in value.items())
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


KIND = Kind("federation.html", fits, read, lines)
