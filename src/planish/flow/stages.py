"""Which stages of a job are finished, and what they were made from: the same command goes on after the last of them.

`stages.json` in the run folder holds, for each finished stage, the key of all that it depends on, the files that it
left and how many measurements. A stage counts as finished only while all of these are still there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from planish.record import Measurement, Run

FILE = "stages.json"
MODEL, CAPTURE, ANALYSIS, SENSITIVITY, RECIPE = "model", "capture", "analysis", "sensitivity", "recipe"
BUILD, START = "build", "start"
QUALITY = {"original": "quality of the original", "chosen": "quality"}
GRAPHS, ARTIFACT, CAPTURED = "graphs", "artifact", "graphs/captured.planish"

_OF_THE_ARTIFACT = (QUALITY["chosen"], START)
_AFTER = {
    MODEL: (CAPTURE, ANALYSIS, SENSITIVITY, RECIPE, BUILD, QUALITY["original"], *_OF_THE_ARTIFACT),
    RECIPE: (BUILD, *_OF_THE_ARTIFACT),
    BUILD: _OF_THE_ARTIFACT,
}
"""What becomes wrong when a stage is done again."""

Add = Callable[[Measurement | Iterable[Measurement]], None]


class Stages:
    """The stages of one run folder.

    Attributes:
        reused: Names of the stages that were found finished, in the order in which they were asked for.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.reused: list[str] = []
        self._known = _read(run)

    def knows(self, name: str) -> bool:
        """Whether the stage was finished, with whatever key."""
        return name in self._known

    def has(self, name: str, key: str) -> bool:
        """Whether the stage was finished with this key, and all that it left is still there."""
        known = self._known.get(name)
        if not known or known["key"] != key or _sizes(self.run.path, known["files"]) != known["files"]:
            return False
        if known["rows"] != sum(row.stage == name for row in self.run.measurements()):
            return False
        if name not in self.reused:
            self.reused.append(name)
        return True

    @contextmanager
    def doing(self, name: str, key: str, *files: str) -> Iterator[Add]:
        """Do a stage: what it and the stages after it left before is forgotten first.

        Args:
            name: The stage.
            key: Of all that it depends on.
            files: What it leaves in the run folder: files, or folders of files.

        Yields:
            A function that records measurements as the stage's own. They stay, should the stage not be finished.
        """
        self.forget(name)
        yield lambda rows: self.run.add(rows, name)
        rows = sum(row.stage == name for row in self.run.measurements())
        self._known[name] = {"key": key, "rows": rows, "files": _sizes(self.run.path, _inside(self.run.path, files))}
        self._write()

    def forget(self, name: str) -> None:
        """Drop the measurements and the record of a stage and of all that depends on it; the artifact with its build.

        Graphs stay: the record of each says from what it was made.
        """
        gone = {name, *_AFTER.get(name, ())}
        if BUILD in gone:
            shutil.rmtree(self.run.path / ARTIFACT, ignore_errors=True)
        if gone & self._known.keys():
            self._known = {stage: record for stage, record in self._known.items() if stage not in gone}
            self._write()
        self.run.drop(*gone)

    def measured_again(self, name: str, rows: Iterable[Measurement], as_before: bool = True) -> None:
        """Put new measurements of a finished stage in the place of those of the same names.

        Measurements that were not taken `as_before` leave the stage unfinished: the next job repeats it.
        """
        rows = list(rows)
        self.run.drop(name, names={row.name for row in rows})
        self.run.add(rows, name)
        if name in self._known:
            self._known[name]["rows"] = sum(row.stage == name for row in self.run.measurements())
            self._known[name]["key"] = self._known[name]["key"] if as_before else ""
            self._write()

    def keep_graphs(self, names: Iterable[str]) -> None:
        """Delete the graphs in the folder that are none of these."""
        for file in set(_inside(self.run.path, [GRAPHS])) - set(names):
            (self.run.path / file).unlink(missing_ok=True)

    def _write(self) -> None:
        self.run.write(FILE, json.dumps(self._known, indent=2) + "\n")


def _read(run: Run) -> dict[str, dict[str, Any]]:
    """What the file says; a record that is not as written is a stage not finished."""
    try:
        found = json.loads(run.read(FILE) or "{}")
    except ValueError:
        return {}
    wanted = {"key": str, "rows": int, "files": dict}
    return {
        name: record
        for name, record in (found.items() if isinstance(found, dict) else ())
        if isinstance(record, dict) and all(isinstance(record.get(field), kind) for field, kind in wanted.items())
    }


def _inside(root: Path, names: Iterable[str]) -> list[str]:
    paths = [root / name for name in names]
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return [file.relative_to(root).as_posix() for file in files if file.is_file()]


def _sizes(root: Path, names: Iterable[str]) -> dict[str, int | None]:
    return {name: (root / name).stat().st_size if (root / name).is_file() else None for name in names}
