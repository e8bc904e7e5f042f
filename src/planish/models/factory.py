"""Models from the user's own Python: `file.py:function`.

Naming a Python file is consent to run it. The function returns a Task, a pair `(module, example_inputs)`, or a module
that has an attribute `example_inputs`. Its parameters have defaults; holes among them (`width=choose(16, 32)`) are
decisions of a search.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from planish.errors import ModelError, PlanishError, UnknownName
from planish.holes import Hole, answering
from planish.models.task import Task


def from_file(source: str, arguments: Mapping[str, Any] | None = None) -> Task:
    """The task that a user's factory makes.

    Args:
        source: `path/to/file.py:function`.
        arguments: For its parameters; names that are none of these are passed over.

    Raises:
        ModelError: The file cannot be read or raises, the function raises, or returns something else; names the line.
        UnknownName: The file has no such function.
    """
    factory = load_function(source)
    takes = inspect.signature(factory).parameters
    given = {name: value for name, value in (arguments or {}).items() if name in takes}
    function, made = source.rpartition(":")[2], _call(factory, source, given)
    if isinstance(made, Task):
        return made
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        return Task(*made, metric="mean_cosine", name=function)
    if isinstance(made, nn.Module) and hasattr(made, "example_inputs"):
        return Task(made, made.example_inputs, metric="mean_cosine", name=function)
    raise ModelError(
        f"{function}() returned {type(made).__name__}"
        + (" without example inputs" if isinstance(made, nn.Module) else ""),
        source,
        "return planish.Task(model, example_inputs), or (model, example_inputs)",
    )


def holes_of(source: str) -> dict[str, Hole]:
    """The parameters of a user's factory that stand open.

    Raises:
        ModelError, UnknownName: As `from_file`.
    """
    parameters = inspect.signature(load_function(source)).parameters
    return {name: each.default for name, each in parameters.items() if isinstance(each.default, Hole)}


def load_function(source: str) -> Callable[..., Any]:
    """A function of a Python file, which is run to get at it.

    Args:
        source: `path/to/file.py:function`.

    Raises:
        ModelError: The file cannot be read, or raises; names the line.
        UnknownName: The file has no such function.
    """
    path, _, name = source.rpartition(":")
    file = Path(path).expanduser()
    if file.suffix != ".py" or not name.isidentifier():
        raise ModelError(f"{source!r} is not a Python file and a function", hint="path/to/file.py:function")
    if not file.is_file():
        raise ModelError(f"there is no file {path}", source)
    module = _run(file.resolve())
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownName("function", name, known, source)
    return found


def _run(file: Path) -> ModuleType:
    """The file as a module, run once in a process; its folder may be imported from, as for a script."""
    name = f"planish_user_{file.stem}_{abs(hash(file))}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, file)
    assert spec is not None, "a .py file always has a loader"
    assert spec.loader is not None, "a .py file always has a loader"
    module = module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.parent))
    try:
        with answering(None):  # holes in the file itself are defaults, and stay open
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _blame(error, str(file), "running the file") from error
    finally:
        sys.path.remove(str(file.parent))
    return module


def _call(function: Callable[..., Any], source: str, arguments: Mapping[str, Any]) -> Any:
    try:
        return function(**arguments)
    except PlanishError:
        raise  # already says what is wrong, and where
    except (Exception, SystemExit) as error:
        raise _blame(
            error, str(Path(source.rpartition(":")[0]).expanduser().resolve()), f"{source.rpartition(':')[2]}()"
        ) from error


def _blame(error: BaseException, file: str, doing: str) -> ModelError:
    """The user's error with the last line of the user's own file that led to it."""
    if isinstance(error, SyntaxError) and error.filename == file:
        line = error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == file), None)
    return ModelError(
        f"{doing} raised {type(error).__name__}: {error}",
        f"{file}:{line}" if line else file,
        "run the file with python",
    )
