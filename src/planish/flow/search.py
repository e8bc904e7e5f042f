"""`planish search` and `planish worker`: a space in a file, a model by name, and what to look for."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from planish.automl.budget import Budget
from planish.automl.search import Found, join, make, run_search
from planish.automl.storage import StorageError, opened, speaking
from planish.automl.study import Search
from planish.automl.tried import Tried
from planish.errors import OptionError, UntrustedFile
from planish.flow.source import resolve
from planish.frontends import capture
from planish.graph import Graph
from planish.models import factory
from planish.recipe import Recipe
from planish.record import Run
from planish.targets import Target

OWN = ("model", "data", "metric", "maximize", "minimize", "subject_to", "budget", "strategy")
REQUEST = "request"


@dataclass(frozen=True)
class Request:
    """All that describes a search, as plain data: what another process, or machine, needs to join it.

    Attributes:
        space: The recipe with holes, as TOML; or `file.py:function`, which returns one.
        model: As on a command line.
        maximize: Names of objectives.
        minimize: Likewise.
        subject_to: Constraints.
        strategy: A name.
        seed: Of all that is random.
        data: Replaces the task's.
        metric: Replaces the task's.
        trust: Allow a `.pt2` file.
    """

    space: str
    model: str
    maximize: tuple[str, ...] = ()
    minimize: tuple[str, ...] = ()
    subject_to: tuple[str, ...] = ()
    strategy: str = "auto"
    seed: int = 0
    data: str | None = None
    metric: str | None = None
    trust: bool = False

    @property
    def code(self) -> list[str]:
        """The Python files that it names."""
        return [text for text in (self.space, self.model, self.data or "", self.metric or "") if ".py:" in text]

    def make(self, target: Target | None = None) -> Search:
        """The search.

        Raises:
            PlanishError: Whatever is wrong with the space, the model or what is looked for.
        """
        recipe = _recipe(self.space)
        source = resolve(self.model, self.trust, self.data, self.metric)
        is_file = ".py:" in self.model
        holes = factory.holes_of(self.model) if is_file else {}
        if recipe.arguments and not is_file:
            raise OptionError("only a model in a file takes arguments", self.model, "file.py:function")
        if holes:
            given = {**holes, **recipe.arguments}
            recipe = Recipe(
                *(recipe.steps or [None]), target=recipe.target, arguments=given, name=recipe.name, about=recipe.about
            )
        model = partial(_captured, self.model) if recipe.arguments or source.decisions else None
        return make(
            recipe,
            None if model else source.graph,
            source.task,
            model,
            self.maximize,
            self.minimize,
            self.subject_to,
            self.strategy,
            target,
            seed=self.seed,
        )


def read_space(space: str) -> tuple[str, dict[str, Any]]:
    """A space and what its file says of the search: the text of the recipe, and the options of `[search]`.

    Args:
        space: A TOML file, a recipe's name, or `file.py:function`.

    Raises:
        OptionError: It cannot be read.
    """
    if ".py:" in space:
        return space, {}
    file = Path(space)
    if not (file.suffix == ".toml" or file.exists()):
        return Recipe.ready(space).to_toml(), {}
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"cannot read the space: {error.strerror}", space) from error
    except (ValueError, RecursionError) as error:
        raise OptionError(f"the space cannot be read: {error}", space) from error
    own = data.pop("search", {})
    if not isinstance(own, Mapping):
        raise OptionError("search is a table", f"{space}, [search]", 'model = "mlp"')
    if unknown := sorted(own.keys() - set(OWN)):
        raise OptionError(f"unknown option {unknown[0]!r}", f"{space}, [search]", f"known: {', '.join(OWN)}")
    return Recipe.from_data(data, space).to_toml(), dict(own)


def search(
    request: Request,
    run: Run,
    budget: str = "10min",
    workers: int = 1,
    storage: str | None = None,
    target: Target | None = None,
    watch: Callable[[Search, Sequence[Tried]], None] | None = None,
) -> Found:
    """Do a search; it goes on where an earlier one on the same folder or storage stopped.

    Raises:
        StorageError: The storage is of another search, locked or gone.
    """
    made = request.make(target)
    url = storage or f"sqlite:///{run.path / 'search.db'}"
    with opened(url) as kept:
        study = replace(made, storage=url).study(kept)
        if REQUEST not in study.user_attrs:
            study.set_user_attr(REQUEST, {**asdict(request), "budget": budget})
    return run_search(made, Budget.parse(budget), workers, run.path, url, watch, again=partial(request.make, target))


def work(
    storage: str, budget: str | None = None, trust: bool = False, watch: Callable[[Tried], None] | None = None
) -> None:
    """Join a search that is under way.

    Raises:
        StorageError: There is no search at the URL.
        UntrustedFile: The search names Python files, and nobody said that these may be run.
    """
    import optuna

    with opened(storage) as kept, speaking(storage):
        try:
            study = optuna.load_study(study_name="planish", storage=kept)
        except KeyError as error:
            raise StorageError(
                "there is no search in the storage", storage, "planish search SPACE --storage URL"
            ) from error
        told = dict(study.user_attrs.get(REQUEST, {}))
    if not told:
        raise StorageError("the search was started from Python, which only that program can join", storage)
    given = str(told.pop("budget"))
    options: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
    request = Request(**options)
    if request.code and not trust:
        raise UntrustedFile(
            f"the search runs code of {', '.join(request.code)}", storage, "--trust, if you know these files"
        )
    join(request.make, Budget.parse(budget or given), storage, watch)


def _recipe(space: str) -> Recipe:
    if ".py:" not in space:
        return Recipe.from_data(tomllib.loads(space), "space")
    made = factory.load_function(space)()
    if isinstance(made, Recipe):
        return made
    raise OptionError(f"the function returned {type(made).__name__}", space, "return planish.Recipe(...) with holes")


def _captured(model: str, **arguments: Any) -> Graph:
    task = factory.from_file(model, arguments)
    return capture(task.model, (task.args, task.kwargs), dynamic=task.dynamic, training=False)
