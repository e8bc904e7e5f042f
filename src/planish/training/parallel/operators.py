"""How operations that PyTorch has no sharding strategy for work on distributed tensors.

PyTorch lets users register strategies (`register_sharding`); what no strategy can say, as our rounding that talks to
other devices, goes into the private table of the operations that PyTorch itself does so, here and nowhere else.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.experimental import register_sharding
from torch.distributed.tensor.placement_types import Placement
from torch.utils import _pytree as pytree

from planish.training.parallel import casts

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
    known = DTensor._op_dispatcher.sharding_propagator.op_to_schema_info
    rules = {
        aten._scaled_dot_product_flash_attention_for_cpu.default: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward.default: attention_backward,
    }
    for operator, rule in rules.items():
        if operator not in known:
            register_sharding(operator)(rule)
    DTensor._op_dispatcher._custom_op_handlers |= {
        torch.ops.planish.cast.default: casts.cast,
        torch.ops.planish.cast_gradients.default: casts.gradients,
    }
