"""`Spread`: the engine of a training that a plan spreads over devices."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor.experimental import implicit_replication
from torch.utils import _pytree as pytree

from planish.errors import OptionError
from planish.graph import Graph
from planish.graph.hierarchy import Part
from planish.graph.ops import base_name
from planish.training.engine import Item, Loss, moved, named_parameters
from planish.training.options import Training
from planish.training.parallel import operators
from planish.training.parallel.pipeline import Pipeline
from planish.training.parallel.plan import Plan
from planish.training.parallel.rows import check_rows, parts
from planish.training.parallel.stages import cut
from planish.training.parallel.tensor import distribute, megatron, named
from planish.training.parallel.world import World, gathered, local, replicated, whole
from planish.training.parallel.wrap import is_sharded, loose, move, recompute, sync, wrap


class Spread:
    """This process's part of a training.

    Args:
        module: In the mode that it trains in; of a graph, its module tree. All processes have the same one.
        loss: Of an item; in a pipeline it may call the module once and use only what that returns.
        training: The options.
        plan: How it is spread.
        graph: The model as a graph: in a pipeline, and where tensor parallelism has to find what to divide. Also says
            which inputs have rows.

    Raises:
        OptionError: The plan does not fit the model or the processes; says where.
    """

    def __init__(self, module: nn.Module, loss: Loss, training: Training, plan: Plan, graph: Graph | None) -> None:
        if training.precision != "fp32":
            hint = "Plan(..., precision='bf16')"
            raise OptionError("precision is an option of the plan where there is one", "training.precision", hint)
        _warn_of_norms(module, plan)
        operators.register()
        self.world = World(plan)
        self.device, self._loss, self._seed, self._graph = self.world.device, loss, training.seed, graph
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=False)
        self._axes = _axes(plan, module, graph)
        if plan.tp > 1 and graph is not None:
            _try_out(graph, self.world, self._axes)
        self._pipeline: Pipeline | None = None
        if plan.pp > 1:
            assert graph is not None, "a pipeline is cut out of a graph"
            self._pipeline = Pipeline(graph, self.world, self._put, self._of_output)
            self._modules = self._pipeline.stages
        else:
            self._modules = [module]
            self._net = self._put(module)

    def _put(self, module: nn.Module) -> nn.Module:
        if self.world.plan.recompute:
            recompute(module, self.world.plan.recompute)
        return wrap(module, self.world, self._axes)

    # What the loop asks for -------------------------------------------------------------------------------------------

    def tensors(self) -> Mapping[str, Tensor]:
        """This process's part of the parameters, and its buffers."""
        found: dict[str, Tensor] = {}
        for module in reversed(self._modules):  # of two copies the first counts
            found |= named_parameters(module) | dict(module.named_buffers())
        return found

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Those that train."""
        pairs = (pair for module in reversed(self._modules) for pair in named_parameters(module).items())
        return {name: each for name, each in pairs if each.requires_grad}

    def backward(self, items: Sequence[Item], step: int) -> float:
        """This process's rows of the items, and the mean loss of all."""
        self._renew()
        plan, total = self.world.plan, 0.0
        with self._own_random(step), implicit_replication():  # tensors that are not distributed count as whole
            for number, item in enumerate(items):
                own = parts(moved(item, self.device), plan.shares, self._graph)[self.world.share]
                small = parts(own, plan.microbatches, self._graph)
                total += self._pass(small, len(items), last=number == len(items) - 1) / len(items)
        self._share_tied()
        self._settle()
        self._share_loose()
        return self.world.total(total)[0] / (plan.shares * plan.tp)

    def length(self) -> float:
        """Of the gradient over all processes."""
        alike: dict[int, list[Tensor]] = {}  # gradients by how many processes have the same
        shared = self._pipeline.shared if self._pipeline else {}
        for name, parameter in self.parameters().items():
            if parameter.grad is not None:
                copies = self.world.copies(parameter.grad) * shared.get(name, 1)
                alike.setdefault(copies, []).append(local(parameter.grad))
        square = sum(float(torch.nn.utils.get_total_norm(each)) ** 2 / copies for copies, each in alike.items())
        return self.world.total(square)[0] ** 0.5

    def agreed(self, seconds: float) -> float:
        """What the first process's clock says."""
        return self.world.of_first(seconds)

    def gathered(self) -> dict[str, Tensor]:
        """All parameters and buffers, whole, on each process."""
        mine = {name: whole(tensor.detach()).cpu() for name, tensor in self.tensors().items()}
        if self._pipeline is None:
            return mine
        every: list[Any] = [None] * self.world.plan.pp
        dist.all_gather_object(every, mine, group=self.world.mesh.get_group("pp"))
        return {name: tensor for part in every for name, tensor in part.items()}

    # One pass ---------------------------------------------------------------------------------------------------------

    def _pass(self, items: Sequence[Item], count: int, last: bool) -> float:
        if self._pipeline is not None:
            return self._pipeline.run(items)
        total = 0.0
        for number, item in enumerate(items):
            sync([self._net], last and number == len(items) - 1)
            with self._autocast():
                loss = self._loss(self._whole, item) / (len(items) * count)  # type: ignore[arg-type]  # all that is called
            loss.backward()
            total += float(loss.detach()) * count
        return total

    def _whole(self, *args: Any, **kwargs: Any) -> Any:
        """What the module returns, gathered from the devices that share an operation."""
        args, kwargs = replicated((args, kwargs), self.world.mesh["tp"])
        return pytree.tree_map(gathered, self._net(*args, **kwargs))

    def _of_output(self, output: Any, item: Item) -> Tensor:
        with self._autocast():
            return self._loss(lambda *_args, **_kwargs: output, item)  # type: ignore[arg-type]  # all that it may call

    def _autocast(self) -> torch.autocast:
        """FSDP gathers parameters in the plan's precision, and leaves the choice of each operation's type to torch."""
        return torch.autocast(self.device.type, torch.bfloat16, self.world.plan.precision == "bf16")

    @contextmanager
    def _own_random(self, step: int) -> Iterator[None]:
        """Random numbers of the step and of this process's rows; the loop's own are equal everywhere, and stay so."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed((self._seed * 1_000_003 + step) * self.world.plan.shares + self.world.share)
            yield

    # Gradients --------------------------------------------------------------------------------------------------------

    def _share_tied(self) -> None:
        """Add up the gradients of what several stages of a pipeline read."""
        if self._pipeline is None or self._graph is None:
            return
        for name in self._pipeline.shared:
            copies, like = self._copies(name), self._graph.tensors[name]
            total = torch.zeros(like.shape, dtype=like.dtype, device=self.device)
            for parameter in copies:
                if parameter.grad is not None:
                    total += whole(parameter.grad)
                    parameter.grad = None
            dist.all_reduce(total, group=self.world.mesh.get_group("pp"))
            for parameter in copies[:1]:
                if isinstance(parameter, DTensor):
                    spec = {"device_mesh": parameter.device_mesh, "placements": parameter.placements}
                    total = distribute_tensor(total, **spec, src_data_rank=None)
                parameter.grad = total

    def _share_loose(self) -> None:
        """The mean gradient, over the shares, of what FSDP2 does not take."""
        if not is_sharded(self.world.plan):
            return
        for parameter in (each for module in self._modules for each in loose(module)):
            if parameter.grad is not None:
                gradient = local(parameter.grad)
                for axis in ("fsdp", "dp"):
                    dist.all_reduce(gradient, group=self.world.mesh.get_group(axis))
                gradient /= self.world.plan.shares

    def _copies(self, name: str) -> list[nn.Parameter]:
        """What two stages of this process each have of a parameter; the first is trained."""
        found = [named_parameters(module).get(name) for module in self._modules]
        return [each for each in found if each is not None]

    @torch.no_grad()
    def _renew(self) -> None:
        """Give second copies the values of the first."""
        for name in self._pipeline.shared if self._pipeline else ():
            for copy in (copies := self._copies(name))[1:]:
                local(copy).copy_(local(copies[0]))

    def _settle(self) -> None:
        """Give each gradient the placement of its parameter."""
        for parameter in self.parameters().values():
            grad = parameter.grad
            if isinstance(grad, DTensor) and isinstance(parameter, DTensor) and grad.placements != parameter.placements:
                parameter.grad = grad.redistribute(placements=parameter.placements)


def _axes(plan: Plan, module: nn.Module, graph: Graph | None) -> dict[str, int]:
    """What tensor parallelism divides."""
    if plan.tp == 1:
        return {}
    if plan.shards is not None:
        return named(plan.shards, dict(module.named_parameters(remove_duplicate=False)), plan.tp)
    assert graph is not None, "a graph says what belongs together"
    return megatron(graph, plan.tp)


def _try_out(graph: Graph, world: World, axes: dict[str, int]) -> None:
    """Run the example forth and back on tensors that are divided, and let each operation that PyTorch cannot divide be
    done by all devices. It is found before the other engines are around the model: they take no second try."""
    net = graph.module(hierarchical=True).train()
    distribute(net, world.mesh["tp"], axes)
    move(net, world.device)
    while True:
        try:
            with torch.random.fork_rng([world.device] if world.device.type == "cuda" else []), implicit_replication():
                args, kwargs = replicated(moved(graph.example, world.device), world.mesh["tp"])
                leaves = pytree.tree_leaves(pytree.tree_map(gathered, net(*args, **kwargs)))
                torch.stack([leaf.sum() for leaf in leaves if leaf.requires_grad]).sum().backward()
            return
        except NotImplementedError as error:
            operator = operators.missing(error)
            if operator is None:
                raise
            operators.replicate(operator)
            what = f"{operator} cannot be divided: each of {world.plan.tp} devices does it all"
            warnings.warn(what, stacklevel=5)


def _warn_of_norms(module: nn.Module, plan: Plan) -> None:
    """Statistics of a batch are those of its parts once it is dealt out."""
    if plan.shares * plan.microbatches == 1:
        return
    for path, each in module.named_modules():
        steps = each.graph.nodes if isinstance(each, Part) else ()
        own = isinstance(each, nn.modules.batchnorm._BatchNorm) or any(
            base_name(n.target) == "batch_norm" for n in steps
        )
        if own and each.training:
            what = f"{path or 'the model'} normalizes by the statistics of a batch, now by those of each part of it"
            warnings.warn(f"{what}; group norm, or module.eval(), gives what one process gives", stacklevel=5)
            return


def check(plan: Plan, graph: Graph) -> None:
    """Refuse a plan that does not fit a model, before a process is started for it.

    Raises:
        OptionError: The parameters cannot be divided, there are fewer blocks than stages, or a pattern matches nothing;
            says where.
    """
    net = graph.module(hierarchical=True)
    _axes(plan, net, graph)
    if plan.pp > 1:
        cut(graph, plan.count_stages, plan.stages)
    if plan.recompute:
        recompute(net, plan.recompute)
    if plan.shares * plan.microbatches > 1:
        check_rows(graph)
