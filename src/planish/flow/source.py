"""MODEL on a command line: a name, a directory, a file or a function of the user's, made a graph with its task.

Only two of these run code that came with the model: a Python file that the user names, and a `.pt2` with `--trust`.
"""

from __future__ import annotations

import inspect
import io
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from planish.errors import DataError, ModelError, OptionError, PlanishError, UnknownName, UntrustedFile
from planish.flow.batch import call_of
from planish.frontends import capture
from planish.graph import Graph
from planish.holes import Hole, answered, answering
from planish.models import factory, models, pretrained
from planish.models.task import Task

LATER = {".onnx": "ONNX", ".keras": "Keras", ".h5": "Keras"}
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib")
ROLES = ("calibration", "evaluation", "validation")


@dataclass(frozen=True)
class Source:
    """What a MODEL turned out to be.

    Attributes:
        name: For reports and for the default run folder.
        graph: The captured model.
        task: Its data and metric; None for a file that holds a graph only.
        batch: Rows of a call that is timed; None takes 1 where the batch varies.
        decisions: Names of the decisions that the model's own code asked for.
    """

    name: str
    graph: Graph
    task: Task | None = None
    batch: int | None = None
    decisions: frozenset[str] = frozenset()


def resolve(
    model: str,
    trust: bool = False,
    data: str | None = None,
    metric: str | None = None,
    batch: int | None = None,
    answers: Mapping[str, Any] | None = None,
    training: bool = False,
) -> Source:
    """Load and capture a MODEL.

    Args:
        model: A registered name, a local transformers directory or hub id, a `.planish` or `.pt2` file, or
            `file.py:function`.
        trust: Allow a `.pt2` file, whose loader can run code from it.
        data: `file.py:function` that replaces the task's data; it returns a re-iterable, used for calibration and
            evaluation both, or a dict with any of "calibration", "evaluation" and "validation".
        metric: The name of a metric, or `file.py:function` that judges as `metric(callable, data) -> Measurement`.
        batch: Rows of a call that is timed; None takes 1 where the batch varies.
        answers: What a recipe says of the decisions in a model of the user's (`Recipe.arguments`); those that it does
            not say are as their first options.
        training: Capture training mode too.

    Raises:
        OptionError: A batch is asked of a model whose batch is fixed.
        ModelError: It cannot be read or captured, or is of a kind that this version does not take.
        UntrustedFile: It could run code.
        UnknownName: It is none of these.
    """
    asked: dict[str, Hole] = {}

    def answer(hole: Hole, name: str) -> Any:
        asked[name] = hole
        return answered(hole, (answers or {}).get(name))

    with answering(answer):
        return replace(
            _resolved(model, trust, data, metric, batch, answers or {}, training), decisions=frozenset(asked)
        )


def _resolved(
    model: str,
    trust: bool,
    data: str | None,
    metric: str | None,
    batch: int | None,
    answers: Mapping[str, Any],
    training: bool,
) -> Source:
    loaded = load(model, trust, answers)
    if isinstance(loaded, Graph):
        if data or metric:
            raise OptionError(
                "a saved graph has no model to judge it by", model, "file.py:function takes --data and --metric"
            )
        call_of(loaded, batch)
        return Source(Path(model).stem, loaded, None, batch)
    task = _with_data(loaded, data, metric)
    with _hushed():
        graph = capture(task.model, (task.args, task.kwargs), dynamic=task.dynamic, training=training)
    call_of(graph, batch)  # a batch that cannot be is said now
    return Source(task.name, graph, task, batch)


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep back what torch prints of its own state when a capture fails: our error says it in the user's terms."""
    said = io.StringIO()
    logging.disable(logging.WARNING)
    try:
        with redirect_stderr(said):
            yield
    except PlanishError:
        raise
    except BaseException:
        sys.stderr.write(said.getvalue())
        raise
    else:
        sys.stderr.write(said.getvalue())
    finally:
        logging.disable(logging.NOTSET)


def load(model: str, trust: bool = False, answers: Mapping[str, Any] = MappingProxyType({})) -> Task | Graph:
    """What a MODEL is, before it is captured: a task, or the graph of a file."""
    if not model.strip():
        raise ModelError("no model is named", "MODEL", "planish models, or file.py:function")
    if ".py:" in model:
        open_ = {name: answered(hole, answers.get(name)) for name, hole in factory.holes_of(model).items()}
        return factory.from_file(model, {**answers, **open_})
    if model in models:
        return models[model]()
    path = Path(model).expanduser()
    suffix = path.suffix.lower()
    if path.is_dir():
        return pretrained.load(str(path))
    if suffix in LATER:
        raise ModelError(
            f"{LATER[suffix]} files are read by a later version", model, "give the torch module: file.py:function"
        )
    if suffix in PICKLES:
        hint = "build the module and load its safetensors in file.py:function"
        raise UntrustedFile(f"{suffix} files are pickles, which can run code when they are loaded", model, hint)
    if suffix == ".pt2" and not trust:
        hint = "--trust, if you know who made it"
        raise UntrustedFile("PyTorch's loader can run code from a .pt2 file", model, hint)
    if suffix in (".planish", ".pt2"):
        if not path.is_file():
            raise ModelError("there is no such file", model, "check the path")
        return Graph.load(path) if suffix == ".planish" else _exported(path)
    if path.is_file():
        raise ModelError(f"a {suffix or 'nameless kind of'} file is not a model", model, "planish --help says what is")
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return pretrained.load(model)
    if "/" in model:
        raise ModelError("there is no such file or directory", model, "check the path")
    raise UnknownName("model", model, models, where="MODEL")


def _exported(path: Path) -> Graph:
    try:
        program = torch.export.load(path)
        loaded = program.module(check_guards=False)
    except Exception as error:  # whatever a damaged archive provokes in the loader
        said = str(error).partition("\n")[0]
        raise ModelError(
            f"this is not a readable .pt2 file: {said}", str(path), "torch.export.save(program, path)"
        ) from error
    module = fx.GraphModule(loaded, loaded.graph)  # what torch gives refuses train() and eval()
    if program.example_inputs is None:
        raise ModelError(
            "the program was saved without example inputs", str(path), "export it with torch.export.export"
        )
    call = program.example_inputs
    return capture(module, call, dynamic=_dynamic(program, module, call), training=False)


def _dynamic(
    program: torch.export.ExportedProgram, module: torch.nn.Module, call: tuple[Any, Any]
) -> dict[str, dict[int, str]]:
    """The axes that the program was exported with as dynamic, by input."""
    nodes = iter(node for node in program.graph.nodes if node.name in set(program.graph_signature.user_inputs))
    names = [*list(inspect.signature(module.forward).parameters)[: len(call[0])], *call[1]]
    dynamic: dict[str, dict[int, str]] = {}
    for name, value in zip(names, [*call[0], *call[1].values()], strict=True):
        for _ in pytree.tree_leaves(value):
            shape = getattr(next(nodes).meta.get("val"), "shape", ())
            axes = {axis: str(size) for axis, size in enumerate(shape) if isinstance(size, torch.SymInt)}
            dynamic.setdefault(name, {}).update(axes)
    return {name: axes for name, axes in dynamic.items() if axes}


def _with_data(task: Task, data: str | None, metric: str | None) -> Task:
    changes: dict[str, Any] = {}
    if data:
        if ".py:" not in data:
            raise OptionError(f"cannot read data {data!r}", "--data", "--data file.py:function")
        given = _made(data)
        changes = dict(given) if isinstance(given, Mapping) else {"calibration": given, "evaluation": given}
        if unknown := changes.keys() - set(ROLES):
            raise DataError(
                f"unknown kind of data: {', '.join(map(str, unknown))}", "--data", f"known: {', '.join(ROLES)}"
            )
    if metric:
        changes["metric"] = factory.load_function(metric) if ".py:" in metric else metric
    try:
        return replace(task, **changes, _references={}) if changes else task
    except PlanishError:
        raise
    except Exception as error:  # the first item is read here
        raise DataError(f"the data raised {type(error).__name__}: {error}", data or "--data") from error


def _made(data: str) -> Any:
    try:
        return factory.load_function(data)()
    except PlanishError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise DataError(
            f"the function raised {type(error).__name__}: {error}", data, "run the file with python"
        ) from error
