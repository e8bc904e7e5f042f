"""Dynamic sizes as numbers: those of the example, or those that the caller asks about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from planish.errors import OptionError
from planish.graph import Graph


class Sizes:
    """Gives every symbolic size of a graph a value.

    Args:
        graph: The graph.
        given: Values by the user's names; a name left out has the example's value.

    Raises:
        OptionError: The graph has no dynamic size of that name, or the value is not positive.
    """

    def __init__(self, graph: Graph, given: Mapping[str, int]) -> None:
        names = set(graph.symbols.values())
        for name, size in given.items():
            if name not in names:
                known = f"dynamic sizes: {', '.join(sorted(names))}" if names else "planish.capture(..., dynamic={...})"
                raise OptionError(f"the graph has no dynamic size {name!r}", "sizes", known)
            if size < 1:
                raise OptionError(f"the size {name}={size} is not positive", "sizes")
        self._names, self._given = graph.symbols, given
        self._values: dict[Any, int] = {}  # sympy symbol -> its value
        self._known: dict[Any, int] = {}  # sympy expression -> its value
        self.used: dict[str, int] = {}

    def __call__(self, size: int | torch.SymInt) -> int:
        """The value of one size."""
        if isinstance(size, int):
            return size
        expression = size.node.expr
        if expression not in self._known:
            values = {symbol: self._value(symbol, size.node.shape_env) for symbol in expression.free_symbols}
            self._known[expression] = int(expression.xreplace(values))
        return self._known[expression]

    def _value(self, symbol: Any, shape_env: Any) -> int:
        if symbol not in self._values:
            name = self._names.get(str(symbol), str(symbol))
            if name in self._given:
                value = self._given[name]
            elif (hint := shape_env.backed_var_to_val.get(symbol)) is not None:
                value = int(hint)
            else:  # depends on data: its lower bound is all that is known
                bounds = shape_env.var_to_range.get(symbol)
                value = max(1, int(bounds.lower)) if bounds is not None else 1
            self._values[symbol] = self.used[name] = value
        return self._values[symbol]
