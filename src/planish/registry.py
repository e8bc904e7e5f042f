"""One mechanism for everything that can be looked up by name.

A `Registry` is a table of literal `name -> "module:attribute"` strings. Nothing is imported until it is asked for,
and a package outside Planish adds rows through the entry-point group `planish.<kind>`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from planish.errors import OptionError, UnknownName


class Registry(Mapping[str, Any]):
    """Names that load on use.

    Args:
        kind: What the names stand for, in the singular ("pass", "engine"); also the entry-point group.
        table: `name -> "module:attribute"`.

    Raises:
        UnknownName: On look-up of a name that is not there.
        OptionError: When an entry point claims a name that is taken; names both owners.
    """

    def __init__(self, kind: str, table: Mapping[str, str]) -> None:
        self.kind = kind
        self._builtin = dict(table)
        self._all: dict[str, str] | None = None

    @property
    def table(self) -> Mapping[str, str]:
        """All rows, the built-in ones and those of entry points."""
        if self._all is None:
            merged = dict(self._builtin)
            for entry in entry_points(group=f"planish.{self.kind}"):
                taken = merged.get(entry.name)
                if taken not in (None, entry.value):
                    raise OptionError(
                        f"{self.kind} {entry.name!r} is registered twice: {taken} and {entry.value}",
                        hint="uninstall one of the two packages, or rename its entry point",
                    )
                merged[entry.name] = entry.value
            self._all = merged
        return self._all

    def __getitem__(self, name: str) -> Any:
        if name not in self.table:
            raise UnknownName(self.kind, name, self.table)
        module, _, attribute = self.table[name].partition(":")
        return getattr(import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self.table

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)
