"""What went wrong, where in the user's own model, and what to type next.

Every error that Planish raises on purpose is a `PlanishError`. The command line prints it without a traceback and
exits with its `exit_code`: 2 when the user can mend it, 1 when we must.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class PlanishError(Exception):
    """The base of all errors that Planish raises on purpose.

    Args:
        what: What is wrong, naming the offending value.
        where: The place in the user's model, data or command (a module path, a file, an option); may be empty.
        hint: The next thing to type or to change; may be empty.
    """

    exit_code = 1

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__("\n".join(filter(None, [what, where and f"  where: {where}", hint and f"  try:   {hint}"])))


class UserError(PlanishError):
    """Something the user gave does not fit; nothing was changed."""

    exit_code = 2


class ModelError(UserError):
    """The model, or its example inputs, cannot be captured or loaded."""


class DataError(UserError):
    """Calibration or evaluation data is empty, has the wrong shape, or holds NaN."""


class OptionError(UserError):
    """An option, format, recipe or selector is not valid."""


class UnknownName(OptionError):
    """A name that nobody registered; says which is nearest, and which names are known.

    Args:
        kind: What the name stands for, in the singular.
        name: The name.
        known: All that exist. Of more than `LISTED` only the nearest are told.
        where: As for `PlanishError`.
    """

    LISTED, NEAREST = 12, 8
    COMMANDS: ClassVar = {kind: f"planish {kind}s" for kind in ("format", "model", "recipe", "target")}
    COMMANDS["strategy"] = "planish strategies"
    COMMANDS["pass"] = "planish passes"

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        if len(names) <= self.LISTED:
            hint += f"known: {', '.join(names) or 'none'}"
        else:
            closest = difflib.get_close_matches(name, names, n=self.NEAREST, cutoff=0.0)
            command = self.COMMANDS.get(kind)
            hint += f"nearest of {len(names)}: {', '.join(closest)}" + (f"; all: {command}" if command else "")
        super().__init__(f"unknown {kind} {name!r}", where, hint)


class UntrustedFile(UserError):
    """A file could run code, or asks for something outside the allow-list."""


class MissingExtra(UserError):
    """An optional library is needed and absent."""

    def __init__(self, library: str, extra: str, where: str = "") -> None:
        super().__init__(f"{library} is not installed", where, f"pip install 'planish[{extra}]'")


class GraphError(PlanishError):
    """A graph is malformed: a pass or an importer of ours broke an invariant."""


class EngineError(PlanishError):
    """An engine refused a graph, or computed something else than the graph says."""
