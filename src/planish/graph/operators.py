"""The operations that a graph may hold, and their names in a file.

A saved graph names its operations; only what stands here is ever looked up, so that a file cannot call anything else.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch

from planish.errors import UntrustedFile

_NAMESPACES = ("aten", "planish")
# aten operations that reach outside tensors: files, raw storage, printing
_DENIED = frozenset({"from_file", "set_", "set", "resize_", "_print", "_resize_output_", "_debug_has_internal_overlap"})
_FUNCTIONS: dict[str, Any] = {
    **{
        f"operator.{name}": getattr(operator, name)
        for name in (
            *("getitem", "add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "neg", "pos", "abs"),
            *("lt", "le", "gt", "ge", "eq", "ne", "and_", "or_", "xor", "not_", "lshift", "rshift"),
        )
    },
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "sqrt", "trunc")},
    **{
        f"torch.{name}": getattr(torch, name)
        for name in ("sym_max", "sym_min", "sym_not", "sym_float", "sym_int", "sym_ite", "sym_sum", "sym_fresh_size")
        if hasattr(torch, name)
    },
    "cond": torch.ops.higher_order.cond,
}
_NAMES = {id(function): name for name, function in _FUNCTIONS.items()}
_GUARDS = frozenset(
    {"_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range_for_size", "sym_constrain_range"}
)


def is_allowed(target: Any) -> bool:
    """Whether a graph may hold a call of `target`."""
    if isinstance(target, torch._ops.OpOverload):
        space, _, name = target._schema.name.partition("::")
        return space in _NAMESPACES and name not in _DENIED
    return id(target) in _NAMES


def is_guard(target: Any) -> bool:
    """Whether the call only checks something at run time and computes nothing."""
    return isinstance(target, torch._ops.OpOverload) and target._schema.name.partition("::")[2] in _GUARDS


def to_name(target: Any) -> str:
    """ "aten.linear.default", "operator.getitem", "cond"."""
    return str(target) if isinstance(target, torch._ops.OpOverload) else _NAMES[id(target)]


def from_name(name: str, where: str) -> Any:
    """The inverse of `to_name`.

    Raises:
        UntrustedFile: The name is not on the allow-list.
    """
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    space, _, rest = name.partition(".")
    base, _, overload = rest.rpartition(".")
    if space in _NAMESPACES and base.isidentifier() and overload.isidentifier():
        packet = getattr(getattr(torch.ops, space), base, None)
        if isinstance(packet, torch._ops.OpOverloadPacket) and overload in packet.overloads():
            target = getattr(packet, overload)
            if is_allowed(target):
                return target
    raise UntrustedFile(f"the operation {name!r} is not on the allow-list", where, "load graphs that Planish saved")
