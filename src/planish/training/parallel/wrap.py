"""PyTorch's engines put around a module: recomputation, tensor parallelism, sharding and replicas, in this order."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from planish.errors import OptionError
from planish.training.parallel.plan import Plan
from planish.training.parallel.tensor import distribute
from planish.training.parallel.world import World

# A model may return a view of its last activation; nobody here writes into it.
warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)


def wrap(module: nn.Module, world: World, axes: dict[str, int]) -> nn.Module:
    """The module, or one around it, that carries out its part of a plan but for the pipeline.

    Args:
        module: Changed in place.
        world: The processes.
        axes: Parameter name -> the axis that tensor parallelism divides.
    """
    plan = world.plan
    if plan.tp > 1:
        distribute(module, world.mesh["tp"], axes)  # a parameter at a time: no device ever has the whole model
    if is_sharded(plan):
        _shard(module, world)  # a unit at a time
    move(module, world.device)
    if plan.dp > 1 and not is_sharded(plan):
        return DistributedDataParallel(module, process_group=world.mesh.get_group("dp"))
    return module


def move(module: nn.Module, device: torch.device) -> None:
    """Put on the device what is not there yet."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device != device:
            tensor.data = tensor.data.to(device)


def is_sharded(plan: Plan) -> bool:
    """Whether FSDP2 carries out the plan, or a part of it."""
    return plan.fsdp > 1 or (plan.dp > 1 and plan.tp * plan.pp > 1)


def loose(module: nn.Module) -> list[nn.Parameter]:
    """What FSDP2 does not take: single numbers, and parameters of another type than most (scales that learn)."""
    sizes: Counter[torch.dtype] = Counter()
    for each in module.parameters():
        sizes[each.dtype] += each.numel()
    return [each for each in module.parameters() if each.dim() == 0 or each.dtype != sizes.most_common(1)[0][0]]


def _shard(module: nn.Module, world: World) -> None:
    """FSDP2, each unit gathered as a whole. Replicas alone are shards of one: DDP takes no distributed tensors."""
    plan = world.plan
    mesh = world.mesh["dp", "fsdp"] if plan.dp > 1 else world.mesh["fsdp"]
    half = torch.bfloat16 if plan.precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32 if half else None)
    whole = set(loose(module))
    for unit in units(module):
        fully_shard(unit, mesh=mesh, mp_policy=policy, ignored_params=whole)
    if any(True for _ in module.parameters()):
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=whole)


def units(module: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a model: modules of its lists, outermost ones, that share no parameter with the rest."""
    owners = _owners(module)

    def walk(parent: nn.Module) -> Iterator[nn.Module]:
        for child in parent.children():
            inside = _owners(child)
            if not isinstance(parent, nn.ModuleList | nn.Sequential) or not inside:
                yield from walk(child)
            elif all(owners[parameter] == count for parameter, count in inside.items()):
                yield child

    return walk(module)


def _owners(module: nn.Module) -> Counter[nn.Parameter]:
    """How many modules have each parameter."""
    return Counter(each for part in module.modules() for each in part._parameters.values() if each is not None)


def recompute(module: nn.Module, pattern: str) -> None:
    """Compute the activations of the outermost modules whose path matches again instead of keeping them.

    Raises:
        OptionError: There are none.
    """
    found: list[str] = []
    for path, child in module.named_modules():
        if path and fnmatchcase(path, pattern) and not any(path.startswith(f"{each}.") for each in found):
            found.append(path)
            child.forward = partial(_checkpointed, child.forward)
    if not found:
        known = ", ".join(path for path, _ in list(module.named_modules())[1:9])
        raise OptionError(f"no module's path matches {pattern!r}", "plan.recompute", f"one of {known}...")


def _checkpointed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def sync(modules: list[nn.Module], wanted: bool) -> None:
    """Whether the next backward pass shares gradients, or only adds to this process's own."""
    for module in modules:
        for each in module.modules():
            if isinstance(each, FSDPModule):
                each.set_requires_gradient_sync(wanted, recurse=False)
            elif isinstance(each, DistributedDataParallel):
                each.require_backward_grad_sync = wanted


def inner(module: nn.Module) -> nn.Module:
    """The module itself, without what is around it."""
    return module.module if isinstance(module, DistributedDataParallel) else module
