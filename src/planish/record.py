"""Numbers that carry their unit and their origin, and the folder they are kept in.

A run folder is plain files that outlive the program that wrote them:
`recipe.toml environment.json graph.txt measurements.jsonl artifact/ report.html`.
Each measurement is one line, written and flushed when it is known, so that an interrupted run can still be read.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

from planish.errors import UserError

Source = Literal["measured", "simulated", "synthesized", "modeled", "exact"]


@dataclass(frozen=True)
class Measurement:
    """One number.

    Attributes:
        name: What was measured ("latency", "size", "mean_cosine").
        value: The number; for a timing, the median.
        unit: An SI unit or "B", "FLOP", "dB", "1", "tokens/s".
        source: Where the number comes from.
        spread: The 25th and 75th percentile, or the bounds of a 95 % confidence interval for a ratio or a metric.
        subject: Whose number it is ("eager fp32", "openvino int8"); empty when there is only one.
        where: Module path of the layer it belongs to; empty for the whole model.
        details: Anything else that is needed to read the number (threads, batch, engine, format…).
        stage: The stage of the job that measured it; what repeats the stage replaces its rows.
    """

    name: str
    value: float
    unit: str
    source: Source
    spread: tuple[float, float] | None = None
    subject: str = ""
    where: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    stage: str = ""

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise UserError(f"a measurement's source is one of {get_args(Source)}, not {self.source!r}", self.name)

    def to_json(self) -> str:
        """One line of `measurements.jsonl`; fields that are empty are left out."""
        return json.dumps({k: v for k, v in asdict(self).items() if v not in (None, "", {})}, sort_keys=False)

    @classmethod
    def from_json(cls, line: str) -> Measurement:
        """The inverse of `to_json`."""
        fields = json.loads(line)
        if fields.get("spread"):
            fields["spread"] = tuple(fields["spread"])
        return cls(**fields)


def environment(seed: int | None = None, command: str | None = None) -> dict[str, Any]:
    """The machine, the versions and the command, as they go into `environment.json`."""
    packages = ("planish", "torch", "numpy", "transformers", "onnx", "onnxruntime", "openvino", "nncf", "torchao")
    installed = {p: _version(p) for p in packages}
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command if command is not None else " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seed": seed,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_name(),
        "cpu_features": cpu_features(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": {p: v for p, v in installed.items() if v},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's marketing name, or its architecture where the system does not say."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """The vector extensions that decide how fast low precision runs here."""
    telling = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    flags = set(_cpuinfo("flags").split())
    return [flag for flag in telling if flag in flags]


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


class Run:
    """A run folder, open for appending.

    Args:
        path: The folder; made if absent. An existing one is continued, never emptied.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write the run folder: {error.strerror}", str(path), "--run DIR") from error

    def add(self, measurements: Measurement | Iterable[Measurement], stage: str = "") -> None:
        """Append measurements, as those of a stage, and flush them to disk.

        Raises:
            UserError: The disk refused; what was recorded before can still be read.
        """
        given = [measurements] if isinstance(measurements, Measurement) else measurements
        rows = [replace(row, stage=stage) if stage else row for row in given]
        file = self.path / "measurements.jsonl"
        try:
            torn = file.exists() and not file.read_bytes().endswith(b"\n") and file.stat().st_size > 0
            with file.open("a", encoding="utf-8") as stream:
                stream.write(("\n" if torn else "") + "".join(row.to_json() + "\n" for row in rows))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise UserError(
                f"cannot record a measurement: {error.strerror}", str(file), "free space on disk"
            ) from error

    def measurements(self) -> list[Measurement]:
        """All measurements so far; a line torn by a crash is passed over."""
        file = self.path / "measurements.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [row for row in map(_parse, lines) if row is not None]

    def drop(self, *stages: str, names: Collection[str] = ()) -> None:
        """Forget the measurements of these stages, or those of them that have one of these names.

        Raises:
            UserError: The disk refused; nothing was forgotten.
        """
        rows = self.measurements()
        kept = [row for row in rows if row.stage not in stages or (names and row.name not in names)]
        if len(kept) < len(rows):
            self.write("measurements.jsonl", "".join(row.to_json() + "\n" for row in kept))

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file of the folder whole or not at all.

        Raises:
            UserError: The disk refused; the previous version of the file is still there.
        """
        target = self.path / name
        draft = target.with_name(f".{target.name}.draft")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
            draft.replace(target)
        except OSError as error:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise UserError(f"cannot write {name}: {error.strerror}", str(target), "free space on disk") from error
        return target

    def remove(self, name: str) -> None:
        """Delete a file of the folder, if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def read(self, name: str) -> str | None:
        """The text of a file of the folder, or None where there is none."""
        file = self.path / name
        return file.read_text(encoding="utf-8") if file.exists() else None


def _parse(line: str) -> Measurement | None:
    try:
        return Measurement.from_json(line)
    except (json.JSONDecodeError, TypeError):
        return None
