"""How much arithmetic each operation does: one line an operation, as data.

A multiply-accumulate (MAC) is two FLOPs. A comparison, an exponential and an error function count as one FLOP each, as
is usual in the literature. A new operation gets a cost by adding its base name to one table: `products` if it is made
of multiply-accumulates, `formulas` if its FLOPs need a formula, else a list of `tables`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planish.analysis.rules.call import Array, Call
from planish.analysis.rules.formulas import FLOPS
from planish.analysis.rules.products import EXTRA, MACS
from planish.analysis.rules.tables import CREATE, FREE, GATHERS, PER_INPUT, PER_OUTPUT, RELAYOUTS, VIEWS

__all__ = ["Arithmetic", "Array", "Call", "Kind", "arithmetic", "is_ruled", "is_view"]

_RULED = FREE | VIEWS | RELAYOUTS | GATHERS | CREATE | MACS.keys() | FLOPS.keys() | PER_OUTPUT.keys() | PER_INPUT.keys()

Kind = Literal["arithmetic", "free", "relayout", "gather", "unruled"]
"""`free` moves nothing; a `relayout` moves data only where layout or type change; a `gather` reads as much as it
writes; `arithmetic` (and `unruled`) reads each argument and writes each result once."""

_WITHOUT: tuple[tuple[frozenset[str], Kind], ...] = (
    (FREE | VIEWS, "free"),
    (RELAYOUTS, "relayout"),
    (GATHERS, "gather"),
    (CREATE, "arithmetic"),
)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What a rule says of a call: multiply-accumulates, all FLOPs (two for each of those included), and its kind."""

    macs: float
    flops: float
    kind: Kind


def arithmetic(call: Call) -> Arithmetic:
    """The arithmetic of a call; kind "unruled" where no rule knows the operation, or its rule does not fit the call."""
    op = base(call.op)
    if not call.outputs:
        return Arithmetic(0, 0, "free")
    for names, kind in _WITHOUT:
        if op in names:
            return Arithmetic(0, 0, kind)
    try:
        if op in MACS:
            macs = MACS[op](call)
            return Arithmetic(macs, 2 * macs + (EXTRA[op](call) if op in EXTRA else 0), "arithmetic")
        if op in FLOPS:
            return Arithmetic(0, FLOPS[op](call), "arithmetic")
        if op in PER_OUTPUT:
            return Arithmetic(0, PER_OUTPUT[op] * call.out.size, "arithmetic")
        if op in PER_INPUT:
            return Arithmetic(0, PER_INPUT[op] * call.first.size, "arithmetic")
    except (KeyError, IndexError, TypeError, ValueError):  # an overload with other arguments than the rule's
        pass
    return Arithmetic(0, 0, "unruled")


def base(op: str) -> str:
    """The name that the tables use: in-place `relu_` is `relu`, `__and__` is `bitwise_and`, `special_erf` is `erf`."""
    if op in _RULED:
        return op
    for name in (f"bitwise_{op.strip('_')}", op.rstrip("_"), op.removeprefix("special_"), op.removeprefix("linalg_")):
        if name in _RULED:
            return name
    return op.removesuffix("_copy")


def is_ruled(op: str) -> bool:
    """Whether an operation of that base name has a rule."""
    return base(op) in _RULED


def is_view(op: str) -> bool:
    """Whether an operation of that base name only looks at its argument differently."""
    return base(op) in VIEWS | RELAYOUTS
