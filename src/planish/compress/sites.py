"""Which layers read which tensor: the unit in which activations are quantized and smoothed.

Layers that read one tensor (a query, key and value projection) share its cast, so that an engine quantizes it once and
may fuse the layers into one.
"""

# ruff: noqa: A002  (`format` is the word for it everywhere else)

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from planish.errors import OptionError
from planish.formats import Format
from planish.graph import FAMILIES, ROLES, Graph, Node, Roles, Selector
from planish.graph.evaluate import base_name_of, fold

AVERAGES = frozenset(f"{kind}avg_pool{axes}d" for kind in ("", "adaptive_") for axes in (1, 2, 3))


@dataclass(frozen=True)
class Site:
    """One activation and the selected layers that read it, in execution order."""

    source: Node
    layers: tuple[Node, ...]

    @property
    def path(self) -> str:
        """Module path of the first layer; its node's name where there is no module."""
        return self.layers[0].path or self.layers[0].name


def weighted(graph: Graph, where: Selector | str) -> list[Node]:
    """The selected operations whose weight is known without running the model.

    Raises:
        OptionError: There is none.
    """
    found = [node for node in graph.select(where) if weight_of(node) is not None]
    if not found:
        raise OptionError(
            f"the selector {str(where)!r} matches no layer with weights", "where", "where='linear | conv'"
        )
    return found


def weight_of(node: Node) -> torch.Tensor | None:
    """The value of a layer's weight, its expression folded; None if it has none or it depends on an input."""
    weight = node.weight
    return None if weight is None or not base_name_of(weight.fx) else fold(node.graph, weight.fx)


def weight_name(node: Node) -> str:
    """The user's name of the layer's weight."""
    assert node.weight is not None
    return base_name_of(node.weight.fx)


def roles(node: Node) -> Roles:
    """Where the operation keeps its input, weight and bias."""
    return ROLES[node.op]


def is_embedding(node: Node) -> bool:
    """Whether the weight is looked up rather than multiplied."""
    return node.op in FAMILIES["embedding"]


def sites(layers: Iterable[Node]) -> list[Site]:
    """The layers that multiply, grouped by the tensor they read."""
    groups: dict[Node, list[Node]] = {}
    for layer in layers:
        if layer.input is not None and not is_embedding(layer):
            groups.setdefault(layer.input, []).append(layer)
    return [Site(source, tuple(readers)) for source, readers in groups.items()]


def skips(site: Site) -> tuple[Node, ...]:
    """Additions that read the tensor beside convolutions: a skip connection of a convolutional network. Those of a
    transformer are left alone; engines add there in float anyway, and the error would stay in the residual stream."""
    if not all(layer.op in FAMILIES["conv"] for layer in site.layers):
        return ()
    same = [user for user in site.source.users if user.op in ("add", "add_") and user.shape == site.source.shape]
    return tuple(user for user in same if all(source.kind != "tensor" for source in user.inputs))


def unweighted(layers: Sequence[Node]) -> list[Site]:
    """Activations that no weight meets, and that convolutions give out in integers all the same, so that no kernel
    writes floats between them: of two convolutions whose outputs are added, the second (the projection of a shortcut),
    and what an average pool reads. Each has one reader."""
    convolutions, found = [layer for layer in layers if layer.op in FAMILIES["conv"]], list[Site]()
    for node in dict.fromkeys(user for layer in convolutions for user in layer.users):
        if node.op in ("add", "add_") and len(set(node.inputs)) == 2 and set(node.inputs) <= set(convolutions):
            found.append(Site(node.inputs[1], (node,)))
    if convolutions:
        pools = [node for node in convolutions[0].graph.nodes if node.op in AVERAGES]
        found += [Site(pool.inputs[0], (pool,)) for pool in pools if _given_by(pool.inputs[0], convolutions)]
    return [site for site in found if len(site.source.users) == 1]


def _given_by(node: Node, layers: Sequence[Node]) -> bool:
    """Whether one of the layers gave a tensor, what is done number by number behind it aside."""
    while node.op not in FAMILIES["conv"]:
        before = [one for one in node.inputs if one.kind != "tensor" and one.shape == node.shape]
        if not before:
            return False
        node = before[0]
    return node in layers


def placed_on_weight(format: Format, node: Node) -> Format:
    """The format with its block chosen: one scale for each output channel where it names none."""
    return format.per_channel(roles(node).out_axis) if format.block is None else format


def placed_on_activation(format: Format) -> Format:
    """The format with its block chosen: one scale for the tensor, or one a token where it is dynamic."""
    if format.block is not None:
        return format
    return format.per_token() if format.is_dynamic else format.per_tensor()


def static_shape(format: Format, shape: Sequence[int | torch.SymInt], where: str) -> tuple[int, ...]:
    """Shape of the scales that calibration finds for an activation, which serve every batch.

    Raises:
        OptionError: Their number would follow the batch's size.
    """
    found, other = (
        format.scale_shape([size if isinstance(size, int) else free for size in shape]) for free in (1 << 16, 1 << 17)
    )
    if found != other:
        message = f"{format} has a scale for each block of one batch, and the next batch has other blocks"
        raise OptionError(message, where, f"'{format.dynamic()}', whose scales are found as numbers come")
    return found


def free_name(taken: Iterable[str], stem: str, endings: Sequence[str]) -> str:
    """`stem`, or `stem_1`, `stem_2`… such that no `stem + ending` is taken."""
    names, count, candidate = set(taken), 0, stem
    while any(candidate + ending in names for ending in endings):
        count += 1
        candidate = f"{stem}_{count}"
    return candidate


def replace_tensor(graph: Graph, name: str, tensor: torch.Tensor) -> None:
    """Give a tensor of a graph that nobody else holds other values; a parameter stays one.

    The values are laid out as a file lays them out: products may differ in the last bit where layouts do.
    """
    old, tensor = graph.tensors[name], tensor.contiguous()
    graph.tensors[name] = (
        torch.nn.Parameter(tensor, old.requires_grad) if isinstance(old, torch.nn.Parameter) else tensor
    )
