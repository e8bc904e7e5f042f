"""Turning an exception of the user's model, or of torch's exporter, into one that says where and what to do."""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path

from torch import nn

from planish.errors import ModelError

_LIBRARIES = (sysconfig.get_paths()["purelib"], sysconfig.get_paths()["stdlib"])
_HERE = str(Path(__file__).parent.parent)
_COND = (
    "torch.cond(predicate, true_function, false_function, operands) for a branch that depends on data, "
    "or torch.where(predicate, a, b)"
)


def explain(error: Exception, model: nn.Module, what: str) -> ModelError:
    """A `ModelError` that names the line of the user's program and, for a data-dependent branch, the way out."""
    text = str(error)
    where = _user_line(error, text) or type(model).__name__
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        return ModelError("the model branches on a value that is only known at run time", where, _COND)
    if "DynamicCache" in text or "not registered" in text or "pytree" in text.lower():
        hint = "return tensors, or register the type with torch.utils._pytree.register_pytree_node"
        return ModelError(f"{what}: an input or output is of a type that torch cannot export", where, hint)
    if "Constraints violated" in text or "specialized" in text:
        return ModelError(
            f"{what}: a size declared dynamic is fixed by the model ({_first_line(text)})",
            where,
            "leave that axis out of dynamic=, or compute with x.shape instead of a number",
        )
    hint = (
        "check the shapes and dtypes of example_inputs"
        if "example inputs" in what
        else "torch.export's message is above"
    )
    return ModelError(f"{what}: {_first_line(text) or type(error).__name__}", where, hint)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:300]


def _user_line(error: Exception, text: str) -> str:
    """The innermost `file:line: code` outside installed libraries; inside one if there is no other."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((*_LIBRARIES, _HERE))]
    if own:
        return f"{own[-1].filename}:{own[-1].lineno}: {own[-1].line}"
    # torch quotes the user's stack in its message when its own has lost it
    quoted = re.findall(r'File "([^"]+)", line (\d+), in \w+\n\s*([^\n]*)', text)
    outside = [match for match in quoted if not match[0].startswith((*_LIBRARIES, _HERE))] or quoted
    if outside:
        file, line, code = outside[-1]
        return f"{file}:{line}: {code}"
    model_code = [frame for frame in frames if "/torch/" not in frame.filename and not frame.filename.startswith(_HERE)]
    return f"{model_code[-1].filename}:{model_code[-1].lineno}: {model_code[-1].line}" if model_code else ""
