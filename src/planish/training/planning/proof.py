"""Proof, without devices, that a plan applies: many ranks simulated in one process.

Both ways stand on private parts of torch, which only this module touches. A process that has a process group already
cannot use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed._local_tensor import LocalTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.experimental import implicit_replication
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils import _pytree as pytree

from planish.graph import Graph
from planish.training.parallel.plan import AXES, Plan
from planish.training.parallel.tensor import distribute, named


@contextmanager
def ranks(plan: Plan) -> Iterator[DeviceMesh]:
    """A mesh of all the plan's devices on which this process is rank 0 and every message goes nowhere."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=plan.devices)
    try:
        yield init_device_mesh("cpu", tuple(getattr(plan, name) for name in AXES), mesh_dim_names=AXES)
    finally:
        dist.destroy_process_group()


def local_shapes(graph: Graph, plan: Plan) -> dict[str, tuple[int, ...]]:
    """What one rank of all the plan's holds of each parameter: tensor parallel shards, and of these its FSDP shard.

    Raises:
        OptionError: The plan divides a parameter that its devices do not.
    """
    axes = named(plan.shards or {}, graph.tensors, plan.tp)
    found: dict[str, tuple[int, ...]] = {}
    with ranks(plan) as mesh:
        for name in sorted(graph.parameter_names):
            tensor = torch.empty(graph.tensors[name].shape, device="meta")
            divided = [Shard(axes[name]) if name in axes else Replicate()]
            own = distribute_tensor(tensor, mesh["tp"], divided).to_local()
            found[name] = tuple(distribute_tensor(own, mesh["fsdp"], [Shard(0)]).to_local().shape)
    return found


def error(graph: Graph, plan: Plan) -> float:
    """How far the outputs of tensor parallel devices are from those of one, relative to the largest.

    All ranks are computed. Gradients count too, relative to the largest of any parameter: those of the mean square of
    all outputs.
    """
    axes = named(plan.shards or {}, graph.tensors, plan.tp)
    args, kwargs = graph.example
    alone = graph.module(hierarchical=True)
    one = _outputs(alone(*args, **kwargs))
    _loss(one).backward()
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=plan.tp)
    try:
        with LocalTensorMode(plan.tp), implicit_replication():
            mesh = init_device_mesh("cpu", (plan.tp,))
            module = graph.module(hierarchical=True)
            distribute(module, mesh, axes)
            given = pytree.tree_map_only(torch.Tensor, lambda each: distribute_tensor(each, mesh, [Replicate()]), args)
            many = _outputs(module(*given, **kwargs))
            _loss(many).backward()
            mine = dict(module.named_parameters())
            theirs = [(name, each.grad) for name, each in alone.named_parameters() if each.grad is not None]
            gradients = [(gradient, _whole(mine[name].grad)) for name, gradient in theirs]
            outputs = [(each.detach(), _whole(other)) for each, other in zip(one, many, strict=True)]
        return max(_apart(outputs), _apart(gradients))
    finally:
        dist.destroy_process_group()


def _apart(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    largest = max(float(one.abs().max()) for one, _ in pairs)
    return max(float((one - other).abs().max()) for one, other in pairs) / largest


def _loss(outputs: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([each.square().mean() for each in outputs]).sum()


def _outputs(value: object) -> list[torch.Tensor]:
    return [each for each in pytree.tree_leaves(value) if isinstance(each, torch.Tensor)]


def _whole(tensor: torch.Tensor | None) -> torch.Tensor:
    """A distributed tensor as one, of rank 0."""
    assert isinstance(tensor, DTensor)
    return tensor.full_tensor().reconcile().detach()  # type: ignore[attr-defined]  # a LocalTensor within its mode
