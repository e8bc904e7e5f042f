"""`planish.search`: fill the holes of a recipe as well as they can be.

found = planish.search(
    Recipe(Quantize(weights=each("int2", "int4", "int8"))), task="mlp", minimize="bytes", budget="200 trials"
)
print(found)                    # the front, as a table
small = found.best.recipe(graph, data=calibration)
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna

from planish.automl.budget import Budget
from planish.automl.filling import Filled, Model
from planish.automl.objective import BUILT, Judge, Made, Subject, constraint, objective
from planish.automl.pareto import hypervolume
from planish.automl.relaxed import relax
from planish.automl.shared import Shared
from planish.automl.space import Space
from planish.automl.storage import opened
from planish.automl.study import Search
from planish.automl.tried import Tried, best_first, nearest, plain_row, tried
from planish.automl.worker import Interrupted, Worker
from planish.errors import OptionError, PlanishError
from planish.frontends import capture
from planish.graph import Data, Graph
from planish.models.task import Task
from planish.recipe import Recipe
from planish.record import Measurement, Run, environment
from planish.targets import Target

DATABASE, TRIALS = "search.db", "trials.jsonl"
RELAXED, FINALISTS = "relaxed", 5
"""What a supernet chose, and how many of its points are made on their own where the budget does not say."""
LISTED = 12


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        search: What was searched.
        trials: All trials, in the order in which they began.
        note: What a strategy with shared weights says against its own result, "collapsed ..." for example.
    """

    search: Search
    trials: tuple[Tried, ...]
    note: str = ""

    @property
    def front(self) -> list[Tried]:
        """The trials that hold all constraints and that no other dominates, best in the first objective first."""
        return best_first(self.trials)

    @property
    def nearest(self) -> Tried | None:
        """Where nothing holds all constraints: what misses them by least."""
        return None if self.front else nearest(self.trials)

    @property
    def best(self) -> Recipe:
        """The recipe that is best in the first objective.

        Raises:
            OptionError: Nothing holds all constraints; tells what came nearest.
        """
        if not self.front:
            close = self.nearest
            missed = close and ", ".join(
                f"{text} by {value:.0%}" for text, value in close.violations.items() if value > 0
            )
            told = f"trial {close.number} ({close.id}) misses {missed}" if close else "no trial was completed"
            raise OptionError("nothing holds all constraints", told, "a looser bound, more options or a larger budget")
        return self.recipe(self.front[0])

    def recipe(self, trial: Tried) -> Recipe:
        """The recipe of a trial, without holes."""
        return self.search.space.fill(trial.point)

    def graph(self, trial: Tried) -> Graph:
        """The compressed graph of a trial."""
        filled = self.search.space.made(lambda decision: trial.point[decision.name])
        subject = self.search.subject
        return filled.recipe(filled.graph, subject.calibration, training=subject.training)

    def original(self) -> dict[str, Measurement]:
        """The objectives of the model as it was; what is dear or does not apply to it is left out."""
        graph, rows = self.search.space.graph, {}
        if graph is None:
            return rows
        made = Made(Filled({}, Recipe(None), graph), self.search.subject)
        for each in self.search.objectives:
            if each.level != BUILT:
                with suppress(PlanishError):
                    rows[each.name] = each.measure(made)
        return rows

    def hypervolume(self, reference: Sequence[float]) -> float:
        """Volume that the front covers up to a reference, one loss for each objective (less is better)."""
        return hypervolume([trial.losses for trial in self.front], reference)

    def __str__(self) -> str:
        names = [each.name for each in self.search.objectives]
        complete = sum(trial.state == "complete" for trial in self.trials)
        lines = [f"{len(self.trials)} trials, {complete} complete, {len(self.front)} on the front"]
        lines.append("  ".join(["trial", f"{'point':10}", *(f"{name:>12}" for name in names)]))
        for trial in self.front[:LISTED]:
            values = [f"{trial.rows[name].value:12.5g}" for name in names]
            lines.append("  ".join([f"{trial.number:5}", f"{trial.id:10}", *values]))
        return "\n".join(lines)


Watch = Callable[[Search, Sequence[Tried]], None]
"""Called with all trials so far, whenever there is news."""


def search(
    recipe: Recipe,
    graph: Graph | None = None,
    *,
    task: Task | None = None,
    model: Model | None = None,
    maximize: str | Judge | Sequence[str | Judge] = (),
    minimize: str | Judge | Sequence[str | Judge] = (),
    subject_to: str | Sequence[str] = (),
    budget: str | int | Budget = "10min",
    strategy: str | optuna.samplers.BaseSampler = "auto",
    target: Target | None = None,
    calibration: Data | None = None,
    training: Data | None = None,
    validation: Data = (),
    workers: int = 1,
    run: str | os.PathLike[str] | None = None,
    storage: str | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> Found:
    """Find what to put in the holes of a recipe. The same call on the same folder goes on where it stopped.

    Args:
        recipe: With holes.
        graph: The model; by default the task's, captured.
        task: Its calibration, training and validation data and its metrics are used where nothing else is given.
        model: Instead of a graph: makes one, with the recipe's `arguments`; decisions may stand in it.
        maximize: Objectives (`planish.automl.objective`): names, or functions of `(model, validation)` or `(model)`.
            If nothing at all is asked for: the task's quality.
        minimize: Likewise; without either, "bytes".
        subject_to: Constraints, "latency < 2 ms".
        budget: "20min", "200 trials" or both; of trials, those of earlier runs count.
        strategy: A name (`planish.automl.strategies`), or any sampler of Optuna's.
        target: What points are built for, where the recipe does not say.
        calibration: For passes that look at activations.
        training: For passes that learn.
        validation: `(args, kwargs, target)` that quality is judged on while searching. Judge what you choose on others.
        workers: Processes on this machine. More than one need a `run` or a `storage`.
        run: Folder for the study (`search.db`), the trials and the recipes of the front.
        storage: URL of a database instead of the folder's own; any number of machines may join.
        seed: Of all that is random. A search by one worker with a budget of trials repeats bit for bit, interrupted or
            not, if its objectives do.
        options: Of the strategy.
        watch: Told all trials so far after each one.

    Raises:
        OptionError: Something asked for does not exist, contradicts, or there is nothing to decide.
        StorageError: The storage is locked, gone, or of another search.
        EngineError: Each of the first trials failed.
    """
    again = partial(
        make, recipe, graph, task, model, maximize, minimize, subject_to, strategy, target, calibration, training,
        validation, seed, options,
    )  # fmt: skip
    return run_search(again(), Budget.parse(budget), workers, run, storage, watch, again)


def make(
    recipe: Recipe,
    graph: Graph | None = None,
    task: Task | None = None,
    model: Model | None = None,
    maximize: str | Judge | Sequence[str | Judge] = (),
    minimize: str | Judge | Sequence[str | Judge] = (),
    subject_to: str | Sequence[str] = (),
    strategy: str | optuna.samplers.BaseSampler = "auto",
    target: Target | None = None,
    calibration: Data | None = None,
    training: Data | None = None,
    validation: Data = (),
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Search:
    """The search that these arguments of `search` describe, checked."""
    if graph is None and model is None and task is not None:
        graph = capture(task.model, (task.args, task.kwargs), dynamic=task.dynamic)
    subject = Subject(
        calibration=calibration or (task.calibration if task else None) or None,
        training=training or (task.training if task else None) or None,
        validation=validation or (task.validation if task else ()),
        target=target,
        task=task,
        shared=Shared(),
    )
    up, down = _listed(maximize), _listed(minimize)
    if not up and not down:
        up, down = (["quality"] if task else []), ["bytes"]
    objectives = [objective(each, "maximize", subject) for each in up]
    objectives += [objective(each, "minimize", subject) for each in down]
    constraints = [constraint(each, subject) for each in _listed(subject_to)]
    space = Space(recipe, graph if model is None else None, model)
    return Search(space, subject, objectives, constraints, strategy, seed, None, options or {})


def run_search(
    made: Search,
    budget: Budget,
    workers: int = 1,
    run: str | os.PathLike[str] | None = None,
    storage: str | None = None,
    watch: Watch | None = None,
    again: Callable[[], Search] | None = None,
) -> Found:
    """Do a search.

    Args:
        made: What to do.
        budget: How much of it.
        workers: Processes.
        run: Folder.
        storage: URL of a database; by default a file in the folder.
        watch: Told all trials so far after each one.
        again: Makes the search in another process; needed for more than one worker.

    Raises:
        OptionError: Several processes have nowhere to meet, or the search cannot be sent to them.
    """
    folder = Run(run) if run is not None else None
    url = storage or (f"sqlite:///{Path(folder.path, DATABASE)}" if folder else None)
    if workers > 1 and url is None:
        raise OptionError(f"{workers} workers need a place to meet", "workers", "run='runs/a'")
    made = replace(made, storage=url)
    with opened(url) as kept:
        study = made.study(kept)
        began = time.monotonic()
        if made.is_relaxed:
            budget = _relaxed(made, study, budget)

        def told(_: Tried | None = None) -> None:
            if watch:
                watch(made, _trials(study, made))

        helpers = _helpers(again, budget, url, workers - 1)
        try:
            Worker(made, study, kept).work(budget, told, adopt=True)
        except (KeyboardInterrupt, Interrupted):
            for process in helpers:
                process.terminate()
        finally:
            for process in helpers:
                while process.is_alive():
                    process.join(0.5)
                    told()
            found = Found(made, _trials(study, made), study.user_attrs.get(RELAXED, {}).get("note", ""))
            if folder:
                write(folder, found, time.monotonic() - began)
    return found


def _relaxed(made: Search, study: optuna.Study, budget: Budget) -> Budget:
    """Search the supernet, and have the best of its points made on their own; the budget for these."""
    told = study.user_attrs.get(RELAXED)
    if told is None:
        assert isinstance(made.strategy, str), "a relaxation has a name"
        result = relax(made.strategy, made.space, made.subject, made.seed, None, **made.options)
        ranked = [result.point, *(point for point, _ in result.ranking)]
        points = [point for place, point in enumerate(ranked) if point not in ranked[:place]]
        told = {"note": result.note, "points": points[: budget.trials or FINALISTS]}
        for point in told["points"]:
            study.enqueue_trial(point, skip_if_exists=True)
        study.set_user_attr(RELAXED, told)
    return replace(budget, trials=len(told["points"]))


def write(folder: Run, found: Found, seconds: float) -> None:
    """Leave what was found in a run folder: trials, the space, and the recipes of the front."""
    folder.write("environment.json", json.dumps(environment(seed=found.search.seed), indent=2) + "\n")
    trials = "".join(json.dumps(trial.to_data()) + "\n" for trial in found.trials)
    folder.write(TRIALS, trials)
    folder.write("space.toml", found.search.space.recipe.to_toml())
    described = {**found.search.to_data(), "strategy": str(found.search.strategy), "seed": found.search.seed}
    described |= {"size": found.search.space.size, "seconds": seconds, "front": [trial.number for trial in found.front]}
    described["original"] = {name: plain_row(row) for name, row in found.original().items()}
    folder.write("search.json", json.dumps(described, indent=2) + "\n")
    for place, trial in enumerate(found.front):
        text = found.recipe(trial).to_toml()
        folder.write(f"front/{trial.id}.toml", text)
        if place == 0:
            folder.write("recipe.toml", text)


def join(make: Callable[[], Search], budget: Budget, url: str, watch: Callable[[Tried], None] | None = None) -> None:
    """Do trials of a search that is under way elsewhere, in this process."""
    made = replace(make(), storage=url)
    with opened(url) as kept, suppress(KeyboardInterrupt, Interrupted):
        Worker(made, made.study(kept), kept).work(budget, watch)


def _helpers(make: Callable[[], Search] | None, budget: Budget, url: str | None, count: int) -> Sequence[BaseProcess]:
    context = multiprocessing.get_context("spawn")  # a fork of a process that ran torch can hang
    processes = [context.Process(target=join, args=(make, budget, url), daemon=True) for _ in range(count)]
    for process in processes:
        try:
            process.start()
        except (AttributeError, TypeError, OSError, RuntimeError, pickle.PicklingError) as error:
            raise OptionError(
                f"the search cannot be sent to another process: {error}",
                "workers",
                "functions of a module, or workers=1",
            ) from error
    return processes


def _trials(study: optuna.Study, made: Search) -> tuple[Tried, ...]:
    return tuple(tried(trial, made.signs) for trial in study.get_trials(deepcopy=False))


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
