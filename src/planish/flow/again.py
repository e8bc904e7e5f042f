"""`planish bench`: the race of a run once more, without the model's own code or data."""

from __future__ import annotations

import tempfile
from pathlib import Path

from planish import bench as racing
from planish.bench.race import EAGER
from planish.errors import UserError
from planish.flow import stages
from planish.flow.batch import Call, call_of
from planish.flow.start import first_answers
from planish.flow.verbs import load
from planish.graph import Graph
from planish.measure import Progress
from planish.record import Measurement, Run
from planish.targets.cpu.artifact import CpuArtifact

TIMES = 3


def bench(path: Path, progress: Progress, batch: int | None = None, seconds: float = 8.0) -> Run:
    """Time the artifact of a run again, in turn with all that it was raced against, and start each afresh.

    Args:
        path: The run folder. Its graphs stand in for the model: no code of the user's is run.
        progress: Called with (done, total, what).
        batch: Rows in a call; None takes as many as before.
        seconds: About how long to race.

    Raises:
        UserError: The folder has no artifact, or no captured graph.
    """
    folder, captured = path / stages.ARTIFACT, path / stages.CAPTURED
    for place, what in ((folder, "no artifact to time"), (captured, "no captured graph to compare with")):
        if not place.exists():
            raise UserError(f"there is {what}", str(place), "planish compress MODEL --run DIR makes one")
    progress(0, 0, "loading the artifact and the graphs")
    artifact, original = load(folder), Graph.load(captured)
    if not isinstance(artifact, CpuArtifact):
        raise UserError("this is no artifact for a CPU", str(folder))
    if artifact.reached():
        raise UserError(
            "the time of a model with exits depends on its inputs, and a run folder keeps none of them",
            str(folder),
            "planish compress MODEL --recipe early-exit --run NEW",
        )
    run = Run(path)
    rows = [row for row in run.measurements() if row.name == "latency"]
    before = next((row.details.get("batch") for row in rows if row.details.get("role") == "chosen"), None)
    varies = bool(call_of(original).sizes)
    call = call_of(original, batch or (before if varies else None))
    small = _smallest(path, original)
    rivals: dict[str, CpuArtifact] = {}
    plain: set[str] = set()
    for row in rows:
        if row.subject in (artifact.label, EAGER):
            continue
        progress(0, 0, f"compiling {row.subject} again")
        of_original = row.details.get("precision") == "fp32"
        rival = racing.compiled_again(original if of_original else small, row, artifact)
        if rival is not None:
            rivals[row.subject] = rival
            plain |= {row.subject} if of_original else set()
    found = racing.race(
        artifact,
        rivals,
        original,
        (call.args, call.kwargs),
        baselines=frozenset(plain),
        seconds=seconds,
        progress=progress,
    )
    kept = stages.Stages(run)
    kept.measured_again(stages.BUILD, found, as_before=batch in (None, before))
    kept.measured_again(stages.START, _first_answers(path, artifact.label, rivals, found, call, progress))
    return run


def _smallest(path: Path, original: Graph) -> Graph:
    """The graph after the last step of the recipe; without a recipe, the original."""
    steps = [file for file in (path / stages.GRAPHS).glob("*.planish") if file.name.partition("-")[0].isdigit()]
    last = max(steps, key=lambda file: int(file.name.partition("-")[0]), default=None)
    return Graph.load(last) if last else original


def _first_answers(
    path: Path,
    chosen: str,
    rivals: dict[str, CpuArtifact],
    rows: list[Measurement],
    call: Call,
    progress: Progress,
) -> list[Measurement]:
    models = {chosen: path / stages.ARTIFACT, EAGER: path / stages.CAPTURED}
    with tempfile.TemporaryDirectory() as place:
        for row in rows:
            if row.name == "latency" and row.details["role"] == "baseline":
                models[row.subject] = rivals[row.subject].save(Path(place, "baseline"))
        return [row for answers in first_answers(models, call, TIMES, progress) for row in answers]
