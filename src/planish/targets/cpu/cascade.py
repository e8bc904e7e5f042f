"""A model with exits as a cascade: compiled stage by stage, and only the rows that are not sure go on."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter

import torch
from torch import Tensor

from planish.compress.adaptive import Stage
from planish.errors import OptionError
from planish.graph import Graph
from planish.targets.cpu.engine import Compiled, Engine, Options, shares
from planish.targets.cpu.signature import Signature

NOTE = "cascade.json"


@dataclass(frozen=True)
class Wiring:
    """Which values a stage takes and leaves behind.

    Attributes:
        inputs: Names of the model's inputs and of values of earlier stages.
        passes: Names of the values that later stages take.
    """

    inputs: tuple[str, ...]
    passes: tuple[str, ...]


class Cascade:
    """Stages that run one after the other, each for the rows that no exit before it was sure of: a compiled model.

    Rows that leave a batch are taken out of it, so that the next stage runs on a smaller one; a single row that leaves
    ends the run.

    Args:
        stages: The compiled stages, first one first.
        wiring: What each takes and leaves.
        inputs: Names of the model's inputs.

    Attributes:
        files: Of all stages, each under its stage's number, and `cascade.json`.
        reached: How many rows each stage has run since the cascade was made, or since this was set to zero.
    """

    def __init__(self, stages: Sequence[Compiled], wiring: Sequence[Wiring], inputs: Sequence[str]) -> None:
        self.stages, self.wiring, self.inputs = stages, wiring, inputs
        self.reached = [0] * len(stages)
        self.files: Mapping[str, bytes] = {
            NOTE: json.dumps([asdict(each) for each in wiring], indent=2).encode(),
            **{
                f"{_folder(place)}{name}": content
                for place, stage in enumerate(stages)
                for name, content in stage.files.items()
            },
        }

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The answers `(batch, classes)`."""
        answers = torch.empty(0)
        for place, _, answer, rows in self._run(inputs):
            self.reached[place] += len(answer)
            if rows is None:
                answers = answer
            else:
                answers[rows] = answer
        return [answers]

    def executed_precisions(self, inputs: Sequence[Tensor]) -> dict[str, float]:
        """As the engine tells of each stage that these inputs reach, by the stage's time."""
        times: dict[str, float] = defaultdict(float)
        for place, taken, _, _ in self._run(inputs):
            start = perf_counter()
            self.stages[place](taken)
            seconds = perf_counter() - start
            for name, share in self.stages[place].executed_precisions(taken).items():
                times[name] += seconds * share
        return shares(times)

    def _run(self, inputs: Sequence[Tensor]) -> Iterator[tuple[int, list[Tensor], Tensor, Tensor | None]]:
        """Of each stage that is reached: its place, what it takes, its answer, and for which rows; None is all."""
        values, rows = dict(zip(self.inputs, inputs, strict=True)), None
        for place, (stage, wiring) in enumerate(zip(self.stages, self.wiring, strict=True)):
            taken = [values[name] for name in wiring.inputs]
            answer, *more = stage(taken)
            yield place, taken, answer, rows
            if not more or bool(more[0].all()):
                return
            values.update(zip(wiring.passes, more[1:], strict=True))
            if bool(more[0].any()):
                left = torch.nonzero(~more[0].flatten()).flatten()
                rows = left if rows is None else rows[left]
                values = {name: value[left] for name, value in values.items()}


def compile_graph(engine: Engine, graph: Graph, stages: Sequence[Stage], options: Options) -> Compiled:
    """A graph compiled by an engine; as a cascade where it was cut into stages.

    Raises:
        OptionError: It was, and its sizes are fixed to a batch of several rows.
        EngineError: The engine refuses it.
    """
    if not stages:
        return engine.compile(graph, options)
    rows = next(iter(graph.outputs[0].shape or ()))
    if options.fixed.get(str(rows), 1) > 1:
        raise OptionError("rows cannot leave a batch of fixed size", "dynamic", "dynamic=True, or batch=1")
    return Cascade(
        [engine.compile(stage.graph, options) for stage in stages],
        [Wiring(stage.inputs, stage.passes) for stage in stages],
        Signature.of(graph).tensor_inputs,
    )


def load_files(engine: Engine, files: Mapping[str, bytes], inputs: Sequence[str], options: Options) -> Compiled:
    """What `Compiled.files` held, compiled again.

    Raises:
        KeyError, TypeError, ValueError: `cascade.json` does not say how its stages are wired.
    """
    if NOTE not in files:
        return engine.load(files, inputs, options)
    wiring = [Wiring(tuple(row["inputs"]), tuple(row["passes"])) for row in json.loads(files[NOTE])]
    stages = []
    for place, each in enumerate(wiring):
        prefix = _folder(place)
        own = {name.removeprefix(prefix): content for name, content in files.items() if name.startswith(prefix)}
        stages.append(engine.load(own, each.inputs, options))
    return Cascade(stages, wiring, inputs)


def beside(
    compiled: Cascade, stages: Sequence[Stage], inputs: Sequence[Tensor]
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """What each compiled stage gives for the rows that reach it, and what its graph gives for these rows among all,
    both for what the graphs before it gave. If no row reaches a stage, those that left last are taken.

    Which rows are sure is left out: where a confidence is as high as its threshold, a difference in the last place
    decides, and then the answers are those of two stages.
    """
    values, here = dict(zip(compiled.inputs, inputs, strict=True)), None
    for runs, stage in zip(compiled.stages, stages, strict=True):
        taken = [values[name] for name in stage.inputs]
        wanted = stage.graph(*taken)
        here = torch.ones(len(wanted[0]), dtype=torch.bool) if here is None else here
        given = runs([value[here] for value in taken])
        yield [given[0], *given[2:]], [value[here] for value in (wanted[0], *wanted[2:])]
        values.update(zip(stage.passes, wanted[2:], strict=True))
        if stage.passes and bool((later := here & ~wanted[1].flatten()).any()):
            here = later


def _folder(place: int) -> str:
    return f"stage{place}-"
