"""The main job, in stages: analyze, compress, build, judge, start. Each leaves its numbers in the run folder.

Every row is on disk as soon as it is known, so that an interrupted run can be read; the same command then goes on after
the last stage that was finished, and a changed one repeats what depends on the change.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import cached_property
from typing import Literal

from planish import analysis
from planish.errors import DataError
from planish.flow import keys, stages
from planish.flow.batch import call_of, checked
from planish.flow.choices import default_recipe
from planish.flow.judge import judged
from planish.flow.kept import KeptGraphs, keep
from planish.flow.rows import bits, model_rows, observed
from planish.flow.source import Source
from planish.flow.start import starts
from planish.flow.verbs import load
from planish.graph import Graph
from planish.models.task import Task
from planish.recipe import Plan, Recipe
from planish.record import Run, environment
from planish.targets import Artifact, Target
from planish.targets.cpu import CpuArtifact

Progress = Callable[[int, int, str], None]
SENSITIVITY_FORMATS = ("int8", "int4")
SENSITIVITY_ITEMS = 1
SEED = 0


class Job:
    """One command at work on one run folder.

    Args:
        run: The folder; what was finished in it and still holds is not repeated.
        source: The model with its task.
        progress: Called with (done, total, what).

    Attributes:
        notes: What the user should know besides the numbers.
    """

    def __init__(self, run: Run, source: Source, progress: Progress) -> None:
        self.run, self.source, self.progress = run, source, progress
        self.stages = stages.Stages(run)
        self.call = call_of(source.graph, source.batch)
        self.notes: list[str] = []

    @property
    def reused(self) -> list[str]:
        """Stages taken from the folder."""
        found = [name for name in self.stages.reused if name not in (stages.MODEL, stages.CAPTURE)]
        return [name for name in found if not (stages.RECIPE in found and name.startswith("step "))]

    @cached_property
    def graph_key(self) -> str:
        """Of the model as it was captured."""
        return keys.graph_key(self.source.graph)

    @cached_property
    def data_key(self) -> str:
        """Of the calibration data, every item of which is read and checked for it."""
        return self._checked_key("calibration")

    @cached_property
    def judge_key(self) -> str:
        """Of the evaluation data, likewise, and of the metrics."""
        task = self.source.task
        return keys.key(self._checked_key("evaluation"), keys.metrics_key(task)) if task else ""

    def _checked_key(self, role: str) -> str:
        task = self.source.task
        return keys.data_key(checked(getattr(task, role), self.source.graph, role)) if task else ""

    def begin(self, keep_graph: bool = True) -> None:
        """Write what the run is about. A folder of another model is emptied of that model's numbers."""
        graph = self.source.graph
        key = keys.key(self.graph_key, self.source.name)
        self.run.write("environment.json", json.dumps(environment(seed=SEED), indent=2) + "\n")
        if not self.stages.has(stages.MODEL, key):
            with self.stages.doing(stages.MODEL, key) as add:
                self.run.write("graph.txt", f"{graph}\n")
                add(model_rows(self.source))
        key = keys.key(key, keys.computing())
        if keep_graph and not self.stages.has(stages.CAPTURE, key):
            self.notes += keep(self.stages, stages.CAPTURE, key, stages.CAPTURED, graph)

    def without_recipe(self) -> None:
        """Forget the recipe that a compression left in the folder, and what was built by it."""
        if self.stages.knows(stages.RECIPE):
            self.stages.forget(stages.RECIPE)
        self.run.remove("recipe.toml")

    def analyze(self) -> None:
        """Cost, roofline and measured time of every operation of the unchanged model."""
        graph, sizes = self.source.graph, self.call.sizes
        key = keys.key(self.graph_key, sizes, keys.running())
        if self.stages.has(stages.ANALYSIS, key):
            return
        with self.stages.doing(stages.ANALYSIS, key) as add:
            cost = analysis.analyze(graph, sizes)
            self.progress(0, 0, "measuring what this machine can do")
            peaks = analysis.peaks()
            told = _named(self.progress, "timing each operation")
            call = (self.call.args, self.call.kwargs)
            profile = analysis.profile(graph, call, progress=told, threads=peaks.threads)  # as the peaks were measured
            peaks = peaks.raised(observed(cost, profile))
            add([*peaks.measurements(), *cost.measurements(peaks), *profile.measurements()])

    def sensitivity(self, task: Task) -> None:
        """What each layer loses in each format, on the first items of the calibration data."""
        key = keys.key(self.graph_key, self.data_key, SENSITIVITY_FORMATS, SENSITIVITY_ITEMS, keys.computing())
        if self.stages.has(stages.SENSITIVITY, key):
            return
        with self.stages.doing(stages.SENSITIVITY, key) as add:
            data = [(item[0], item[1]) for item in itertools.islice(task.calibration, SENSITIVITY_ITEMS)]
            told = _named(self.progress, "sensitivity of each layer")
            add(analysis.sensitivity(self.source.graph, data, SENSITIVITY_FORMATS, progress=told).measurements())

    def apply(self, recipe: Recipe, task: Task) -> tuple[str, Callable[[], Graph]]:
        """Apply a recipe from its first step that is not in the folder.

        Returns:
            The key of what comes out, and a function that gives it.
        """
        training = task.training if recipe.learns and task.training else None
        data_key = keys.key(self.data_key, self._checked_key("training")) if training else self.data_key
        kept = KeptGraphs(self.stages, recipe, self.graph_key, data_key)
        told = _named(self.progress, "compressing")

        def small() -> Graph:
            return recipe(self.source.graph, task.calibration, told, kept, training)

        if not self.stages.has(stages.RECIPE, kept.key):
            with self.stages.doing(stages.RECIPE, kept.key) as add:
                self.run.write("recipe.toml", recipe.to_toml())
                graph = small()
                add(bits(graph))
            self.stages.keep_graphs([stages.CAPTURED, *kept.files])
            self.notes += kept.notes
            return kept.key, lambda: graph
        return kept.key, small

    def build(self, graph_key: str, graph: Callable[[], Graph], target: Target) -> None:
        """Build for the target; every engine that takes the graph is checked and raced there."""
        key = keys.key(graph_key, self.graph_key, self.data_key, repr(target), keys.running())
        if self.stages.has(stages.BUILD, key):
            return
        task, folder = self.source.task, self.run.path / stages.ARTIFACT
        data = task.calibration if task and task.calibration else None
        small = graph()
        with self.stages.doing(stages.BUILD, key, stages.ARTIFACT) as add:
            self.artifact = target.build(
                small, data=data, original=self.source.graph, folder=folder, progress=self.progress
            )
            add(self.artifact.measurements)

    def judge(self, subject: Literal["original", "chosen"]) -> None:
        """The quality of the original or of the artifact, where the task has data to judge on."""
        task = self.source.task
        if task is None or not task.evaluation:
            return
        original = subject == "original"
        model_key = self.graph_key if original else keys.folder_key(self.run.path / stages.ARTIFACT)
        name, key = stages.QUALITY[subject], keys.key(model_key, self.judge_key, keys.running())
        if self.stages.has(name, key):
            return
        self.progress(0, 0, f"judging the {subject} model on {getattr(task.evaluation, 'description', 'its data')}")
        with self.stages.doing(name, key) as add:
            add(judged(task, None if original else self.artifact, subject))
            if not original and isinstance(self.artifact, CpuArtifact):
                add(self.artifact.reached())

    def start(self, target: Target) -> None:
        """Cold start and peak memory of the artifact, of the best fp32 engine and of eager PyTorch."""
        if not target.runs_here:
            return
        key = keys.key(keys.folder_key(self.run.path / stages.ARTIFACT), self.graph_key, repr(target), keys.running())
        if self.stages.has(stages.START, key):
            return
        with self.stages.doing(stages.START, key) as add:
            for rows in starts(self.run, self.source.task, self.source.graph, target, self.call, self.progress):
                add(rows)

    @cached_property
    def artifact(self) -> Artifact:
        """What was built, from the folder."""
        loaded = load(self.run.path / stages.ARTIFACT)
        assert not isinstance(loaded, Graph), "a folder is an artifact"
        return loaded


def analyze(run: Run, source: Source, progress: Progress) -> Job:
    """Count what the model costs, and time each of its operations."""
    job = Job(run, source, progress)
    job.begin(keep_graph=False)
    job.analyze()
    return job


def plan(source: Source, recipe: Recipe | None, target: Target) -> Plan:
    """What a recipe, or the target's default one, would do to a model.

    Raises:
        OptionError: A pass would touch nothing, or cannot follow those before it.
    """
    return (recipe or default_recipe(source.graph, target)).plan(source.graph)


def compress(run: Run, source: Source, recipe: Recipe | None, target: Target, progress: Progress) -> Job:
    """Make a model smaller and faster, and prove it: the whole main job.

    Args:
        run: The folder; what was finished in it by the same arguments is not repeated.
        source: The model with its task.
        recipe: What to do to it; None takes 8-bit weights and activations.
        target: What to build it for.
        progress: Called with (done, total, what).

    Raises:
        DataError: There is no calibration data.
        EngineError: No engine of the target takes the result.
    """
    task = source.task
    if task is None or not task.calibration:
        raise DataError("there is no data to calibrate on", source.name, "file.py:function that returns a planish.Task")
    chosen = recipe or default_recipe(source.graph, target)
    plan(source, chosen, target)  # a selector that matches nothing is said now, not in a minute
    job = Job(run, source, progress)
    _ = job.data_key, job.judge_key  # data that is not right is said now, too
    job.begin()
    job.analyze()
    job.judge("original")  # before the long part: a metric that does not fit the data is said now
    job.sensitivity(task)
    key, small = job.apply(chosen, task)
    job.build(key, small, target)
    job.judge("chosen")
    job.start(target)
    return job


def build(run: Run, source: Source, target: Target, progress: Progress) -> Job:
    """Build a model as it is, and judge what comes out."""
    job = Job(run, source, progress)
    _ = job.data_key, job.judge_key
    job.begin()
    job.without_recipe()
    job.judge("original")
    job.build(job.graph_key, lambda: source.graph, target)
    job.judge("chosen")
    job.start(target)
    return job


def _named(progress: Progress, what: str) -> Progress:
    return lambda done, total, now: progress(done, total, f"{what}: {now}" if now else what)
