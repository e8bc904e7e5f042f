"""Steps, targets and holes as the tables of a file, and back.

A hole is a table where a value stands: `{choose = ["int4", "int8"]}`, `{each = [...]}`, `{between = [0.1, 0.9]}`, with
`name`, `step`, `log` and `when = {hole = "kind", is = ["conv"]}` as in Python. A whole step may be one as well:

    [[step]]
    choose = ["none", {pass = "prune", sparsity = "2:4"}]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from planish import config
from planish.errors import OptionError
from planish.graph import Pass
from planish.holes import Between, Choose, Condition, Each, Hole, Template
from planish.recipe.passes import passes, registered_name
from planish.targets import Target, targets

HOLES = ("choose", "each", "between")
Step = Pass | Template | Hole


class Writer:
    """Makes tables.

    Args:
        values: All that will be written: holes that stand in several places, or that others depend on, get a name.
    """

    def __init__(self, values: Iterable[Any]) -> None:
        seen: Counter[int] = Counter()
        self._names: dict[int, str] = {}
        holes: dict[int, Hole] = {}
        for hole in (found for value in values for found in _all_holes(value)):
            holes[id(hole)] = hole
            seen[id(hole)] += 1
            if hole.when is not None:
                holes[id(hole.when.hole)] = hole.when.hole
                seen[id(hole.when.hole)] += 1
        shared = [hole for key, hole in holes.items() if seen[key] > 1 and not hole.name]
        self._names = {id(hole): f"decision {place}" for place, hole in enumerate(shared, 1)}

    def step(self, step: Step | None) -> Any:
        """A step as its table; of none, the word for it."""
        if step is None:
            return config.NONE
        if isinstance(step, Hole):
            return self._hole(step, self.step)
        return {"pass": registered_name(step), **self._fields(step)}

    def target(self, target: Target | Template) -> dict[str, Any]:
        """A target as its table.

        Raises:
            OptionError: Nobody registered it.
        """
        kind = target.kind if isinstance(target, Template) else type(target)
        name = next((name for name in targets if targets[name] is kind), None)
        if name is None:
            raise OptionError(f"the target {kind.__name__} is not registered", "target", 'entry point "planish.target"')
        return {"name": name, **self._fields(target)}

    def arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What a model is made with."""
        return {name: self._value(value, name) for name, value in arguments.items()}

    def _fields(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, Template):
            return config.encode(value)
        return {name: self._value(item, f"{value.kind.__name__}.{name}") for name, item in value.fields.items()}

    def _value(self, value: Any, where: str) -> Any:
        if isinstance(value, Hole):
            return self._hole(value, lambda option: self._value(option, where))
        if isinstance(value, Mapping):
            return {str(key): self._value(item, where) for key, item in value.items()}
        if isinstance(value, tuple | list):
            return [self._value(item, where) for item in value]
        return config.plain(value, where)

    def _hole(self, hole: Hole, option: Callable[[Any], Any]) -> dict[str, Any]:
        if isinstance(hole, Between):
            table: dict[str, Any] = {"between": [hole.low, hole.high]}
            table |= {} if hole.step is None else {"step": hole.step}
            table |= {"log": True} if hole.log else {}
        else:
            assert isinstance(hole, Choose)
            table = {"each" if isinstance(hole, Each) else "choose": [option(each) for each in hole.options]}
        if name := hole.name or self._names.get(id(hole), ""):
            table["name"] = name
        if hole.when is not None:
            other = hole.when.hole
            table["when"] = {"hole": other.name or self._names[id(other)], "is": list(hole.when.labels)}
        return table


@dataclass
class Reader:
    """Reads tables.

    Attributes:
        where: The file.
        named: The holes so far that have a name.
    """

    where: str
    named: dict[str, Hole] = field(default_factory=dict)

    def step(self, table: Any, place: str) -> Step | None:
        """A step of its table.

        Raises:
            OptionError: Says which option cannot be read.
        """
        if table == config.NONE:
            return None
        where = f"{self.where}, {place}"
        if not isinstance(table, Mapping):
            raise OptionError(f"a step is a table, not {table!r}", where, 'pass = "quantize"')
        if _is_hole(table):
            return self._hole(table, where, partial(self.step, place=place))
        options = dict(table)
        name = options.pop("pass", None)
        if not isinstance(name, str):
            raise OptionError("a step needs the name of its pass", where, 'pass = "quantize"')
        try:
            kind = passes[name]
        except OptionError as error:
            raise OptionError(error.what, where, error.hint) from error
        return self._made(kind, options, f"{where} ({name})")

    def target(self, table: Any) -> Target | Template:
        """A target of its table."""
        where = f"{self.where}, target"
        if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
            raise OptionError("a target is a table with its name", where, '[target]\nname = "cpu"')
        options = dict(table)
        return self._made(targets[options.pop("name")], options, where)

    def arguments(self, table: Any) -> dict[str, Any]:
        """What a model is made with."""
        if not isinstance(table, Mapping):
            raise OptionError("arguments are a table", f"{self.where}, arguments", "[arguments]\nwidth = 32")
        return {str(name): self._value(value, f"{self.where}, arguments, {name}") for name, value in table.items()}

    def _made(self, kind: Any, options: Mapping[str, Any], where: str) -> Any:
        fields = {name: self._value(value, f"{where}, {name}") for name, value in options.items()}
        if any(True for _ in _all_holes(fields)):
            return Template(kind, fields, partial(_decoded, kind, where))
        return config.decode(kind, options, where)

    def _value(self, value: Any, where: str) -> Any:
        if isinstance(value, Mapping):
            if _is_hole(value):
                return self._hole(value, where, lambda option: self._value(option, where))
            return {str(name): self._value(item, f"{where}.{name}") for name, item in value.items()}
        return [self._value(item, where) for item in value] if isinstance(value, list) else value

    def _hole(self, table: Mapping[str, Any], where: str, option: Callable[[Any], Any]) -> Hole:
        given = dict(table)
        (kind,) = (key for key in HOLES if key in given)
        listed, name, when = given.pop(kind), given.pop("name", ""), self._condition(given.pop("when", None), where)
        if not isinstance(listed, list) or (kind == "between" and len(listed) != 2):
            raise OptionError(f"{kind} is a list", where, "between = [1, 8]" if kind == "between" else 'choose = ["a"]')
        if unknown := given.keys() - ({"step", "log"} if kind == "between" else set()):
            raise OptionError(f"unknown option {sorted(unknown)[0]!r} of a hole", where, "name, when, step, log")
        try:
            if kind == "between":
                hole: Hole = Between(name, when, *listed, **given)
            else:
                hole = (Each if kind == "each" else Choose)(name, when, tuple(map(option, listed)))
        except TypeError as error:
            raise OptionError(f"the ends of a range are numbers, not {listed}", where, "between = [1, 8]") from error
        if name:
            self.named.setdefault(name, hole)
        return hole

    def _condition(self, table: Any, where: str) -> Condition | None:
        if table is None:
            return None
        if not isinstance(table, Mapping) or table.keys() != {"hole", "is"} or not isinstance(table["is"], list):
            raise OptionError(
                "a condition names a hole and its options", where, 'when = {hole = "kind", is = ["conv"]}'
            )
        if table["hole"] not in self.named:
            known = ", ".join(self.named) or "none"
            raise OptionError(f"no hole before has the name {table['hole']!r}", where, f"known: {known}")
        return self.named[table["hole"]].among(*table["is"])


def _decoded(kind: Any, place: str, /, **fields: Any) -> Any:
    return config.decode(kind, fields, place)


def _is_hole(table: Mapping[str, Any]) -> bool:
    return sum(key in table for key in HOLES) == 1


def _all_holes(value: Any) -> list[Hole]:
    """The holes in a value, those within options too."""
    if isinstance(value, Hole):
        return [value, *(found for option in getattr(value, "options", ()) for found in _all_holes(option))]
    if isinstance(value, Template):
        return _all_holes(value.fields)
    if isinstance(value, Mapping):
        return [found for item in value.values() for found in _all_holes(item)]
    return [found for item in value for found in _all_holes(item)] if isinstance(value, tuple | list) else []
