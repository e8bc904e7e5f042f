"""A program as a folder: `program.json`, and its numbers in `program.safetensors`. Nothing in either can run."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from planish.errors import GraphError, UntrustedFile
from planish.targets.fpga.doors import Door
from planish.targets.fpga.operations import KINDS
from planish.targets.fpga.operations.base import Codes, Integers, Operation, Value

if TYPE_CHECKING:
    from planish.targets.fpga.program import Program

VERSION = 1
TEXT, NUMBERS = "program.json", "program.safetensors"


def save(program: Program, folder: str | os.PathLike[str]) -> Path:
    """Write a program; the folder is made."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Integers] = {}
    content = {
        "version": VERSION,
        "inputs": [asdict(value) for value in program.inputs],
        "operations": [_plain(each, arrays) for each in program.operations],
        "outputs": program.outputs,
        "structure": dict(program.structure),
        "doors_in": [asdict(door) for door in program.doors_in],
        "doors_out": [asdict(door) for door in program.doors_out],
    }
    save_file({name: _narrow(array) for name, array in arrays.items()}, path / NUMBERS)
    (path / TEXT).write_text(json.dumps(content, indent=1))
    return path


def read(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of the program that `save` wrote.

    Raises:
        UntrustedFile: A file is damaged, of another version, or names an operation that does not exist.
    """
    path = Path(folder)
    try:
        content = json.loads((path / TEXT).read_text())
        if content["version"] != VERSION:
            raise UntrustedFile(f"a program of version {content['version']}; this Planish reads {VERSION}", str(path))
        arrays = {name: array.astype(np.int64) for name, array in load_file(path / NUMBERS).items()}
        return {
            "inputs": tuple(map(_value, content["inputs"])),
            "operations": tuple(_operation(each, arrays) for each in content["operations"]),
            "outputs": tuple(content["outputs"]),
            "structure": content["structure"],
            "doors_in": tuple(map(_door, content["doors_in"])),
            "doors_out": tuple(map(_door, content["doors_out"])),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError, GraphError) as error:
        raise UntrustedFile(f"this is no program, or a damaged one: {error}", str(path)) from error


def _narrow(array: Integers) -> np.ndarray:
    ends = (int(array.min()), int(array.max())) if array.size else (0, 0)
    fits = (
        kind
        for kind in (np.int8, np.int16, np.int32)
        if np.iinfo(kind).min <= ends[0] and ends[1] <= np.iinfo(kind).max
    )
    return np.array(array, dtype=next(fits, np.int64), order="C")


def _plain(operation: Operation, arrays: dict[str, Integers]) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": type(operation).__name__}
    for field in fields(operation):
        given = getattr(operation, field.name)
        if isinstance(given, np.ndarray):
            name = f"{operation.output.name}.{field.name}"
            arrays[name], given = given, {"array": name}
        found[field.name] = asdict(given) if isinstance(given, Value) else given
    return found


def _operation(plain: dict[str, Any], arrays: dict[str, Integers]) -> Operation:
    given = dict(plain)
    kind: Any = KINDS[given.pop("kind")]
    given["output"] = _value(given["output"])
    return kind(
        **{name: arrays[item["array"]] if isinstance(item, dict) else _tuple(item) for name, item in given.items()}
    )


def _tuple(item: Any) -> Any:
    return tuple(_tuple(each) for each in item) if isinstance(item, list) else item


def _value(plain: dict[str, Any]) -> Value:
    return Value(plain["name"], tuple(plain["shape"]), Codes(**plain["codes"]), plain["path"])


def _door(plain: dict[str, Any]) -> Door:
    return Door(**{**plain, "axes": tuple(plain["axes"])})
