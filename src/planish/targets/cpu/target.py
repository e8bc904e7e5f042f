"""`Cpu`: compile a graph with every engine that takes it, check each, time them in turn, keep the fastest."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planish.compress.adaptive import Stage, stages
from planish.errors import DataError, EngineError, MissingExtra, OptionError, UnknownName
from planish.graph import Graph, Node
from planish.holes import Fillable
from planish.measure import compare
from planish.record import Measurement
from planish.targets.base import Data, Progress, Unsupported
from planish.targets.cpu.artifact import CpuArtifact, facts, how
from planish.targets.cpu.cascade import Cascade, beside, compile_graph
from planish.targets.cpu.check import difference
from planish.targets.cpu.engine import ENGINES, Engine, Options
from planish.targets.cpu.signature import Signature

_CHECKED = 4  # items of data that each engine is checked on, besides the example
_TIMED = 32  # rows of data that are timed, where it is on data
_READ = 512  # items of data that these are taken from

TimedOn = Literal["example", "data"]
Precision = Literal["float32", "bfloat16"]


def _silent(_done: int, _total: int, _what: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Cpu(Fillable):
    """The processor of this machine.

    Attributes:
        engine: "openvino", "onnxruntime" or "inductor"; None tries the first two, which compile in seconds, and keeps
            the faster.
        threads: Cores that the model may use.
        batch: Rows in a call, for timing and for `dynamic=False`; None takes the example's.
        dynamic: Keep sizes variable that the graph has as variable; False fixes them to the example's, which some
            engines use to run faster.
        tolerance: Largest accepted `|engine - graph| / |graph|`. Integer kernels round at other places than the graph
            does, so a difference of about one code is no error.
        precision: What no cast rounds is computed in. "bfloat16" lets engines multiply in it that can, as OpenVINO can
            on processors with AVX512_BF16 or AMX: they are compiled both ways, and the faster within tolerance is
            kept. The original that the artifact is compared with stays in float32.
        seconds: About how long to time.
        timed_on: "example" times the example call; "data" some rows of the data, each at its own length: texts as
            they come may be another engine's strength. A graph with exits is always timed on data.
    """

    runs_here: ClassVar[bool] = True

    engine: str | None = None
    threads: int = 1
    batch: int | None = None
    dynamic: bool = True
    tolerance: float = 0.05
    precision: Precision = "float32"
    seconds: float = 4.0
    timed_on: TimedOn = "example"

    def __post_init__(self) -> None:
        if self.engine is not None and self.engine not in ENGINES:
            raise UnknownName("engine", str(self.engine), ENGINES, "engine")
        if self.threads < 1:
            raise OptionError(f"a model runs on 1 core or more, not {self.threads}", "threads", "threads=1")
        if self.batch is not None and self.batch < 1:
            raise OptionError(f"a batch has 1 row or more, not {self.batch}", "batch", "batch=1")
        if not self.tolerance > 0:
            raise OptionError(f"a tolerance is above 0, not {self.tolerance}", "tolerance", "tolerance=0.05")
        if self.precision not in get_args(Precision):
            raise OptionError(f"nothing is computed in {self.precision!r}", "precision", "'float32' or 'bfloat16'")
        if self.timed_on not in get_args(TimedOn):
            raise OptionError(f"nothing is timed on {self.timed_on!r}", "timed_on", "'example' or 'data'")
        if self.timed_on == "data" and not self.dynamic:
            raise OptionError("fixed sizes take no data of other sizes", "timed_on", "dynamic=True")

    def unsupported(self, graph: Graph) -> list[Unsupported]:
        """What no chosen engine can take: empty as soon as one of them takes the whole graph; and exits that the graph
        cannot be cut at."""
        try:
            stages(graph)
        except OptionError as error:
            return [Unsupported(error.where, "where", error.what)]
        lists = [engine.unsupported(graph) for engine in self._engines().values()]
        return [] if not all(lists) else min(lists, key=len)

    def estimate(self, graph: Graph) -> list[Measurement]:
        """Bytes of the weights as the artifact stores them; times are measured by `build`."""
        total = 0
        for name, tensor in graph.tensors.items():
            casts = [
                user for node in graph.fx.nodes if node.op == "get_attr" and node.target == name for user in node.users
            ]
            stored = [graph.node(user.name).format for user in casts if graph.node(user.name).op == "cast"]
            total += stored[0].nbytes(tensor.shape) if stored and stored[0] else tensor.numel() * tensor.element_size()
        return [Measurement("size", total, "B", "modeled", subject="chosen")]

    def build(
        self,
        graph: Graph,
        *,
        data: Data | None = None,
        original: Graph | None = None,
        folder: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> CpuArtifact:
        """Compile, check, time, choose. A graph with exits becomes a cascade of its stages.

        Args:
            graph: What to build.
            data: `(args, kwargs)` or `(args, kwargs, target)`; its first items join the example in the check. A graph
                with exits is timed on rows of it, since a row's time depends on where it leaves; others if `timed_on`
                says so.
            original: The uncompressed graph: it is timed beside, eagerly and through the same engines, in the same
                interleaved rounds.
            folder: Where to save the artifact; None does not.
            progress: Told of each step.

        Raises:
            OptionError: The graph has exits and cannot be cut at them; names the module.
            DataError: It is to be timed on data, and there are none.
            EngineError: No engine takes the graph, or none computes what it says; lists each with its reason. Or none
                computes in bfloat16 on this processor, and it is to.
        """
        if self.timed_on == "data" and data is None:
            raise DataError("there are no data to time the engines on", "timed_on", "build(..., data=...)")
        tell, engines = progress or _silent, self._engines()
        halves = [name for name, engine in engines.items() if self.precision == "bfloat16" and engine.has_bfloat16]
        if self.precision == "bfloat16" and not halves:
            hint = "precision='float32'; OpenVINO computes in bfloat16 on processors with AVX512_BF16 or AMX"
            raise EngineError(f"no product of bfloat16 here in {' or '.join(engines)}", "precision", hint)
        steps = len(engines) * (2 if original else 1) + 2
        done = itertools.count()
        options = Options(self.threads, self._fixed(graph))
        rows: list[Measurement] = []
        call, cut = self._example(graph), stages(graph)
        checks = [call, *((item[0], item[1]) for item in itertools.islice(data or (), _CHECKED))]
        calls = self._calls(graph, data) if cut or self.timed_on == "data" else [call]
        found: dict[str, CpuArtifact] = {}
        for name, engine in engines.items():
            tell(next(done), steps, f"compiling for {name}")
            found.update(self._try(name, engine, graph, cut, options, checks, rows))
            if engine.has_exact and _has_integers(graph):
                found.update(self._try(name, engine, graph, cut, replace(options, exact=True), checks, rows))
            if name in halves:
                found.update(self._try(name, engine, graph, cut, replace(options, bfloat16=True), checks, rows))
        if not found:
            reasons = "; ".join(f"{row.details['engine']}: {row.details['reason']}" for row in rows)
            raise EngineError(f"no engine can run this graph: {reasons}", "the CPU target", "target.unsupported(graph)")
        baselines: dict[str, CpuArtifact] = {}
        for name, engine in engines.items():
            if original is None or original is graph:
                break
            tell(next(done), steps, f"compiling the original for {name}")
            baselines.update(self._try(name, engine, original, stages(original), options, [call], []))
        tell(next(done), steps, "timing")
        chosen = self._time(found, baselines, original, calls, rows)
        tell(next(done), steps, "reading what ran")
        rows += [_as_chosen(row, chosen) for row in facts(chosen, chosen.signature.flatten(*call))]
        chosen.measurements, chosen.examples = rows, calls
        if isinstance(chosen.compiled, Cascade):
            chosen.compiled.reached = [0] * len(cut)  # what is counted is the user's
        if folder is not None:
            chosen.save(folder)
        tell(steps, steps, "built")
        return chosen

    def _engines(self) -> dict[str, Engine]:
        if self.engine:
            return {self.engine: ENGINES[self.engine]()}
        engines: dict[str, Engine] = {}
        for name in ("openvino", "onnxruntime"):
            try:
                engines[name] = ENGINES[name]()
            except MissingExtra:
                continue
        return engines or {"inductor": ENGINES["inductor"]()}

    def _fixed(self, graph: Graph) -> dict[str, int]:
        if self.dynamic:
            return {}
        args, kwargs = self._example(graph)
        tensors = Signature.of(graph).flatten(args, kwargs)
        inputs = [node for node in graph.inputs if isinstance(node.value, Tensor)]
        return {
            size: int(have)
            for node, tensor in zip(inputs, tensors, strict=True)
            for size, have in zip(node.shape or (), tensor.shape, strict=True)
            if isinstance(size, str)
        }

    def _example(self, graph: Graph) -> tuple[tuple, dict]:
        """The example call, with `batch` rows where the first axis varies."""
        return graph.example if self.batch is None else _rows_of(graph, graph.example, torch.arange(self.batch))

    def _calls(self, graph: Graph, data: Data | None) -> list[tuple[tuple, dict]]:
        """Rows spread over the first items of the data, which may be sorted, in calls of as many as the example call;
        without data, the example."""
        batch = _count(graph, self._example(graph))
        parts = [
            ((tuple(item[0]), item[1]), first)
            for item in itertools.islice(data if data is not None and self.dynamic else [graph.example], _READ)
            for first in range(0, _count(graph, item), batch)
        ]
        if not parts:
            raise DataError("the data that engines are timed on are empty", "timed_on", "build(..., data=...)")
        count = min(len(parts), max(1, _TIMED // batch))
        chosen = [parts[place * len(parts) // count] for place in range(count)]
        return [_rows_of(graph, call, torch.arange(first, first + batch)) for call, first in chosen]

    def _try(
        self,
        name: str,
        engine: Engine,
        graph: Graph,
        cut: Sequence[Stage],
        options: Options,
        checks: Sequence,
        rows: list[Measurement],
    ) -> dict[str, CpuArtifact]:
        """A checked artifact of one engine, or a row that says why there is none."""
        precision = _precision(graph, options)

        def refuse(reason: str) -> dict[str, CpuArtifact]:
            details = {"engine": name, "reason": reason}
            label = f"{name} {precision}{' exact' if options.exact else ''}"
            rows.append(Measurement("refused", 1, "1", "exact", subject=label, details=details))
            return {}

        if missing := engine.unsupported(graph):
            return refuse(f"{missing[0]}" + (f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""))
        try:
            signature = Signature.of(graph)
            compiled = compile_graph(engine, graph, cut, options)
            artifact = CpuArtifact(name, compiled, signature, options, precision)
            worst = 0.0
            for args, kwargs in checks[:1] if options.fixed else checks:  # fixed sizes may not be those of the data
                if isinstance(compiled, Cascade):
                    pairs = beside(compiled, cut, signature.flatten(args, kwargs))
                else:
                    pairs = [(_tensors(artifact(*args, **kwargs)), _tensors(graph(*args, **kwargs)))]
                worst = max(worst, *(difference(given, wanted).relative for given, wanted in pairs))
        except EngineError as error:
            return refuse(str(error).replace("\n", " "))
        if not worst <= self.tolerance:
            return refuse(
                f"its results differ from the graph's by {worst:.2g}, more than the tolerance {self.tolerance:g}"
            )
        rows.append(
            Measurement(
                "engine_difference",
                worst,
                "1",
                "measured",
                subject=artifact.label,
                details={"engine": name, "of": "norm"},
            )
        )
        return {artifact.label: artifact}

    def _time(
        self,
        found: dict[str, CpuArtifact],
        baselines: dict[str, CpuArtifact],
        original: Graph | None,
        calls: Sequence[tuple[tuple, dict]],
        rows: list[Measurement],
    ) -> CpuArtifact:
        """Time everything in turn, add the rows, and return the fastest. Of several calls the mean is timed."""
        every = {f"graph {n}": a for n, a in found.items()} | {f"original {n}": a for n, a in baselines.items()}
        runs: dict[str, Callable[[], object]] = {}
        for key, artifact in every.items():
            runs[key] = artifact.timed(calls)
        if original is not None:
            runs["eager"] = lambda: [original(*args, **kwargs) for args, kwargs in calls]
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            times = compare(runs, seconds=self.seconds).each(len(calls))
        finally:
            torch.set_num_threads(threads)

        def fastest(group: dict[str, CpuArtifact], label: str) -> str:
            return min((f"{label} {name}" for name in group), key=times.median)

        best = fastest(found, "graph")
        base = fastest(baselines, "original") if baselines else None
        roles = {best: "chosen", base: "baseline", "eager": "eager"}
        for key in runs:
            role = roles.get(key, "candidate")
            if key == "eager":
                label = "eager fp32"
                details = {"engine": "eager", "precision": "fp32", "threads": self.threads}
            else:
                label, details = every[key].label, how(every[key], calls)
                if key.startswith("original ") and label in found:  # a graph that was changed and is still in float32
                    label = f"{label} unchanged"
            rows.append(replace(times.latency(key, role=role, **details), subject=label))
            if key != best:
                rows.append(replace(times.speedup(key, best, role=role), subject=label))
        return every[best]


def _rows_of(graph: Graph, call: tuple[tuple, dict], rows: Tensor) -> tuple[tuple, dict]:
    """Some rows of a call where the first axis varies; after the last row the first one comes again."""
    nodes = iter(graph.inputs)

    def picked(leaf: object) -> object:
        return leaf[rows % len(leaf)] if _varies(next(nodes)) and isinstance(leaf, Tensor) else leaf

    return pytree.tree_map(picked, call)


def _count(graph: Graph, call: tuple[Any, ...]) -> int:
    """Rows of a call; 1 where their number does not vary."""
    leaves = pytree.tree_leaves((tuple(call[0]), call[1]))
    return next((len(leaf) for node, leaf in zip(graph.inputs, leaves, strict=True) if _varies(node)), 1)


def _varies(node: Node) -> bool:
    return isinstance(node.value, Tensor) and bool(node.shape) and isinstance(node.shape[0], str)


def _tensors(result: object) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def _has_integers(graph: Graph) -> bool:
    """Whether activations are rounded: only then can products of integers be formed."""
    return any(
        node.op == "cast" and any(source.kind == "call" or source.kind == "input" for source in node.inputs)
        for node in graph.nodes
    )


def _precision(graph: Graph, options: Options) -> str:
    """The most frequent format of casts, "int8" or "int4", and what the rest is computed in, where that is not float32:
    "int8+bf16"; "fp32" or "bf16" where there is no cast."""
    names = [str(node.format).partition("@")[0].partition("~")[0] for node in graph.nodes if node.op == "cast"]
    kinds = {name.lstrip("u") for name in names if name}
    if not kinds:
        return "bf16" if options.bfloat16 else "fp32"
    most = min(kinds, key=lambda kind: (-names.count(kind) - names.count(f"u{kind}"), kind))
    return f"{most}+bf16" if options.bfloat16 else most


def _as_chosen(row: Measurement, artifact: CpuArtifact) -> Measurement:
    """The size of the chosen artifact goes by "chosen" in a run folder."""
    if row.name != "size":
        return row
    return Measurement(row.name, row.value, row.unit, row.source, subject="chosen", details={"engine": artifact.engine})
