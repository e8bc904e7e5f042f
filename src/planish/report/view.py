"""What the page shows: a run's rows put into the order in which a reader asks."""

from __future__ import annotations

import math
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planish.record import Run
from planish.report.hardware import Hardware, hardware
from planish.report.kind import environment
from planish.report.layers import Layer, Module, layers, tree
from planish.report.numbers import TIMES, percent, quantity, words
from planish.report.rows import Row, Rows
from planish.report.verdict import Verdict, judge

_GRAPH_LIMIT = 400_000  # characters
UNITS = {"node_time": "s", "roofline_time": "s", "weight_bytes": "B", "macs": "MAC"}


@dataclass(frozen=True)
class Engine:
    """One way to run the model, and what was measured of it."""

    label: str
    role: str
    latency: Row
    ratio: Row | None
    size: Row | None
    cold_start: Row | None
    peak_memory: Row | None
    executed: tuple[Row, ...]

    @property
    def exact(self) -> bool:
        """Whether it sums without saturation, where the engine has a faster way that does not."""
        return self.label.endswith(" exact")


@dataclass(frozen=True)
class Metric:
    """One quality metric, for the original, the best fp32 engine and the artifact that was kept."""

    label: str
    data: str
    original: Row | None
    baseline: Row | None
    chosen: Row | None


@dataclass(frozen=True)
class View:
    """A run, ready to be laid out.

    Attributes:
        verdict: Did it work?
        conditions: What the numbers were measured on, as short phrases.
        missing: What a complete run would also hold, as sentences' objects.
        metrics: Quality.
        layers: Every layer, in order of execution.
        tree: The module tree above them.
        formats: The formats of the sensitivity map.
        peaks: What this machine can do at most.
        engines: Every engine measured, fastest first.
        refused: Engines that were not taken, with the reason in their details.
        environment: `environment.json`.
        recipe: `recipe.toml`, or None.
        graph: `graph.txt`, or None.
        hardware: The design on an FPGA, or None.
    """

    verdict: Verdict
    conditions: list[str]
    missing: list[str]
    metrics: list[Metric]
    layers: list[Layer]
    tree: list[Module]
    formats: list[str]
    peaks: list[Row]
    engines: list[Engine]
    refused: list[Row]
    environment: dict[str, Any]
    recipe: str | None
    graph: str | None
    hardware: Hardware | None

    @property
    def sentence(self) -> str:
        """The verdict as plain text."""
        return self.verdict.sentence

    @property
    def steps(self) -> list[str]:
        """The recipe's steps by name."""
        return recipe_steps(self.recipe)

    @property
    def graph_shown(self) -> str:
        """As much of the graph as goes on a page; the whole of it is in graph.txt."""
        return (self.graph or "")[:_GRAPH_LIMIT]

    @property
    def verb(self) -> str:
        """What was asked for: "analyze", "compress", "build"; empty where it is not known."""
        return next(iter(str(self.environment.get("command", "")).split()[1:2]), "")

    @property
    def only_analyzed(self) -> bool:
        """Whether the run set out to analyze a model, not to compress it: then no verdict is missing."""
        return self.verb == "analyze" and not any(change.after for change in self.verdict.changes)

    @property
    def started(self) -> list[Engine]:
        """The engines whose first answer was measured, the best first."""
        found = [engine for engine in self.engines if engine.cold_start]
        return sorted(found, key=lambda engine: engine.cold_start.m.value if engine.cold_start else 0.0)

    @property
    def cached(self) -> int:
        """How many layers get their data faster than memory could give it: from a cache."""
        memory = next((row.m.value for row in self.peaks if row.m.unit == "B/s"), math.inf)
        reached = [
            (layer.value("flops original"), layer.value("intensity original") * layer.value("node_time original"))
            for layer in self.layers
        ]
        return sum(bool(flops and worked and flops / worked > memory) for flops, worked in reached)

    @property
    def time_key(self) -> str:
        """The best account of time there is: measured, else modeled, else the arithmetic."""
        root = self.tree[0].sums
        return next(
            (k for k in ("node_time original", "roofline_time original", "macs original") if root[k]), "macs original"
        )

    @property
    def figures(self) -> dict[str, Any]:
        """The same, as the figures' scripts read it: plain JSON, each number beside its text."""
        return {
            "model": self.verdict.model,
            "timeKey": self.time_key,
            "timeName": {"node": "time", "roof": "modeled time", "macs": "arithmetic"}[self.time_key[:4]],
            "formats": self.formats,
            "layers": [_layer_data(layer) for layer in self.layers],
            "tree": [_module_data(module) for module in self.tree],
            "peaks": [
                {"subject": row.m.subject, "unit": row.m.unit, "row": row.index, "v": _number(row)}
                for row in self.peaks
            ],
            "engines": [
                {"label": e.label, "role": e.role, "latency": _number(e.latency), "ratio": e.ratio and _number(e.ratio)}
                for e in self.engines
            ],
        }

    def caption(self, figure: str) -> str:
        """The finding of a figure in a sentence; it is the figure's alternative text, too."""
        return _CAPTIONS[figure](self)


def read(run: Run) -> View:
    """Everything the page says about a run, from its folder alone."""
    rows = Rows(run.measurements())
    verdict = judge(rows, run.path.name)
    found = layers(rows)
    sensitive = [row for layer in found for name, row in layer.rows.items() if name.startswith("sensitivity ")]
    view = View(
        verdict=verdict,
        conditions=[],
        missing=[],
        metrics=_metrics(rows),
        layers=found,
        tree=tree(found, verdict.model),
        formats=list(dict.fromkeys(row.detail("format") for row in sensitive)),
        peaks=rows.all("peak"),
        engines=_engines(rows),
        refused=rows.all("refused"),
        environment=environment(run),
        recipe=run.read("recipe.toml"),
        graph=run.read("graph.txt"),
        hardware=hardware(rows),
    )
    view.conditions.extend(_conditions(view))
    if shares := [percent(row.m.value) for row in rows.all("reached")]:
        view.conditions.append(f"rows that reach each stage: {', '.join(shares)}")
    view.missing.extend(_missing(view))
    return view


def recipe_steps(recipe: str | None) -> list[str]:
    """The recipe's steps by name; empty where the file cannot be read as TOML, which is then shown as it is."""
    try:
        steps = tomllib.loads(recipe or "").get("step", [])
    except tomllib.TOMLDecodeError:
        return []
    return [str(step.get("pass", "")) for step in steps if isinstance(step, dict)]


def _engines(rows: Rows) -> list[Engine]:
    latest = {row.m.subject: row for row in rows.all("latency") if row.detail("role")}
    found = [
        Engine(
            label,
            row.detail("role"),
            row,
            rows.one("speedup", label),
            rows.one("size", {"chosen": "chosen", "eager": "original"}.get(row.detail("role"), label)),
            rows.one("cold_start", label),
            rows.one("peak_memory", label),
            tuple(rows.all("executed_precision", label)),
        )
        for label, row in latest.items()
    ]
    return sorted(found, key=lambda engine: engine.latency.m.value)


def _metrics(rows: Rows) -> list[Metric]:
    measured = [row for row in rows if row.m.subject == "chosen" and row.m.unit == "1" and not row.m.where]
    measured += [row for row in rows if row.m.subject == "original" and row.m.unit == "1" and not row.m.where]
    names = dict.fromkeys(row.m.name for row in sorted(measured, key=lambda row: not row.m.details.get("headline")))
    found = []
    for name in names:
        original, baseline, chosen = (rows.one(name, subject) for subject in ("original", "baseline", "chosen"))
        data = next((row.detail("data") for row in (chosen, original) if row), "")
        found.append(Metric(words(name), data, original, baseline, chosen))
    return found


def _conditions(view: View) -> list[str]:
    found = [str(view.environment["cpu"])] if view.environment.get("cpu") else []
    timed = view.verdict.latency.after or view.verdict.latency.before
    if timed:
        shape = timed.m.details.get("shape")
        found += [_plural(timed.m.details["threads"], "threads")] if "threads" in timed.m.details else []
        found += [f"batch {timed.detail('batch')}"] if timed.detail("batch") else []
        found += [_shapes(shape)] if isinstance(shape, list | tuple) and shape else []
    judged = view.verdict.quality.after
    return found + ([judged.detail("data")] if judged and judged.detail("data") else [])


def _shapes(shape: Sequence[Any]) -> str:
    """`input 1×128`, or `2 inputs 1×128`."""
    several = [TIMES.join(map(str, each)) for each in (shape if isinstance(shape[0], list | tuple) else [shape])]
    if len(several) > 1 and len(set(several)) == 1:
        return f"{len(several)} inputs {several[0]}"
    return f"input{'s' * (len(several) > 1)} {', '.join(each or 'scalar' for each in several)}"


def _plural(count: object, noun: str) -> str:
    return f"{count} {noun.removesuffix('s') if count == 1 else noun}"


def _missing(view: View) -> list[str]:
    size, latency, quality = view.verdict.changes
    has = {key for layer in view.layers for key in layer.rows}
    expected = {
        "the size of the artifact": size.after,
        "the latency of the artifact that was kept": latency.after,
        f"its speedup over {latency.than}": latency.ratio,
        "its quality on real data": quality.after,
        "the time of each layer": "node_time original" in has,
        "the sensitivity of each layer": view.formats,
        "the bits of each layer": "weight_bits chosen" in has,
        "this machine's peaks": view.peaks,
        "the recipe": view.recipe,
        "the machine and the versions": view.environment,
    }
    if view.hardware:
        expected = {
            "the cells that it takes": size.after,
            "the clock that it reaches": view.hardware.fmax,
            "its quality on real data": quality.after,
        }
    elif view.verb == "build":
        expected = {what: there for what, there in expected.items() if "each layer" not in what}
        for what in ("this machine's peaks", "the recipe"):
            del expected[what]
    return [what for what, there in expected.items() if not there]


def _number(row: Row) -> list[Any]:
    low, high = row.m.spread or (None, None)
    value, low, high = (
        x if x is not None and math.isfinite(x) else None for x in (row.m.value, low, high)
    )  # JSON has no NaN
    return [value, row.text, low, high, row.index]


def _layer_data(layer: Layer) -> dict[str, Any]:
    numbers = {key: _number(row) for key, row in layer.rows.items()}
    formats = {key: row.detail("format") for key, row in layer.rows.items() if key.endswith("bits chosen")}
    parts = {k: getattr(layer, k) for k in ("id", "path", "label", "group", "op", "type")}
    return {**parts, "v": numbers, "formats": formats}


def _module_data(module: Module) -> dict[str, Any]:
    texts = {key: quantity(value, UNITS[key.split()[0]]) for key, value in module.sums.items() if value}
    return {
        "id": module.id,
        "parent": module.parent,
        "label": module.label,
        "sums": {key: value for key, value in module.sums.items() if value},
        "texts": texts,
        "count": len(module.layers),
    }


def _tree_caption(view: View) -> str:
    total = view.tree[0].sums[view.time_key]
    if not total:
        return "No layer was measured."
    by_op: dict[str, float] = defaultdict(float)
    for layer in view.layers:
        by_op[layer.op] += layer.value(view.time_key)
    op, share = max(by_op.items(), key=lambda item: item[1])
    slowest = max(view.layers, key=lambda layer: layer.value(view.time_key))
    kind = {"node": "measured time of the original", "roof": "modeled time", "macs": "arithmetic"}[view.time_key[:4]]
    return (
        f"{words(op)} takes {percent(share / total)} of the {kind}; the slowest single layer is {slowest.id} "
        f"with {percent(slowest.value(view.time_key) / total)}."
    )


def _roofline_caption(view: View) -> str:
    pairs = [
        (layer.value("roofline_time original"), layer.value("node_time original"))
        for layer in view.layers
        if {"roofline_time original", "node_time original"} <= layer.rows.keys()
    ]
    if not pairs:
        return "Each layer's arithmetic intensity against the rate it reaches."
    roof, time = (sum(column) for column in zip(*pairs, strict=True))
    return (
        f"At this machine's measured peaks the original's layers would need {quantity(roof, 's')} (modeled); "
        f"they take {quantity(time, 's')}, so they reach {percent(roof / time)} of what is possible."
    )


def _maps_caption(view: View) -> str:
    losses = [
        (row.m.value, layer.id, key.partition(" ")[2])
        for layer in view.layers
        for key, row in layer.rows.items()
        if key.startswith("sensitivity ") and math.isfinite(row.m.value)
    ]
    bits = [layer.value("weight_bits chosen") for layer in view.layers if "weight_bits chosen" in layer.rows]
    said = []
    if losses:
        loss, name, fmt = min(losses)
        said.append(f"The model minds {name} in {fmt} the most: {quantity(loss, 'dB')} of signal over noise remain.")
    if bits:
        counts = ", ".join(f"{bits.count(n)} layers at {n:g} bit" for n in sorted(set(bits)))
        said.append(f"Weights: {counts}.")
    return " ".join(said)


def _engines_caption(view: View) -> str:
    chosen = view.verdict.latency.after
    rivals = [engine for engine in view.engines if engine.role != "chosen"]
    if not chosen or not rivals:
        return "Median latency of each engine."
    return (
        f"{chosen.m.subject} was kept, at {chosen.text} a call; the next of the {len(view.engines)} ways raced, "
        f"{rivals[0].label}, takes {rivals[0].latency.text}."
    )


_CAPTIONS: Mapping[str, Any] = {
    "tree": _tree_caption,
    "roofline": _roofline_caption,
    "maps": _maps_caption,
    "engines": _engines_caption,
}
