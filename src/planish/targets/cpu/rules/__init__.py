"""How each ATen operation is written in ONNX: one table, split by family.

A rule takes the builder and the node and returns the name of the ONNX value (or a tuple of names). An operation
without a rule is decomposed by PyTorch itself, and its parts are looked up here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx

from planish.targets.cpu.builder import Builder
from planish.targets.cpu.rules import attention, casts, elementwise, layers, reduce, shape

Rule = Callable[[Builder, fx.Node], Any]

RULES: Mapping[str, Rule] = {
    **elementwise.RULES,
    **shape.RULES,
    **reduce.RULES,
    **layers.RULES,
    **attention.RULES,
    **casts.RULES,
}
