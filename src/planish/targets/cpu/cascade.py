"""A model with exits as a cascade: one artifact for each stage, and only the rows that are not sure go on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from planish.compress.adaptive import stages
from planish.errors import OptionError, UntrustedFile, UserError
from planish.graph import Graph
from planish.measure import compare
from planish.record import Measurement
from planish.targets.base import Data, Progress
from planish.targets.cpu.artifact import CpuArtifact
from planish.targets.cpu.artifact import load as load_artifact
from planish.targets.cpu.signature import Signature
from planish.targets.cpu.target import Cpu

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


@dataclass
class Cascade:
    """Stages that run one after the other, each for the rows that no exit before it was sure of.

    Called like the model, it returns what the model returns. Rows that leave a batch are taken out of it, so that the
    next stage runs on a smaller one; a single row that leaves ends the run.

    Attributes:
        stages: The artifacts, first one first.
        wiring: What each takes and leaves.
        signature: How the whole is called.
        example: Example inputs, `(args, kwargs)`; None for a loaded cascade.
        reached: How many rows each stage has run, over all calls.
        measurements: What was measured of the stages while they were built.
        path: The folder, once saved.
    """

    stages: Sequence[CpuArtifact]
    wiring: Sequence[Wiring]
    signature: Signature
    example: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    reached: list[int] = field(default_factory=list)
    measurements: Sequence[Measurement] = field(default_factory=list)
    path: Path | None = None

    def __post_init__(self) -> None:
        self.reached = [0] * len(self.stages)

    @property
    def nbytes(self) -> int:
        """Bytes of all model files."""
        return sum(stage.nbytes for stage in self.stages)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run once; arguments and result are those of the original model.

        Raises:
            DataError: The arguments do not fit the signature.
            EngineError: An engine fails.
        """
        return self.signature.unflatten([self.run(self.signature.flatten(args, kwargs))])

    def run(self, tensors: Sequence[Tensor]) -> Tensor:
        """The answers `(batch, classes)` to flat inputs."""
        values = dict(zip(self.signature.tensor_inputs, tensors, strict=True))
        last = len(self.stages) - 1
        answers, rows = None, None  # all rows, and which of them are left; None while that is all
        for place, (stage, wiring) in enumerate(zip(self.stages, self.wiring, strict=True)):
            given = stage.compiled([values[name] for name in wiring.inputs])
            answer = given[0]
            self.reached[place] += len(answer)
            if rows is not None and answers is not None:
                answers[rows] = answer
            if place == last:
                break
            sure = given[1].flatten()
            if bool(sure.all()):
                break
            values.update(zip(wiring.passes, given[2:], strict=True))
            if len(sure) > 1 and bool(sure.any()):
                left = torch.nonzero(~sure).flatten()
                if answers is None:
                    answers = answer
                rows = left if rows is None else rows[left]
                values = {name: value[left] for name, value in values.items()}
        else:
            raise AssertionError("a cascade has a stage")
        return answer if answers is None else answers

    def measure(self, seconds: float = 1.0) -> list[Measurement]:
        """Time the example call."""
        if self.example is None:
            raise OptionError("a loaded cascade has no example inputs", hint="time it with inputs of your own")
        tensors = self.signature.flatten(*self.example)
        times = compare({"cascade": lambda: self.run(tensors)}, seconds=seconds)
        return [times.latency("cascade", role="chosen", engine=self.stages[0].engine)]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write a folder with an artifact for each stage.

        Raises:
            UserError: The disk refused.
        """
        target = Path(folder)
        note = {
            "format": 1,
            "wiring": [asdict(wiring) for wiring in self.wiring],
            "signature": asdict(self.signature),
        }
        for place, stage in enumerate(self.stages):
            stage.save(target / f"stage{place}")
        try:
            (target / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot save the cascade: {error.strerror}", str(target), "free space") from error
        self.path = target
        return target


def build_cascade(
    graph: Graph,
    target: Cpu | None = None,
    *,
    data: Data | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Cascade:
    """Cut a graph at its exits and build an artifact for each stage, all for one engine.

    Args:
        graph: With exits, as `EarlyExit` makes it; other passes may have changed it since.
        target: Which engine, and how it runs; without an engine the first stage chooses.
        data: Checks the first stage; the others are checked on what the example becomes.
        folder: Where to save the cascade; None does not.
        progress: Told of each step.

    Raises:
        OptionError: The graph has no exits, or sizes that cannot vary.
        EngineError: The engine does not take a stage.
    """
    target = target or Cpu()
    if not target.dynamic:
        raise OptionError("batches get smaller from stage to stage, so sizes vary", "dynamic", "Cpu(dynamic=True)")
    cut, built = stages(graph), list[CpuArtifact]()
    for place, stage in enumerate(cut):
        if progress:
            progress(place, len(cut), f"building stage {place + 1} of {len(cut)}")
        built.append(
            target.build(stage.graph, data=data if place == 0 and len(stage.inputs) == len(graph.inputs) else None)
        )
        target = replace(target, engine=built[0].engine)
    wiring = [Wiring(stage.inputs, stage.passes) for stage in cut]
    rows = [row for artifact in built for row in artifact.measurements]
    cascade = Cascade(built, wiring, Signature.of(graph), graph.example, measurements=rows)
    if folder is not None:
        cascade.save(folder)
    return cascade


def load_cascade(folder: str | os.PathLike[str]) -> Cascade:
    """Read what `save` wrote. Nothing in the folder is executed.

    Raises:
        UntrustedFile: The folder is no cascade, or is damaged.
    """
    path = Path(folder)
    try:
        note = json.loads((path / NOTE).read_text(encoding="utf-8"))
        wiring = [Wiring(tuple(row["inputs"]), tuple(row["passes"])) for row in note["wiring"]]
        signature = Signature.from_json(note["signature"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UntrustedFile(
            f"this is no cascade, or it is damaged ({error})", str(path), "cascade.save(...)"
        ) from error
    built = [load_artifact(path / f"stage{place}") for place in range(len(wiring))]
    return Cascade(built, wiring, signature, path=path)
