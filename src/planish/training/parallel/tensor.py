"""Tensor parallelism: parameters become distributed tensors, and every operation on them follows.

Which axis of which parameter is divided is read off the channels that go together (`planish.analysis.dependency`): a
layer that makes channels is divided along its outputs, those that read them along their inputs, so that the devices
meet once behind each such pair, as in Megatron-LM (arXiv 1909.08053, section 3). Channels that a norm or the model's
own inputs and outputs hold together are not divided.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from planish.analysis.dependency import Group, dependencies
from planish.analysis.dependency.dims import Dim, root
from planish.errors import OptionError, UnknownName
from planish.graph import Graph

LAYERS = ("linear", "addmm", "matmul")
"""Operations whose channels are divided."""


def megatron(graph: Graph, devices: int) -> dict[str, int]:
    """Parameter name -> the axis that is divided; the others are whole on each device.

    Raises:
        OptionError: No channels can be divided by so many, or a layer's have another count; names the layers.
    """
    found = dependencies(graph)
    chosen: dict[str, int] = {}
    taken: set[str] = set()
    odd: list[Group] = []
    for group in sorted(found.free, key=lambda each: each.kind != "heads"):
        layers = {*group.makers, *group.readers}
        if not group.makers or not group.readers or group.kind == "features" or layers & taken:
            continue
        if any(graph.node(name).op not in LAYERS for name in layers) or _is_wide(group):
            continue
        places = {place.tensor: place.axis for place in group.places if place.tensor in graph.parameter_names}
        if not all(_leads(found.tensors[name][axis], group.dim) for name, axis in places.items()):
            continue  # query | key | value in one: a contiguous part of it is no whole head
        if group.size % devices:
            odd.append(group)
            continue
        taken |= layers
        chosen |= places
    if not chosen:
        what = "no channels of the model can be divided" + (f" by {devices}: {_list(odd)}" if odd else "")
        hint = "fsdp instead of tp" if not odd else f"tp={_common([group.size for group in odd])}"
        raise OptionError(what, odd[0].path if odd else "plan.tp", hint)
    return {**chosen, **_tied(graph, chosen)}


def named(shards: Mapping[str, int], tensors: Mapping[str, Tensor], devices: int) -> dict[str, int]:
    """What the patterns of a plan say of the parameters of a model.

    Raises:
        UnknownName: A pattern matches no parameter.
        OptionError: A parameter has no such axis, or its size there is no multiple of `devices`.
    """
    found: dict[str, int] = {}
    for pattern, axis in shards.items():
        names = [name for name in tensors if fnmatchcase(name, pattern)]
        if not names:
            raise UnknownName("parameter", pattern, tensors, "plan.shards")
        for name in names:
            shape = tuple(tensors[name].shape)
            if not 0 <= axis < len(shape):
                raise OptionError(f"a parameter of shape {shape} has no axis {axis}", name, f"0 to {len(shape) - 1}")
            if shape[axis] % devices:
                what = f"{shape[axis]} along axis {axis} cannot be divided by tp = {devices}"
                raise OptionError(what, name, f"tp={_common([shape[axis]])}")
            found[name] = axis
    return found


def distribute(module: nn.Module, mesh: DeviceMesh, axes: Mapping[str, int]) -> None:
    """Make every parameter a distributed tensor over a mesh of one axis, divided along `axes` or whole."""
    made: dict[int, nn.Parameter] = {}
    for path, owner in module.named_modules():
        for leaf, parameter in list(owner._parameters.items()):
            if parameter is None:
                continue
            if id(parameter) not in made:
                axis = axes.get(f"{path}.{leaf}" if path else leaf)
                placement = Replicate() if axis is None else Shard(axis)
                value = distribute_tensor(parameter.detach(), mesh, [placement])
                made[id(parameter)] = nn.Parameter(value, parameter.requires_grad)
            owner._parameters[leaf] = made[id(parameter)]


def _is_wide(group: Group) -> bool:
    """Whether the channels are those of the residual stream, which all layers of the model read."""
    return bool({*group.makers} & {*group.readers})


def _leads(axis: Dim, leaf: Dim) -> bool:
    """Whether a contiguous part of the axis is a contiguous part of the leaf: it is the leaf, or its slowest factor."""
    axis = root(axis)
    while axis.kind == "product":
        axis = root(axis.parts[0])
    return axis is root(leaf)


def _tied(graph: Graph, chosen: Mapping[str, int]) -> dict[str, int]:
    """The other names of the chosen tensors."""
    axes = {id(graph.tensors[name]): axis for name, axis in chosen.items()}
    return {name: axes[id(graph.tensors[name])] for name in graph.parameter_names if id(graph.tensors[name]) in axes}


def _list(groups: list[Group]) -> str:
    shown = ", ".join(f"{group.size} {group.kind} of {group.path}" for group in groups[:3])
    return shown + (f" and {len(groups) - 3} more" if len(groups) > 3 else "")


def _common(sizes: list[int]) -> int:
    """The largest of some usual counts that divides one of the sizes."""
    return next((count for count in (8, 7, 6, 5, 4, 3, 2) if any(size % count == 0 for size in sizes)), 1)
