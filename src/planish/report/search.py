"""What the page of a search shows: the front, how it was reached, and what mattered."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from planish.record import Measurement, Run
from planish.report.kind import Kind, grid, json_of
from planish.report.numbers import percent, quantity, words

TRIALS = "trials.jsonl"
SEEDS = "seeds"
"""The folder, in that of a search, of the same search from other seeds."""
_FRONT = 8
_ENDED = ("complete", "stopped", "failed")


@dataclass(frozen=True)
class Trial:
    """One line of `trials.jsonl`, as far as the page needs it."""

    number: int
    id: str
    state: str
    point: Mapping[str, Any]
    losses: tuple[float, ...]
    rows: Mapping[str, Measurement]
    feasible: bool
    began: float
    seconds: float
    worker: str
    same_as: int | None
    error: str

    def text(self, name: str) -> str:
        """A measurement as a reader wants it."""
        row = self.rows.get(name)
        return quantity(row.value, row.unit) if row else ""


@dataclass(frozen=True)
class SearchView:
    """A search, ready to be laid out.

    Attributes:
        name: The run folder's own name.
        told: What `search.json` says.
        trials: In the order in which they began.
        recipe: The best one, as TOML.
        space: The recipe with holes, as TOML.
        seeds: The trials of the same search from other seeds.
    """

    name: str
    told: Mapping[str, Any]
    trials: Sequence[Trial]
    recipe: str
    space: str
    seeds: Sequence[Sequence[Trial]] = ()

    @property
    def objectives(self) -> list[str]:
        """Names, the first what "best" means."""
        return [name for name, _ in self.told["objectives"]]

    @cached_property
    def front(self) -> list[Trial]:
        """Best in the first objective first."""
        known = {trial.number: trial for trial in self.trials}
        return [known[number] for number in self.told["front"] if number in known]

    @property
    def ended(self) -> int:
        """Trials that ended."""
        return sum(trial.state in _ENDED for trial in self.trials)

    @property
    def failed(self) -> list[Trial]:
        """Trials that raised."""
        return [trial for trial in self.trials if trial.state == "failed" and trial.error]

    @property
    def original(self) -> Mapping[str, Measurement]:
        """Of the model as it was, by objective."""
        return {name: Measurement(**row) for name, row in self.told.get("original", {}).items()}

    @property
    def sentence(self) -> str:
        """Did it work, with the numbers of the best."""
        if not self.front:
            return f"{self.name}: nothing of {self.ended} trials holds all constraints"
        best, parts = self.front[0], []
        for name in self.objectives:
            before = self.original.get(name)
            was = f" (was {quantity(before.value, before.unit)})" if before else ""
            parts.append(f"{words(name).lower()} {best.text(name)}{was}")
        return f"{self.name}: the best of {self.ended} trials has {', '.join(parts)}"

    @cached_property
    def importances(self) -> list[tuple[str, list[float]]]:
        """For each decision the share of each objective's variance that it explains alone, the largest first.

        The correlation ratio η² over the complete trials: variance between answers over the whole variance.
        """
        done = [trial for trial in self.trials if trial.losses]
        names = [decision["name"] for decision in self.told["space"]]
        found = [(name, [_explained(done, name, place) for place in range(len(self.objectives))]) for name in names]
        return sorted(found, key=lambda item: -max(item[1], default=0.0))

    @property
    def finding(self) -> str:
        """What mattered, in a sentence."""
        if not self.importances or max(self.importances[0][1], default=0) <= 0:
            return "No decision alone explains what the trials differ in."
        said = []
        for place, objective in enumerate(self.objectives):
            name, shares = max(self.importances, key=lambda item: item[1][place])
            said.append(f"{name} explains {percent(shares[place])} of {words(objective).lower()}")
        return "; ".join(said) + "."

    @property
    def figures(self) -> dict[str, Any]:
        """What the scripts of the page draw."""
        fronts = {trial.number for trial in self.front}
        began = min((trial.began for trial in self.trials if trial.began), default=0.0)
        return {
            "name": self.name,
            "objectives": [
                {
                    "name": name,
                    "sign": 1 if direction == "minimize" else -1,
                    "unit": self._unit(name),
                    "label": words(name),
                }
                for name, direction in self.told["objectives"]
            ],
            "original": [row.value if (row := self.original.get(name)) else None for name in self.objectives],
            "decisions": [_decision(decision["name"], self.trials) for decision in self.told["space"]],
            "importances": [{"name": name, "shares": shares} for name, shares in self.importances[:20]],
            "best": self._best_so_far(self.trials),
            "seeds": self._spread(),
            "trials": [
                {
                    "n": trial.number,
                    "id": trial.id,
                    "state": trial.state,
                    "values": [row.value if (row := trial.rows.get(name)) else None for name in self.objectives],
                    "texts": [trial.text(name) for name in self.objectives],
                    "point": trial.point,
                    "front": trial.number in fronts,
                    "feasible": trial.feasible,
                    "at": [trial.began - began, trial.seconds],
                    "worker": trial.worker,
                    "again": trial.same_as is not None,
                }
                for trial in self.trials
            ],
        }

    def _best_so_far(self, trials: Sequence[Trial]) -> list[float | None]:
        """In the first objective, after each trial that ended."""
        (name, direction), *_ = self.told["objectives"]
        better, best, found = min if direction == "minimize" else max, None, list[float | None]()
        for trial in trials:
            if trial.feasible and name in trial.rows:
                value = trial.rows[name].value
                best = value if best is None else better(best, value)
            if trial.state in _ENDED:
                found.append(best)
        return found

    def _spread(self) -> list[tuple[float | None, float | None, float | None]] | None:
        """Over the seeds, the least, the median and the most that they had reached; None where there is one seed."""
        reached = [found for trials in (self.trials, *self.seeds) if (found := self._best_so_far(trials))]
        if len(reached) < 2:
            return None
        spread: list[tuple[float | None, float | None, float | None]] = []
        for number in range(max(map(len, reached))):
            values = [value for each in reached if (value := each[min(number, len(each) - 1)]) is not None]
            spread.append((min(values), median(values), max(values)) if values else (None, None, None))
        return spread

    def _unit(self, name: str) -> str:
        return next((trial.rows[name].unit for trial in self.trials if name in trial.rows), "")


def read(run: Run) -> SearchView:
    """A search from its folder; a line torn by a crash is passed over."""
    return SearchView(
        run.path.resolve().name,
        json_of(run, "search.json"),
        _trials(run),
        run.read("recipe.toml") or "",
        run.read("space.toml") or "",
        [_trials(Run(folder)) for folder in sorted((run.path / SEEDS).glob("*"))],
    )


def fits(run: Run) -> bool:
    """Whether the folder is of a search."""
    return (run.path / TRIALS).is_file()


def lines(view: SearchView) -> Iterator[RenderableType]:
    """The verdict, and the front."""
    yield Text(view.sentence, style="bold")
    table = grid("point", *view.objectives)
    for trial in view.front[:_FRONT]:
        table.add_row(trial.id, *map(trial.text, view.objectives))
    yield table


def _trials(run: Run) -> list[Trial]:
    return [trial for line in (run.read(TRIALS) or "").splitlines() if (trial := _trial(line))]


def _trial(line: str) -> Trial | None:
    try:
        data = json.loads(line)
    except ValueError:
        return None
    violated = any(value > 0 for value in data.get("violations", {}).values())
    return Trial(
        data.get("number", 0),
        data.get("id", ""),
        data.get("state", ""),
        data.get("point", {}),
        tuple(data.get("losses", ())),
        {name: Measurement(**row) for name, row in data.get("rows", {}).items()},
        data.get("state") == "complete" and not violated,
        data.get("began", 0.0),
        data.get("seconds", 0.0),
        data.get("worker", ""),
        data.get("same_as"),
        data.get("error", ""),
    )


def _explained(trials: Sequence[Trial], name: str, place: int) -> float:
    groups: dict[Any, list[float]] = defaultdict(list)
    for trial in trials:
        if name in trial.point:
            groups[trial.point[name]].append(trial.losses[place])
    values = [value for group in groups.values() for value in group]
    if len(groups) < 2 or len(values) <= len(groups):
        return 0.0
    mean = sum(values) / len(values)
    whole = sum((value - mean) ** 2 for value in values)
    between = sum(len(group) * (sum(group) / len(group) - mean) ** 2 for group in groups.values())
    return between / whole if whole > 0 else 0.0


def _decision(name: str, trials: Sequence[Trial]) -> dict[str, Any]:
    """A decision with the answers it was given, in their natural order, and the module it is about."""
    answers = {json.dumps(trial.point[name]): trial.point[name] for trial in trials if name in trial.point}
    matched = re.fullmatch(r"(.*)\[(.+)\]", name)
    return {
        "name": name,
        "path": matched[2] if matched else "",
        "answers": sorted(answers.values(), key=lambda answer: (_size(answer), str(answer))),
    }


def _size(answer: Any) -> float:
    """How large an answer is: of a number itself, of a text the first number in it ("int4" is 4)."""
    if isinstance(answer, int | float):
        return float(answer)
    found = re.search(r"\d+(\.\d+)?", str(answer))
    return float(found[0]) if found else 0.0


KIND = Kind("search.html", fits, read, lines)
