"""Arguments of a call by the names in its operator's schema."""

from __future__ import annotations

from typing import Any

Call = Any
"""An `fx.Node`. Its arguments have the types that its operator's schema says, which Python cannot express."""


def arguments(node: Call) -> dict[str, Any]:
    """Every argument by name, defaults filled in."""
    schema = node.target._schema.arguments
    given = dict(zip([argument.name for argument in schema], node.args, strict=False))
    defaults = {argument.name: argument.default_value for argument in schema}
    return {**defaults, **given, **node.kwargs}


def axes(dim: Any, rank: int) -> list[int]:
    """One axis, several, or none (which means all) as a list of non-negative axes."""
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return list(range(rank))
    return [axis % max(rank, 1) for axis in (dim if isinstance(dim, list | tuple) else [dim])]
