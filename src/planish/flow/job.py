"""The main job, in stages: analyze, compress, build, measure, judge. Each leaves its numbers in the run folder.

Every row is on disk as soon as it is known, so that an interrupted run can be read; the same command then takes the
analysis of the unchanged model from the folder instead of repeating it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path

from planish import analysis
from planish.errors import DataError, UserError
from planish.flow.choices import default_recipe
from planish.flow.source import Source
from planish.flow.verbs import load
from planish.graph import Graph
from planish.recipe import Recipe
from planish.record import Measurement, Run, environment
from planish.targets import Artifact, Target

Progress = Callable[[int, int, str], None]
SENSITIVITY_FORMATS = ("int8", "int4")
SENSITIVITY_ITEMS = 1
SEED = 0


def analyze(run: Run, source: Source, progress: Progress) -> analysis.Cost:
    """Count what the model costs, and time each of its operations."""
    _begin(run, source)
    return _analyze(run, source, progress)


def compress(run: Run, source: Source, recipe: Recipe | None, target: Target, progress: Progress) -> Artifact:
    """Make a model smaller and faster, and prove it: the whole main job.

    Args:
        run: The folder; an analysis of the same model in it is not repeated.
        source: The model with its task.
        recipe: What to do to it; None takes 8-bit weights and activations.
        target: What to build it for.
        progress: Called with (done, total, what).

    Raises:
        DataError: There is no calibration data.
        EngineError: No engine of the target takes the result.
    """
    if source.task is None or not source.task.calibration:
        raise DataError("there is no data to calibrate on", source.name, "file.py:function that returns a planish.Task")
    chosen = recipe or default_recipe(source.graph)
    chosen.plan(source.graph)  # a selector that matches nothing is said now, not in a minute
    known = _is_analyzed(run, source)
    _begin(run, source)
    run.write("recipe.toml", chosen.to_toml())
    if not known:
        _analyze(run, source, progress)
        _sensitivity(run, source, progress)
    small = chosen(source.graph, data=source.task.calibration, progress=_named(progress, "quantizing"))
    run.add(_bits(small))
    return _build(run, source, small, target, progress)


def build(run: Run, source: Source, target: Target, progress: Progress) -> Artifact:
    """Build a model as it is, and judge what comes out."""
    _begin(run, source)
    return _build(run, source, source.graph, target, progress)


def bench(run_path: Path, progress: Progress) -> Run:
    """Time the artifact of a run once more, and record it.

    Raises:
        UserError: The folder has no artifact.
    """
    folder = run_path / "artifact"
    if not folder.is_dir():
        raise UserError("there is no artifact to time", str(folder), "planish compress MODEL --run DIR makes one")
    artifact = load(folder)
    if isinstance(artifact, Graph):
        raise UserError("this is a graph, not an artifact", str(folder))
    progress(0, 0, "timing the artifact")
    run = Run(run_path)
    run.add(artifact.measure())
    return run


def _build(run: Run, source: Source, graph: Graph, target: Target, progress: Progress) -> Artifact:
    task, folder = source.task, run.path / "artifact"
    data = task.calibration if task and task.calibration else None
    artifact = target.build(graph, data=data, original=source.graph, folder=folder, progress=progress)
    run.add(artifact.measurements)
    if task is not None and task.evaluation:
        for place, (subject, model) in enumerate({"original": None, "chosen": artifact}.items()):
            progress(place, 2, f"judging the {subject} model on {getattr(task.evaluation, 'description', 'its data')}")
            run.add(task.judge(model, subject))
    return artifact


def _begin(run: Run, source: Source) -> None:
    """Write what the run is about: the environment, the graph as text, and the model's row."""
    graph, task = source.graph, source.task
    parameters = sum(graph.tensors[name].numel() for name in graph.parameter_names)
    details = {"task": task.description if task else "", "family": task.family if task else "", "key": _key(graph)}
    run.write("environment.json", json.dumps(environment(seed=SEED), indent=2) + "\n")
    run.write("graph.txt", f"{graph}\n")
    run.add(Measurement("model", parameters, "1", "exact", subject=source.name, details=details))
    run.add(Measurement("size", _bytes(graph), "B", "exact", subject="original"))


def _analyze(run: Run, source: Source, progress: Progress) -> analysis.Cost:
    """Cost, roofline and measured time of every operation of the unchanged model."""
    graph = source.graph
    cost = analysis.analyze(graph)
    progress(0, 0, "measuring what this machine can do")
    peaks = analysis.peaks()
    run.add(peaks.measurements())
    run.add(cost.measurements(peaks))
    told = _named(progress, "timing each operation")
    run.add(analysis.profile(graph, progress=told, threads=peaks.threads).measurements())  # to compare with the peaks
    return cost


def _sensitivity(run: Run, source: Source, progress: Progress) -> None:
    """What each layer loses in each format, on the first items of the calibration data."""
    if source.task is None or not source.task.calibration:
        return
    data = [(item[0], item[1]) for item in itertools.islice(source.task.calibration, SENSITIVITY_ITEMS)]
    named = _named(progress, "sensitivity of each layer")
    run.add(analysis.sensitivity(source.graph, data, SENSITIVITY_FORMATS, progress=named).measurements())


def _is_analyzed(run: Run, source: Source) -> bool:
    """Whether the folder holds a whole analysis of this very graph, made on this machine."""
    rows = run.measurements()
    keys = [row.details.get("key") for row in rows if row.name == "model"]
    done = {row.name for row in rows}
    return bool(keys) and keys[-1] == _key(source.graph) and {"node_time", "sensitivity"} <= done


def _bits(graph: Graph) -> list[Measurement]:
    """`weight_bits` and `activation_bits` of every layer with a weight; what is not cast has the bits of its dtype."""
    rows = []
    for node in graph.nodes:
        if node.weight is None:
            continue
        details = {"node": node.name, "op": node.op, "type": node.module_type}
        for name, operand in (("weight_bits", node.weight), ("activation_bits", node.input)):
            if operand is None or operand.dtype is None or not operand.dtype.is_floating_point:
                continue
            form = operand.format
            width = form.bits if form else operand.dtype.itemsize * 8
            label = str(form) if form else str(operand.dtype).removeprefix("torch.")
            rows.append(
                Measurement(name, width, "bit", "exact", None, "chosen", node.path, {**details, "format": label})
            )
    return rows


def _named(progress: Progress, what: str) -> Progress:
    return lambda done, total, now: progress(done, total, f"{what}: {now}" if now else what)


def _bytes(graph: Graph) -> int:
    tensors = {tensor.data_ptr(): tensor for name, tensor in graph.tensors.items() if name in graph.parameter_names}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _key(graph: Graph) -> str:
    """Tells one graph from another by its operations and its weights' sums."""
    sums = [f"{name} {float(tensor.detach().double().sum())!r}" for name, tensor in sorted(graph.tensors.items())]
    return hashlib.sha256("\n".join([str(graph), *sums]).encode()).hexdigest()[:16]
