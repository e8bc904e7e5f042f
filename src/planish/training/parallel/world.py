"""The processes of a training: who they are, the mesh that they form, and what they agree on."""

from __future__ import annotations

import logging
import os
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate
from torch.utils import _pytree as pytree

from planish.errors import OptionError
from planish.training.parallel.plan import AXES, Plan


def is_member() -> bool:
    """Whether this process is one of several, as torchrun starts them."""
    return dist.is_initialized() or "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE"} <= os.environ.keys()


def is_first() -> bool:
    """Whether this process is the first of a training, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


class World:
    """The processes that carry out a plan, one a device.

    Args:
        plan: The plan.

    Raises:
        OptionError: There are more or fewer processes than the plan takes.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        if kind == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        self._joined = not dist.is_initialized()
        if self._joined:
            backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
            if is_member():
                dist.init_process_group(backend)
            else:  # a plan of one device needs no launcher
                dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        if dist.get_world_size() != plan.devices:
            what = f"the plan takes {plan.devices} devices ({plan}), and there are {dist.get_world_size()} processes"
            raise OptionError(what, "plan", f"torchrun --nproc-per-node {plan.devices} ..., or another plan")
        self.rank = dist.get_rank()
        self.device = torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device("cpu")

    @cached_property
    def mesh(self) -> DeviceMesh:
        """All devices, with an axis for each word of the plan."""
        return init_device_mesh(self.device.type, tuple(getattr(self.plan, axis) for axis in AXES), mesh_dim_names=AXES)

    def leave(self) -> None:
        """Give up the process group, if it was made here."""
        if self._joined:
            dist.destroy_process_group()

    def place(self, axis: str) -> int:
        """Where this process is along an axis, from 0."""
        return self.mesh.get_local_rank(axis)

    @property
    def share(self) -> int:
        """Which part of each batch is this process's."""
        return self.place("dp") * self.plan.fsdp + self.place("fsdp")

    def total(self, *values: float) -> list[float]:
        """Sums over all processes."""
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(numbers)
        return numbers.tolist()

    def of_first(self, value: float) -> float:
        """What the first process has."""
        number = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(number, 0)
        return float(number)

    def copies(self, tensor: Tensor) -> int:
        """How many processes of one stage have the same part of a tensor."""
        sharded = 1
        if isinstance(tensor, DTensor):
            for axis, placement in enumerate(tensor.placements):
                sharded *= 1 if placement.is_replicate() else tensor.device_mesh.size(axis)
        return self.plan.devices // self.plan.pp // sharded


logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)  # how checkpoints are gathered


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on this process; every process that has a part of it must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This process's part."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(value: Any) -> Any:
    """A distributed tensor as a plain one that is equal on all devices, with its gradient; anything else as it is."""
    if not isinstance(value, DTensor):
        return value
    return value.redistribute(placements=[Replicate()] * value.device_mesh.ndim).to_local()


def replicated(values: Any, mesh: DeviceMesh) -> Any:
    """The inverse, of all tensors in a structure; nothing changes where one device has an operation to itself.

    A gradient that flows back through it is plain again.
    """

    def made(leaf: Any) -> Any:
        return DTensor.from_local(leaf, mesh, [Replicate()], run_check=False) if isinstance(leaf, Tensor) else leaf

    return pytree.tree_map(made, values) if mesh.size() > 1 else values
