"""Frozen dataclasses as plain data and back: what passes and recipes are written with.

A dataclass becomes a table of the fields that differ from their defaults; a value with a text form of its own
(`__str__`, read back by its class's `parse`) becomes that text; None becomes "none", since TOML has no
other word for it. `decode` accepts nothing that the field's annotation does not, and says which field it was.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from planish.errors import OptionError

NONE = "none"
T = TypeVar("T")


def encode(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults, as TOML and JSON can hold them.

    Raises:
        OptionError: A field holds something without a plain form.
    """
    return {
        field.name: plain(getattr(value, field.name), f"{type(value).__name__}.{field.name}")
        for field in dataclasses.fields(value)
        if field.init and not _is_default(field, getattr(value, field.name))
    }


def decode(kind: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """The dataclass that a table stands for: the inverse of `encode`.

    Args:
        kind: The dataclass.
        data: Field names and plain values.
        where: What messages call the table ("step 2 (quantize)").

    Raises:
        OptionError: An unknown field (naming the nearest), a missing one, or a value of the wrong kind; or what the
            dataclass itself has to say about a value.
    """
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    for name in data:
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise OptionError(f"unknown option {name!r}", where, f"{hint}known: {', '.join(fields) or 'none'}")
    missing = [name for name, field in fields.items() if name not in data and _is_required(field)]
    if missing:
        raise OptionError(f"the option {missing[0]!r} is missing", where, f"known: {', '.join(fields)}")
    hints = get_type_hints(kind)
    given = {name: _typed(value, hints[name], f"{where}, {name}" if where else name) for name, value in data.items()}
    try:
        return kind(**given)
    except OptionError as error:
        raise OptionError(error.what, ", ".join(filter(None, [where, error.where])), error.hint) from error


def plain(value: Any, where: str) -> Any:
    """A value as TOML and JSON can hold it.

    Raises:
        OptionError: It has no plain form.
    """
    if value is None:
        return NONE
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item, where) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item, where) for item in value]
    if type(value).__str__ is not object.__str__ and not isinstance(value, type) and not callable(value):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return encode(value)
    raise OptionError(f"a {type(value).__name__} cannot be written to a file", where, "give a name instead")


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    if field.default is dataclasses.MISSING:
        return False
    # a default may be given in its text form and turned into a value by the dataclass
    same = value == field.default
    return bool(same) or (isinstance(field.default, str) and not isinstance(value, str) and str(value) == field.default)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _typed(value: Any, hint: Any, where: str) -> Any:
    """`value` as the annotation asks for it."""
    accepted = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value == NONE and type(None) in accepted:
        return None
    if type(value) is str and str in accepted:
        return value  # the dataclass reads it itself
    for kind in accepted:
        found = _as_kind(value, kind, where)
        if found is not _NO:
            return found
    raise OptionError(f"{value!r} is not {' or '.join(map(_describe, accepted))}", where)


_NO = object()


def _as_kind(value: Any, kind: Any, where: str) -> Any:
    """`value` if it is of that kind, made one if its plain form is; else `_NO`."""
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin is Literal:
        return value if any(value == option and type(value) is type(option) for option in get_args(kind)) else _NO
    if origin is tuple and isinstance(value, list | tuple):
        kinds = get_args(kind)
        each = kinds[:1] * len(value) if len(kinds) == 2 and kinds[1] is Ellipsis else kinds
        if len(each) != len(value):
            return _NO
        return tuple(
            _typed(item, one, f"{where}[{place}]") for place, (item, one) in enumerate(zip(value, each, strict=True))
        )
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            return _NO
        return {str(key): _typed(item, get_args(kind)[1], f"{where}.{key}") for key, item in value.items()}
    if not isinstance(kind, type) or kind is type(None):
        return _NO
    if kind is float:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else _NO
    if kind in (bool, int, str):
        return value if type(value) is kind else _NO
    if isinstance(value, kind):
        return value
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return decode(kind, value, where)
    parse = getattr(kind, "parse", None)
    if parse is not None and isinstance(value, str):
        return _parsed(parse, value, where)
    return _NO


def _parsed(parse: Any, value: str, where: str) -> Any:
    try:
        return parse(value)
    except OptionError as error:
        raise OptionError(error.what, ", ".join(filter(None, [where, error.where])), error.hint) from error


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(repr(option) for option in get_args(kind))
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", type(None): repr(NONE)}
    return names.get(kind, getattr(kind, "__name__", str(kind)))
