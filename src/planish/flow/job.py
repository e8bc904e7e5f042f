"""The main job, in stages: capture, analyze, compress, build, measure, judge. Each leaves its numbers in the run folder.

Every row is on disk as soon as it is known, so that an interrupted run can be read; the same command then takes the
analysis of the unchanged model from the folder instead of repeating it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from planish import analysis
from planish.errors import DataError
from planish.flow.source import Source
from planish.graph import Graph
from planish.record import Measurement, Run, environment
from planish.recipe import Recipe
from planish.targets import Artifact, Target

Progress = Callable[[int, int, str], None]
SENSITIVITY_FORMATS = ("int8", "int4")
SEED = 0


def begin(run: Run, source: Source) -> None:
    """Write what the run is about: the environment, the graph as text, and the model's row."""
    graph, task = source.graph, source.task
    parameters = sum(graph.tensors[name].numel() for name in graph.parameter_names)
    details = {"task": task.description if task else "", "family": task.family if task else "", "key": _key(graph)}
    run.write("environment.json", json.dumps(environment(seed=SEED), indent=2) + "\n")
    run.write("graph.txt", f"{graph}\n")
    run.add(Measurement("model", parameters, "1", "exact", subject=source.name, details=details))
    run.add(Measurement("size", _bytes(graph), "B", "exact", subject="original"))


def analyze(run: Run, source: Source, progress: Progress, threads: int = 1) -> analysis.Cost:
    """Cost, roofline and measured time of every operation of the unchanged model."""
    graph = source.graph
    cost = analysis.analyze(graph)
    progress(0, 0, "measuring what this machine can do")
    peaks = analysis.peaks(threads=threads)
    run.add(peaks.measurements())
    run.add(cost.measurements(peaks))
    run.add(analysis.profile(graph, progress=_named(progress, "timing each operation")).measurements())
    return cost


def sensitivity(run: Run, source: Source, progress: Progress, items: int = 2) -> None:
    """What each layer loses in each format, on the first items of the calibration data."""
    if source.task is None or not source.task.calibration:
        return
    data = [(item[0], item[1]) for item in itertools.islice(source.task.calibration, items)]
    named = _named(progress, "sensitivity of each layer")
    run.add(analysis.sensitivity(source.graph, data, SENSITIVITY_FORMATS, progress=named).measurements())


def is_analyzed(run: Run, source: Source) -> bool:
    """Whether the folder holds a whole analysis of this very graph, made on this machine."""
    rows = run.measurements()
    keys = [row.details.get("key") for row in rows if row.name == "model"]
    done = {row.name for row in rows}
    return bool(keys) and keys[-1] == _key(source.graph) and {"node_time", "sensitivity"} <= done


def compress(run: Run, source: Source, recipe: Recipe, progress: Progress) -> Graph:
    """Apply the recipe, calibrated on the task's data, and record the bits of every layer.

    Raises:
        DataError: The source has no calibration data.
    """
    if source.task is None or not source.task.calibration:
        raise DataError("there is no data to calibrate on", source.name, "--data file.py:function")
    run.write("recipe.toml", recipe.to_toml())
    small = recipe(source.graph, data=source.task.calibration, progress=progress)
    run.add(bits(small))
    return small


def bits(graph: Graph) -> list[Measurement]:
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
            rows.append(Measurement(name, width, "bit", "exact", None, "chosen", node.path, {**details, "format": label}))
    return rows


def judge(run: Run, source: Source, artifact: Artifact, progress: Progress) -> None:
    """The task's metrics for the unchanged model and for the artifact."""
    if source.task is None or not source.task.evaluation:
        return
    for place, (subject, model) in enumerate({"original": None, "chosen": artifact}.items()):
        progress(place, 2, f"judging the {subject} model")
        run.add(source.task.judge(model, subject))


def _named(progress: Progress, what: str) -> Progress:
    return lambda done, total, now: progress(done, total, f"{what}: {now}" if now else what)


def _bytes(graph: Graph) -> int:
    tensors = {tensor.data_ptr(): tensor for name, tensor in graph.tensors.items() if name in graph.parameter_names}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _key(graph: Graph) -> str:
    """Tells one graph from another by its operations and its weights' sums."""
    sums = [f"{name} {float(tensor.detach().double().sum())!r}" for name, tensor in sorted(graph.tensors.items())]
    return hashlib.sha256("\n".join([str(graph), *sums]).encode()).hexdigest()[:16]
