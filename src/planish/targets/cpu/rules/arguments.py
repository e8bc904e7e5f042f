"""Arguments of a call by the names in its operator's schema."""

from __future__ import annotations

from typing import Any

from torch import fx


def arguments(node: fx.Node) -> dict[str, Any]:
    """Every argument by name, defaults filled in."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]  # rules are for operator overloads
    given = dict(zip([argument.name for argument in schema], node.args, strict=False))
    defaults = {argument.name: argument.default_value for argument in schema}
    return {**defaults, **given, **node.kwargs}


def axes(dim: Any, rank: int) -> list[int]:
    """One axis, several, or none (which means all) as a list of non-negative axes."""
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return list(range(rank))
    return [axis % max(rank, 1) for axis in (dim if isinstance(dim, list | tuple) else [dim])]
