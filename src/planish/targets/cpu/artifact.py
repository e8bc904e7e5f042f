"""`CpuArtifact`: a compiled model with the signature of the original, and the folder it is kept in."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from planish.errors import DataError, UntrustedFile, UserError
from planish.measure import compare
from planish.record import Measurement, environment
from planish.targets.cpu.cascade import NOTE as _STAGES
from planish.targets.cpu.cascade import Cascade, load_files
from planish.targets.cpu.engine import ENGINES, Compiled, Options
from planish.targets.cpu.readme import readme
from planish.targets.cpu.signature import Signature

_NOTE = "artifact.json"
_FILES = re.compile(rf"{re.escape(_STAGES)}|(stage\d+-)?(model\.onnx|model\.planish|openvino\.json)")


@dataclass
class CpuArtifact:
    """A model compiled by one engine.

    Attributes:
        engine: The engine's name.
        compiled: The compiled model; of a graph with exits a `Cascade` of its stages.
        signature: How it is called.
        options: Threads and fixed sizes.
        precision: What its weights and activations are ("int8", "fp32", "int8+bf16").
        examples: Inputs of the calls that are timed, `(args, kwargs)` each: one, or several where a row's time depends
            on where it leaves; none for a loaded artifact.
        measurements: What was measured while it was chosen.
        path: The folder, once saved.
    """

    engine: str
    compiled: Compiled
    signature: Signature
    options: Options
    precision: str = "f32"
    examples: Sequence[tuple[tuple[Any, ...], dict[str, Any]]] = ()
    measurements: Sequence[Measurement] = field(default_factory=list)
    path: Path | None = None

    @property
    def label(self) -> str:
        """Engine and precision, as reports call it."""
        kind = " cascade" if isinstance(self.compiled, Cascade) else ""
        return f"{self.engine} {self.precision}{kind}{' exact' if self.options.exact else ''}"

    @property
    def nbytes(self) -> int:
        """Bytes of its model files."""
        return sum(map(len, self.compiled.files.values()))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run once; arguments and result are those of the original model.

        Raises:
            DataError: The arguments do not fit the signature.
            EngineError: The engine fails.
        """
        return self.signature.unflatten(self.compiled(self.signature.flatten(args, kwargs)))

    def measure(self, seconds: float = 1.0) -> list[Measurement]:
        """Time the example calls, and read which precisions ran."""
        if not self.examples:
            raise DataError("a loaded artifact has no example inputs", hint="time art(x) with inputs of your own")
        times = compare({self.label: self.timed(self.examples)}, seconds=seconds).each(len(self.examples))
        latency = times.latency(self.label, role="chosen", **how(self, self.examples))
        return [latency, *facts(self, self.signature.flatten(*self.examples[0]))]

    def timed(self, calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]) -> Callable[[], object]:
        """A function that makes these calls, their inputs being flat already."""
        flat = [self.signature.flatten(*call) for call in calls]
        return lambda: [self.compiled(tensors) for tensors in flat]

    def reached(self) -> list[Measurement]:
        """The share of rows that reached each stage, of all that it was called with since it was built or loaded; of a
        model without exits nothing."""
        counts = self.compiled.reached if isinstance(self.compiled, Cascade) else []
        return [
            Measurement(
                "reached",
                count / max(counts[0], 1),
                "1",
                "measured",
                subject=self.label,
                details={"place": place, "rows": count},
            )
            for place, count in enumerate(counts, 1)
        ]

    def generate(self, input_ids: torch.Tensor, max_new_tokens: int, **options: Any) -> torch.Tensor:
        """Greedy text generation; see `planish.targets.cpu.generate`."""
        from planish.targets.cpu.generate import generate

        return generate(self, input_ids, max_new_tokens, **options)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model files, `artifact.json` and a README whose ten lines run the model without Planish.

        Raises:
            UserError: The disk refused; what the folder held before is still there.
        """
        target, draft = Path(folder), Path(f"{os.fspath(folder).rstrip(os.sep)}.draft")
        note = {
            "format": 1,
            "engine": self.engine,
            "precision": self.precision,
            "options": asdict(self.options),
            "signature": asdict(self.signature),
            "files": sorted(self.compiled.files),
            "version": importlib.metadata.version("planish"),
            "environment": environment(),
        }
        try:
            draft.mkdir(parents=True, exist_ok=True)
            for name, content in self.compiled.files.items():
                (draft / name).write_bytes(content)
            (draft / _NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
            about = readme(self.engine, self.signature, self.options, isinstance(self.compiled, Cascade))
            (draft / "README.md").write_text(about, encoding="utf-8")
            target.mkdir(parents=True, exist_ok=True)
            for file in draft.iterdir():
                file.replace(target / file.name)
        except OSError as error:
            raise UserError(
                f"cannot save the artifact: {error.strerror}", str(target), "free space, or another folder"
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self.path = target
        return target


def how(artifact: CpuArtifact, calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]) -> dict[str, Any]:
    """What a timing needs to be read: engine, precision, threads, shapes; and how many calls it is the mean of."""
    tensors = artifact.signature.flatten(*calls[0])
    return {
        "engine": artifact.engine,
        "precision": artifact.precision,
        "threads": artifact.options.threads,
        "batch": int(tensors[0].shape[0]) if tensors and tensors[0].dim() else 1,
        "shape": [list(tensor.shape) for tensor in tensors],
        **({"calls": len(calls)} if len(calls) > 1 else {}),
    }


def facts(artifact: CpuArtifact, tensors: Sequence[torch.Tensor]) -> list[Measurement]:
    """Which precisions ran, and the size of the file."""
    ran = artifact.compiled.executed_precisions(tensors)
    rows = [
        Measurement(
            "executed_precision",
            share,
            "1",
            "measured",
            subject=artifact.label,
            details={"precision": name, "of": "time"},
        )
        for name, share in ran.items()
    ]
    return [*rows, Measurement("size", artifact.nbytes, "B", "exact", subject=artifact.label)]


def load(folder: str | os.PathLike[str]) -> CpuArtifact:
    """Read what `save` wrote. Nothing in the folder is executed.

    Raises:
        UntrustedFile: The folder is no artifact, is damaged, or names files or engines outside the allow-list.
    """
    path = Path(folder)
    try:
        note = json.loads((path / _NOTE).read_text(encoding="utf-8"))
        names = [str(name) for name in note["files"]]
        if strange := [name for name in names if not _FILES.fullmatch(name)]:
            raise UntrustedFile(f"the artifact names the file {min(strange)!r}", str(path / _NOTE))
        files = {name: (path / name).read_bytes() for name in names}
        signature = Signature.from_json(note["signature"])
        options, engine = Options(**note["options"]), str(note["engine"])
        precision = str(note["precision"])
        compiled = load_files(ENGINES[engine](), files, signature.tensor_inputs, options)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UntrustedFile(
            f"this is no artifact, or it is damaged ({error})", str(path), "planish build MODEL"
        ) from error
    return CpuArtifact(engine, compiled, signature, options, precision, path=path)
