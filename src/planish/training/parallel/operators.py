"""How operations that PyTorch has no sharding strategy for work on distributed tensors.

PyTorch lets users register strategies (`register_sharding`), but its cache of them looks at integers only; the one
private table that says otherwise is touched here and nowhere else.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor._op_schema import RuntimeSchemaInfo
from torch.distributed.tensor.experimental import register_sharding
from torch.distributed.tensor.placement_types import Placement
from torch.utils import _pytree as pytree

from planish.formats import Format
from planish.formats.block import TENSOR

aten = torch.ops.aten
Placements = list[Placement | None]
Sharding = tuple[Placements, Placements]
"""What an operation gives, and what it takes for that; None stands for what is no tensor."""
_MISSING = re.compile(r"Operator (\w+)\.(\w+)\.(\w+) does not have a sharding strategy")


def attention(query: Any, key: Any, value: Any, *rest: Any, attn_mask: Any = None, scale: Any = None) -> list[Sharding]:
    """Rows and heads are independent of each other; so are those of the mask that has as many."""
    return _attention(2, 3, attn_mask)


def attention_backward(grad: Any, query: Any, *rest: Any, attn_mask: Any = None, scale: Any = None) -> list[Sharding]:
    """As `attention`."""
    return _attention(3, 6, attn_mask)


def _attention(gives: int, takes: int, mask: Any) -> list[Sharding]:
    found: list[Sharding] = []
    for placement in (Replicate(), Shard(0), Shard(1)):
        axis = placement.dim - 4 + len(mask.shape) if mask is not None and isinstance(placement, Shard) else 0
        along = Replicate() if mask is not None and (axis < 0 or mask.shape[axis] == 1) else placement
        if mask is not None and isinstance(along, Shard):
            along = Shard(axis)
        found.append(([placement] * gives, [placement] * takes + ([along] if mask is not None else [])))
    return found


def cast(x: Any, parameters: Any, format: str, *rest: Any) -> list[Sharding]:  # noqa: A002  # the operation's own word
    """Along an axis that blocks do not cross; a scale that the format computes itself wants all that it is of."""
    parsed, shape = Format.parse(format), tuple(x.shape)
    count = len(parameters) if isinstance(parameters, list | tuple) else 0
    found: list[Sharding] = [([Replicate()], [Replicate()] * (1 + count))]
    layout = (parsed.block or TENSOR).layout(shape)
    levels = [tuple(each.shape) for each in parameters] if count else []
    for axis, (blocks, size) in enumerate(layout):
        if not parsed.levels:
            found.append(([Shard(axis)], [Shard(axis)]))
        elif blocks == 1 and count:
            found.append(([Shard(axis)], [Shard(axis), *[Replicate()] * count]))
        elif blocks > 1 and size == 1 and all(len(each) == len(shape) for each in levels):
            alike = [Shard(axis) if each[axis] == shape[axis] else Replicate() for each in levels]
            found.append(([Shard(axis)], [Shard(axis), *alike]))
    return found


def replicate(operator: torch._ops.OpOverload) -> None:
    """Let an operation take and give whole tensors only."""

    def strategy(*args: Any, **kwargs: Any) -> list[Sharding]:
        leaves = pytree.tree_leaves((args, kwargs), is_leaf=lambda leaf: hasattr(leaf, "tensor_meta"))
        takes: Placements = [Replicate() for leaf in leaves if hasattr(leaf, "tensor_meta")]
        return [([Replicate()] * len(operator._schema.returns), takes)]

    register_sharding(operator)(strategy)


def missing(error: NotImplementedError) -> torch._ops.OpOverload | None:
    """The operation of which torch says that it has no strategy."""
    found = _MISSING.search(str(error))
    if found is None:
        return None
    space, name, overload = found.groups()
    return getattr(getattr(getattr(torch.ops, space), name), overload)


def register() -> None:
    """Make the strategies above known; once is enough."""
    table = DTensor._op_dispatcher.sharding_propagator.op_to_schema_info
    rules = {
        torch.ops.planish.cast.default: cast,
        aten._scaled_dot_product_flash_attention_for_cpu.default: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward.default: attention_backward,
    }
    for operator, rule in rules.items():
        if operator not in table:
            register_sharding(operator)(rule)
    # the format, a text, decides too
    table[torch.ops.planish.cast.default] = RuntimeSchemaInfo(static_argnum=2, needs_pytree=True)
