"""What DTensor does to each operation of a graph on one axis of a mesh: the only module that asks its private tables.

A strategy says how the inputs of an operation lie on the devices and how its output then does. Only those are
strategies that DTensor runs without traffic of its own: what must be moved is moved between operations, where it can
be seen and counted. Composite operations are taken apart first, as PyTorch does before DTensor sees them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta
from torch.distributed.tensor._op_schema import OpSchema
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from planish.training.parallel.operators import register

REPLICATED, PARTIAL = "R", "P"
"""Names of placements; "S0" is sharded along the first axis."""
MOVES = object()
aten = torch.ops.aten
STEPS = 100
"""An operation that comes apart into more (an LSTM's thousands) is not divided: DTensor would say the same of each."""
LIMIT = 256
"""Combinations of placements of one operation's inputs that are tried; none met so far has more than 64."""


@dataclass(frozen=True)
class Strategy:
    """How one operation may run.

    Attributes:
        inputs: Placement of each of its inputs, in order.
        output: Placement of what it returns.
    """

    inputs: tuple[str, ...]
    output: str

    @property
    def is_divided(self) -> bool:
        """The devices share the work, rather than each doing all of it."""
        return self.output != REPLICATED or any(name != REPLICATED for name in self.inputs)


class Oracle:
    """Asks DTensor, and remembers: blocks repeat, so few questions are new.

    Args:
        devices: Of the axis.
    """

    _apart: ClassVar[dict[Any, fx.Graph]] = {}  # the same for any number of devices

    def __init__(self, devices: int) -> None:
        self.devices = devices
        self._mesh = DeviceMesh("cpu", torch.arange(devices), _init_backend=False, _rank=0)
        register()
        self._propagator = DTensor._op_dispatcher.sharding_propagator
        self._known: dict[Any, tuple[Strategy, ...]] = {}

    def tensor(self, shape: Sequence[int]) -> tuple[Strategy, ...]:
        """Of a parameter: whole, or sharded along any axis that the devices divide."""
        axes = [axis for axis, size in enumerate(shape) if size % self.devices == 0]
        return (Strategy((), REPLICATED), *(Strategy((), f"S{axis}") for axis in axes))

    def strategies(self, call: Call, offered: Sequence[Sequence[str]]) -> tuple[Strategy, ...]:
        """Of an operation, given the placements that its inputs can have.

        Returns:
            All of them; none where DTensor does not know the operation at all.
        """
        key = (call.key, tuple(map(tuple, offered)))
        if key not in self._known:
            if call.key not in self._apart:
                self._apart[call.key] = _taken_apart(call)
            steps = self._apart[call.key]
            if len(steps.nodes) > STEPS:
                return ()
            combinations = itertools.islice(itertools.product(*offered), LIMIT)
            found = ((names, self._run(steps, call, names)) for names in combinations)
            self._known[key] = tuple(Strategy(tuple(names), output) for names, output in found if output)
        return self._known[key]

    def _run(self, steps: fx.Graph, call: Call, names: Sequence[str]) -> str | None:
        """The output's placement when the inputs lie so; None if DTensor would have to move something."""
        specs: dict[fx.Node, Any] = {}
        given = iter(zip(names, call.tensors, strict=True))
        for step in steps.nodes:
            if step.op == "placeholder":
                name, tensor = next(given)
                specs[step] = self._spec(name, tensor)
            elif step.op == "get_attr":
                specs[step] = self._spec(REPLICATED, getattr(steps.owning_module, str(step.target)))
            elif step.op == "call_function":
                try:
                    specs[step] = self._step(step, specs)
                except Exception:  # whatever a table of torch's raises says that it has no answer
                    return None
                if specs[step] is MOVES:
                    return None
        results = pytree.tree_leaves(fx.map_arg(steps.output_node().args[0], lambda node: specs[node]))
        names_out = {_name(spec) for spec in results if isinstance(spec, DTensorSpec)}
        return names_out.pop() if len(names_out) == 1 else None

    def _step(self, step: fx.Node, specs: Mapping[fx.Node, Any]) -> Any:
        if not isinstance(step.target, torch._ops.OpOverload):  # getitem
            source, index = step.args
            return specs[source][index]  # type: ignore[index]
        args = pytree.tree_map_only(fx.Node, lambda node: specs[node], step.args)
        kwargs = pytree.tree_map_only(fx.Node, lambda node: specs[node], dict(step.kwargs))
        if not any(isinstance(leaf, DTensorSpec) for leaf in pytree.tree_leaves((args, kwargs))):
            return pytree.tree_map_only(torch.Tensor, lambda made: self._spec(REPLICATED, made), step.meta["val"])
        schema = OpSchema(step.target, tuple(args), kwargs, self._propagator.op_to_schema_info.get(step.target))
        result = self._propagator.propagate_op_sharding_non_cached(schema)
        wanted = result.redistribute_schema
        if wanted is not None:
            for now, then in zip(schema.args_spec, wanted.args_spec, strict=True):
                # A replicated tensor is cut, or made a part of a sum, without a message.
                if now.placements != then.placements and _name(now) != REPLICATED:
                    return MOVES
        return result.output_spec

    def _spec(self, name: str, tensor: torch.Tensor) -> DTensorSpec:
        meta = TensorMeta(tensor.shape, tensor.stride(), tensor.dtype)
        return DTensorSpec(self._mesh, (placement(name),), tensor_meta=meta)


@dataclass(frozen=True)
class Call:
    """An operation with fake tensors for inputs.

    Attributes:
        target: The operator.
        args: With each tensor, in order of `tensors`, as a number.
        kwargs: Likewise.
        tensors: The inputs, fake and of known sizes.
    """

    target: Any
    args: Any
    kwargs: Any
    tensors: tuple[torch.Tensor, ...]

    @property
    def key(self) -> Any:
        """Equal for equal operations on equal shapes."""
        shapes = tuple((tuple(tensor.shape), tensor.stride(), tensor.dtype) for tensor in self.tensors)
        return str(self.target), repr((self.args, self.kwargs)), shapes

    def __call__(self, *tensors: torch.Tensor) -> Any:
        """Run it."""
        args, kwargs = pytree.tree_map_only(Slot, lambda slot: tensors[slot.index], (self.args, self.kwargs))
        if self.target is aten.scaled_dot_product_attention.default:
            return _attention(*args, **kwargs)
        return self.target(*args, **kwargs)


@dataclass(frozen=True)
class Slot:
    """Stands for the input of that number."""

    index: int


def placement(name: str) -> Placement:
    """DTensor's placement of that name."""
    if name == REPLICATED:
        return Replicate()
    return Partial() if name == PARTIAL else Shard(int(name[1:]))


def _name(spec: Any) -> str | None:
    found = spec.placements[0]
    if isinstance(found, Replicate):
        return REPLICATED
    if isinstance(found, Partial):
        return PARTIAL if found.reduce_op == "sum" else None
    return f"S{found.dim}" if type(found) is Shard else None


def _attention(query: Any, key: Any, value: Any, attn_mask: Any = None, *_: Any, **__: Any) -> Any:
    """As a device with a fused kernel does it: on this machine's CPU, DTensor knows no attention."""
    if attn_mask is not None:
        return aten._scaled_dot_product_efficient_attention(query, key, value, attn_mask, False)[0]
    return aten._scaled_dot_product_flash_attention(query, key, value)[0]


def _taken_apart(call: Call) -> fx.Graph:
    """The operations that PyTorch gives to DTensor."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, torch.no_grad():
        fakes = [
            torch.empty_strided(tuple(each.shape), each.stride(), dtype=each.dtype, device="meta")
            for each in call.tensors
        ]
        steps = make_fx(call, tracing_mode="fake")(*fakes).graph
    steps.eliminate_dead_code()
    return steps


def call_of(node: fx.Node, value: Callable[[fx.Node], Any]) -> tuple[Call, tuple[fx.Node, ...]]:
    """The node as a `Call`, and the nodes that its tensors come from.

    Args:
        node: An operation.
        value: Of a node: a fake tensor of known sizes, or a number.
    """
    tensors: list[torch.Tensor] = []
    sources: list[fx.Node] = []

    def place(source: fx.Node) -> Any:
        found = value(source)
        if not isinstance(found, torch.Tensor):
            return found
        tensors.append(found)
        sources.append(source)
        return Slot(len(tensors) - 1)

    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), place)
    return Call(node.target, args, kwargs, tuple(tensors)), tuple(sources)
