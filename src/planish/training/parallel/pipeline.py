"""A pipeline: the stages of this process, and one of PyTorch's schedules that runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import pipelining
from torch.distributed.device_mesh import DeviceMesh
from torch.utils import _pytree as pytree

from planish.graph import Graph
from planish.training.engine import Item
from planish.training.parallel.plan import LOOPED, Plan
from planish.training.parallel.stages import cut
from planish.training.parallel.world import World, gathered, replicated

SCHEDULES: dict[str, Any] = {
    "gpipe": pipelining.ScheduleGPipe,
    "1f1b": pipelining.Schedule1F1B,
    "interleaved": pipelining.ScheduleInterleaved1F1B,
    "interleaved-zero-bubble": pipelining.ScheduleInterleavedZeroBubble,
    "zero-bubble": pipelining.ScheduleZBVZeroBubble,
}
LossOf = Callable[[Any, Item], Tensor]
"""`(what the model returned, item) -> scalar`."""


class Runner(nn.Module):
    """A stage as the schedule calls it: with what the stage before gave, and with the number of a microbatch, whose
    inputs it reads itself."""

    def __init__(
        self, graph: Graph, stage: nn.Module, inputs: Sequence[int], items: list[Item], mesh: DeviceMesh
    ) -> None:
        super().__init__()
        self.stage = stage
        self._graph, self._inputs, self._items, self._mesh = graph, inputs, items, mesh

    def forward(self, *given: Tensor, place: Tensor) -> Any:
        """What the next stage takes; of the last one, what the model returns."""
        args, kwargs, _ = self._items[int(place)]
        leaves = self._graph.flat_inputs(args, kwargs)
        taken = replicated((*given, *(leaves[number] for number in self._inputs)), self._mesh)
        result = pytree.tree_map(gathered, self.stage(*taken))
        return tuple(result) if isinstance(result, list) else result


class Pipeline:
    """The stages of one process.

    Args:
        graph: The whole model.
        world: The processes.
        put: Makes of a stage what carries out the rest of the plan.
        loss: Of a microbatch.

    Attributes:
        stages: The modules of this process's stages, without what is around them.
        shared: Name of each parameter that several stages read -> how many processes of the pipeline have it.
    """

    def __init__(self, graph: Graph, world: World, put: Callable[[nn.Module], nn.Module], loss: LossOf) -> None:
        plan = world.plan
        found = cut(graph, plan.count_stages, plan.stages)
        place, last = world.place("pp"), plan.count_stages - 1
        mine = [stage for stage in range(last + 1) if owner(plan, stage) == place]
        self._items: list[Item] = []
        self.stages: list[nn.Module] = []
        made: list[pipelining.PipelineStage] = []
        group = world.mesh.get_group("pp")
        for number in mine:
            module = found[number].graph.module(hierarchical=True).train()
            self.stages.append(module)
            runner = Runner(graph, module, found[number].inputs, self._items, world.mesh["tp"])
            made.append(pipelining.PipelineStage(put(runner), number, last + 1, world.device, group=group))
        self.shared = _shared([each.graph for each in found], plan)
        self._count, self._loss, self._has_last = plan.microbatches, loss, last in mine
        schedule = SCHEDULES[plan.schedule]
        self._schedule = schedule(made if plan.schedule in LOOPED else made[0], plan.microbatches, loss_fn=self._of)

    def run(self, items: Sequence[Item]) -> float:
        """One pass forth and back; the mean loss on the process that has the last stage, and 0 on the others."""
        self._items[:] = items
        places, losses = torch.arange(self._count), list[Tensor]()
        self._schedule.step(place=places, target=places, losses=losses, return_outputs=False)
        return float(torch.stack([loss.detach() for loss in losses]).mean()) if self._has_last else 0.0

    def _of(self, output: Any, place: Tensor) -> Tensor:
        return self._loss(output, self._items[int(place)])


def owner(plan: Plan, stage: int) -> int:
    """The place in the pipeline that has a stage: dealt out in turn, or as a V that returns to where it began."""
    if plan.schedule == "zero-bubble" and stage >= plan.pp:
        return plan.count_stages - 1 - stage
    return stage % plan.pp


def _shared(graphs: Sequence[Graph], plan: Plan) -> dict[str, int]:
    names: dict[int, str] = {}
    holders: dict[int, list[int]] = {}
    for stage, graph in enumerate(graphs):
        for name, tensor in graph.tensors.items():
            if isinstance(tensor, nn.Parameter):
                names[id(tensor)] = min(name, names.get(id(tensor), name))
        for key in {id(each) for each in graph.tensors.values()} & names.keys():
            holders.setdefault(key, []).append(owner(plan, stage))
    return {names[key]: len(set(places)) for key, places in sorted(holders.items()) if len(places) > 1}
