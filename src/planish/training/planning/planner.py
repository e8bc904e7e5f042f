"""From a graph and a cluster to the fastest plan that fits, and why the others lost.

Outside: every way to deal out the devices to the axes of a plan, microbatches, schedules and recomputation, each
judged by the step-time model. Inside: for each number of tensor parallel devices the integer program says which
parameters are divided, and for each pipeline a dynamic program says where stages begin (the two levels of Alpa, arXiv
2201.12023).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import pairwise

from planish.analysis.cost import scaled
from planish.errors import OptionError
from planish.graph import Graph
from planish.training.parallel.plan import Plan, Precision
from planish.training.parallel.tensor import megatron, named
from planish.training.planning.axes import Axes, assignments, counts, said, schedules
from planish.training.planning.constants import Constants
from planish.training.planning.fold import fold, unfolded
from planish.training.planning.hardware import CPU, Cluster
from planish.training.planning.layers import layers, units
from planish.training.planning.memory import MASTER, MOMENTS, in_flight, kept
from planish.training.planning.operations import Operations
from planish.training.planning.planned import Candidate, LayerRow, Planned
from planish.training.planning.program import Program, Solution
from planish.training.planning.setting import Setting
from planish.training.planning.stages import cut
from planish.training.planning.steptime import Estimate, Model
from planish.training.planning.strategies import REPLICATED
from planish.training.planning.work import Layer

RESERVE = 0.06
"""Of a device's memory, for what no tensor of the model takes: the context, the allocator's fragments, buffers of
collectives."""
PER_DEVICE = 8
"""Samples of a step for each device, where nobody says."""
CANNOT = "cannot be dealt out to"
GROWN = (2, 4, 8, 16, 32, 64)


def plan(
    graph: Graph,
    cluster: Cluster,
    batch: int | None = None,
    memory: float | None = None,
    precision: Precision | None = None,
) -> Planned:
    """The fastest plan for a graph on a cluster, as modeled.

    Args:
        graph: The model; the first axis of its first input is the batch.
        cluster: Devices and their links.
        batch: Samples of a step, over all devices; None takes 8 a device.
        memory: Bytes of each device; None takes the hardware's.
        precision: Of products; None takes bf16, on a CPU fp32.

    Raises:
        OptionError: No way to deal out the devices divides the model and the batch (names the modules), or none fits
            into memory (by how much, and what would).
    """
    chosen: Precision = precision or ("fp32" if cluster.hardware.key == CPU else "bf16")
    limit = (memory if memory is not None else cluster.hardware.memory) * (1 - RESERVE)
    return Planner(graph, cluster, batch or PER_DEVICE * cluster.devices, limit, chosen).plan()


def predict(graph: Graph, made: Plan, cluster: Cluster, batch: int) -> Estimate:
    """What a step of a plan takes, whoever made the plan.

    Args:
        graph: The model.
        made: Its `shards` are those that Megatron-LM's way gives where it has none, its `stages` balanced likewise.
        cluster: Devices.
        batch: Samples of a step, over all devices.

    Raises:
        OptionError: The plan does not divide the model.
    """
    planner = Planner(graph, cluster, batch, math.inf, made.precision)
    if made.tp > 1:
        axes = named(made.shards, graph.tensors, made.tp) if made.shards else megatron(graph, made.tp)
        planner.divide(made.tp, axes)
    return planner.estimate(made)


class Planner:
    """Judges plans of one graph on one cluster.

    Args:
        graph: The model.
        cluster: Devices.
        batch: Samples of a step.
        limit: Bytes of a device that a plan may take.
        precision: Of products.
    """

    def __init__(self, graph: Graph, cluster: Cluster, batch: int, limit: float, precision: Precision) -> None:
        if precision not in cluster.hardware.peak:
            known = ", ".join(cluster.hardware.peak)
            raise OptionError(f"{cluster.hardware.name} has no peak for {precision}", "precision", f"one of {known}")
        self.graph, self.cluster, self.batch, self.limit = graph, cluster, batch, limit
        self.precision: Precision = precision
        self._parameters = graph.parameter_names
        self.operations = Operations(graph)
        self.units = units(graph)
        self.folded = fold(graph)
        self.blocks = [unit.path for unit in self.units if unit.is_block]
        self._solutions: dict[int, Solution | None] = {1: None}
        self._layers: dict[tuple[int, bool], list[Layer]] = {}
        self._named: dict[int, dict[str, int]] = {}

    def plan(self) -> Planned:
        """The best plan, the others and the reasons."""
        refused: list[str] = []
        best: list[Candidate] = []
        for axes in assignments(self.cluster):
            if why := self._refusal(axes):
                refused.append(f"{said(axes)}: {why}")
                continue
            found = sorted(self._candidates(axes), key=_order)
            best += found[:1]
            if not found:
                refused.append(f"{said(axes)}: {self.batch} samples {CANNOT} microbatches")
        if not best:
            self._nothing(refused)
        best.sort(key=_order)
        if not best[0].fits:
            self._too_little(min(best, key=lambda each: each.estimate.peak))
        first, *others = best
        told = tuple(replace(each, why=self._why(first, each)) for each in others)
        solution = self.solution(first.plan.tp)
        unknown = tuple(sorted({_where(node) for node in solution.unknown})) if solution else ()
        starts = (self.units[0].path, *first.plan.stages)
        rows = tuple(self._rows(first))
        spent = self._stage_seconds(first)
        return Planned(first, told, rows, starts, spent, unknown, tuple(refused), self.cluster, self.batch, self.limit)

    def solution(self, tp: int) -> Solution | None:
        """Which parameters `tp` devices divide; None for one device."""
        if tp not in self._solutions:
            samples = max(1.0, self.batch * tp / self.cluster.devices)
            model = self._model(Setting(tp=tp, precision=self.precision))
            self._solutions[tp] = Program(self.operations, model, samples, self.folded).solve()
        return self._solutions[tp]

    def divide(self, tp: int, axes: Mapping[str, int]) -> None:
        """Let `tp` devices divide these parameters along these axes, instead of asking the program which."""
        samples = max(1.0, self.batch * tp / self.cluster.devices)
        model = self._model(Setting(tp=tp, precision=self.precision))
        program = Program(self.operations, model, samples, unfolded(self.graph))
        self._solutions[tp] = program.fixed(axes).solve()

    def estimate(self, made: Plan, fitted: Constants | None = None) -> Estimate:
        """What a step of a plan takes; constants that are given take the place of the hardware's."""
        work = self.work(made.tp, False)
        again = [fnmatchcase(unit.path, made.recompute) for unit in self.units]
        work = [replace(each, recompute="full") if on else each for each, on in zip(work, again, strict=True)]
        model = self._model(Setting.of(made), fitted)
        paths = [unit.path for unit in self.units]
        if unknown := [path for path in made.stages if path not in paths]:
            raise OptionError(f"no layer is called {unknown[0]!r}", "plan.stages", f"layers: {_some(self.blocks)}")
        borders = [paths.index(path) for path in made.stages]
        if made.pp > 1 and not borders:
            samples = self.batch / (made.shares * made.microbatches)
            borders = self._cut(model, work, samples) or []
        limits = [0, *borders, len(work)]
        return model.step([work[start:stop] for start, stop in pairwise(limits)], self.batch)

    def shards(self, tp: int) -> dict[str, int]:
        """Parameter name -> the axis that is divided."""
        solution = self.solution(tp)
        return {
            str(node.target): int(strategy.output[1:])
            for node, strategy in (solution.chosen.items() if solution else ())
            if node.op == "get_attr" and strategy.output != REPLICATED
        }

    def _model(self, setting: Setting, fitted: Constants | None = None) -> Model:
        return Model(self.cluster.hardware, setting, fitted)

    def _refusal(self, axes: Axes) -> str:
        """Why no plan can have these axes; "" if some can."""
        dp, fsdp, tp, pp = axes
        if pp > len(self.blocks):
            return f"{pp} stages, and the model has {len(self.blocks)} blocks: {_some(self.blocks)}"
        if tp > (node := self.cluster.hardware.per_node):
            return f"{tp} tensor parallel devices do not share a node of {node}"
        if tp > 1 and not self.shards(tp):
            shapes = {str(n.target): self.operations.shape(n) for unit in self.units for n in unit.parameters}
            widest = max(shapes, key=lambda name: max(shapes[name], default=0))
            if all(size % tp for shape in shapes.values() for size in shape):
                return f"{tp} divides no axis of a parameter; the widest is {widest}, {shapes[widest]}"
            return f"dividing operations by {tp} takes longer than each device doing all of them"
        if self.batch % (dp * fsdp):
            return f"{self.batch} samples {CANNOT} {dp * fsdp} shares"
        return ""

    def _candidates(self, axes: Axes) -> Iterator[Candidate]:
        dp, fsdp, tp, pp = axes
        rows = self.batch // (dp * fsdp)
        for microbatches in counts(rows, pp):
            for schedule in schedules(pp, tp, microbatches):
                for again in (False, True):
                    if schedule == "zero-bubble" and again:
                        continue
                    made = Plan(dp, fsdp, tp, pp, schedule, microbatches, self.precision)
                    if made.count_stages <= len(self.blocks) and (found := self._judge(made, again)):
                        yield found

    def _judge(self, made: Plan, again: bool) -> Candidate | None:
        setting = Setting.of(made)
        work = self.work(made.tp, again)
        model = self._model(setting)
        samples = self.batch / (made.shares * made.microbatches)
        borders: list[int] = []
        if made.pp > 1:
            found = self._cut(model, work, samples)
            if found is None:
                return None
            borders = found
        limits = [0, *borders, len(work)]
        stages = [work[start:stop] for start, stop in pairwise(limits)]
        estimate = model.step(stages, self.batch)
        whole = replace(
            made,
            recompute=self.pattern if again else "",
            shards=self._patterns(made.tp) if made.tp > 1 else None,
            stages=tuple(work[border].path for border in borders),
        )
        return Candidate(whole, estimate, estimate.peak <= self.limit)

    def work(self, tp: int, again: bool) -> list[Layer]:
        """The layers as so many devices divide them, their blocks recomputed or not."""
        key = tp, again
        if key not in self._layers:
            made = layers(self.operations, self.units, self.folded, self.solution(tp))
            block = {unit.path for unit in self.units if unit.is_block}
            self._layers[key] = [
                replace(each, recompute="full") if again and each.path in block else each for each in made
            ]
        return self._layers[key]

    def _cut(self, model: Model, work: Sequence[Layer], samples: float) -> list[int] | None:
        """Borders of the stages; those of looped schedules share a device, and memory is judged when they are known."""
        setting = model.setting
        known: dict[str, float] = {}
        for layer in work:
            known.setdefault(layer.like or layer.path, model.layer(layer, samples).total)
        times = [known[layer.like or layer.path] for layer in work]
        count = setting.pp * setting.chunks
        if setting.chunks > 1:
            return cut(times, [unit.is_block for unit in self.units], count)
        held = []
        for device in range(setting.pp):
            flight = in_flight(device, setting)
            held.append([self._bytes(layer, setting, samples, flight) for layer in work])
        places = [unit.is_block for unit in self.units]
        return cut(times, places, count, held, self.limit) or cut(times, places, count)

    def _bytes(self, layer: Layer, setting: Setting, samples: float, flight: float) -> float:
        size = (layer.parameters + layer.shared_parameters / setting.tp) / setting.fsdp
        return size * (2 * MASTER + MOMENTS) + flight * kept(layer, setting, samples)

    @cached_property
    def pattern(self) -> str:
        """The blocks, as a plan's `recompute` names them."""
        parents = {path.rpartition(".")[0] for path in self.blocks}
        parent = parents.pop() if len(parents) == 1 else ""
        return f"{parent}.*" if parent else "*.[0-9]*" if any(path[-1].isdigit() for path in self.blocks) else "*"

    def _patterns(self, tp: int) -> dict[str, int]:
        """Shards by patterns, where one says the same of all blocks that are alike."""
        if tp not in self._named:
            axes = self.shards(tp)
            alike = [path for group in self.folded.blocks for path in group]
            grouped: dict[str, list[str]] = {}
            for name in sorted(axes):
                block = next((path for path in alike if name.startswith(f"{path}.")), None)
                pattern = f"{block.rpartition('.')[0]}.*{name.removeprefix(block)}" if block else name
                grouped.setdefault(pattern, []).append(name)
            found: dict[str, int] = {}
            for pattern, names in grouped.items():
                matched = [name for name in self._parameters if fnmatchcase(name, pattern)]
                same = len({axes.get(name) for name in matched}) == 1
                found.update({pattern: axes[names[0]]} if same else {name: axes[name] for name in names})
            self._named[tp] = found
        return self._named[tp]

    def _why(self, first: Candidate, other: Candidate) -> str:
        if not other.fits:
            return f"{scaled(other.estimate.peak - self.limit, 'B')} too much"
        more = {name: other.estimate.parts[name] - seconds for name, seconds in first.estimate.parts.items()}
        name = max(more, key=lambda each: more[each])
        amount = f"{more[name]:+.3g} s" if more[name] >= 1 else f"{1e3 * more[name]:+.3g} ms"
        return f"{SAID[name]} {amount}"

    def _stage_seconds(self, best: Candidate) -> tuple[tuple[float, float], ...]:
        paths = [unit.path for unit in self.units]
        limits = [0, *(paths.index(path) for path in best.plan.stages), len(paths)]
        spans = [best.estimate.layers[start:stop] for start, stop in pairwise(limits)]
        return tuple(
            (
                sum(time.forward + time.tensor for time in span),
                sum(time.backward + time.tensor_backward for time in span),
            )
            for span in spans
        )

    def _rows(self, best: Candidate) -> Iterator[LayerRow]:
        made, estimate = best.plan, best.estimate
        setting = Setting.of(made)
        samples = self.batch / (made.shares * made.microbatches)
        work = self.work(made.tp, bool(made.recompute))
        shards = self.shards(made.tp)
        alike = Counter(layer.like for layer in work)
        for unit, layer, time in zip(self.units, work, estimate.layers, strict=True):
            if layer.like != layer.path:
                continue
            size = layer.parameters + layer.shared_parameters / made.tp
            gathered = 0 if made.fsdp == 1 else size * (2 * setting.width + 4) * (made.fsdp - 1) / made.fsdp
            reduced = 2 * (layer.reduced + layer.reduced_backward) * (made.tp - 1) / made.tp
            moved = made.microbatches * (reduced * samples * setting.width + gathered)
            memory = self._bytes(layer, setting, samples, 1)
            own = {str(node.target): shards[str(node.target)] for node in unit.parameters if str(node.target) in shards}
            seconds = made.microbatches * time.total
            yield LayerRow(layer.path, alike[layer.like], _sharding(own, layer.path), moved, seconds, memory)

    def _nothing(self, refused: list[str]) -> None:
        mesh = "x".join(map(str, self.cluster.mesh))
        refused.sort(key=lambda each: CANNOT in each)  # what the model is in the way of comes first
        shown = "\n    ".join(refused[:6])
        raise OptionError(f"no plan can use a mesh of {mesh}:\n    {shown}", "--mesh", "--devices leaves the axes open")

    def _too_little(self, least: Candidate) -> None:
        """Say by how much, and on how many devices it would fit."""
        there = f"the {scaled(self.limit, 'B')} of a device"
        missing = scaled(least.estimate.peak - self.limit, "B")
        what = f"the plan that needs least ({least.plan}) takes {missing} more than {there}"
        hint = f"--memory {math.ceil(least.estimate.peak / (1 - RESERVE) / 1e6)}MB"
        for times in GROWN:
            shares = self.cluster.devices * times
            setting = Setting(fsdp=shares, precision=self.precision)
            batch = max(1, self.batch // shares) * shares
            peak = self._model(setting).step([self.work(1, True)], batch).peak
            if peak <= self.limit:
                told = f"fsdp {shares}, recompute {self.pattern} would take {scaled(peak, 'B')}"
                hint = f"--devices {shares}: {told}"
                break
        raise OptionError(what, "memory", hint)


SAID = {
    "compute": "computing",
    "tensor": "tensor parallel traffic",
    "shards": "gathering shards",
    "replicas": "sharing gradients",
    "pipeline": "messages between stages",
    "bubble": "waiting in the pipeline",
    "optimizer": "the optimizer",
}


def _order(candidate: Candidate) -> tuple[bool, float]:
    return not candidate.fits, candidate.estimate.seconds


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _where(node: object) -> str:
    stack = getattr(node, "meta", {}).get("nn_module_stack")
    path = next(reversed(stack.values()))[0] if stack else ""
    return f"{getattr(node, 'name', '')} ({path or 'the model itself'})"


def _sharding(axes: dict[str, int], path: str) -> str:
    """ "axis 0: q, k, v, up; axis 1: out, down"."""
    by_axis: dict[int, dict[str, None]] = {}
    for name, axis in axes.items():
        owner = name.removeprefix(f"{path}.").rpartition(".")
        if owner[2] != "bias" or len(axes) == 1:
            by_axis.setdefault(axis, {})[owner[0] or path.rpartition(".")[2]] = None
    return "; ".join(f"axis {axis}: {', '.join(names)}" for axis, names in sorted(by_axis.items()))
