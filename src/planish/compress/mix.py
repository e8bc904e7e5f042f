"""Multiply the channels of what linear layers read by a matrix, and their weights by its inverse."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from planish.compress.hadamard import turned
from planish.compress.migrate import add_to_bias, producers
from planish.compress.sites import Site, free_name, roles, sites, weight_of, weighted
from planish.graph import Editor, Graph, Node, Selector

aten = torch.ops.aten


@dataclass(frozen=True)
class Mix:
    """What is done to runs of channels: `(x - shift) @ forward`, and `weight @ backward` so that outputs stay.

    Attributes:
        forward: `(size, size)` float64 for all runs, or `(runs, size, size)`.
        backward: Its inverse, transposed.
        shift: `(channels,)` float64.
    """

    forward: Tensor
    backward: Tensor
    shift: Tensor | None = None


def mixable(graph: Graph, where: Selector | str) -> list[Site]:
    """The activations of linear layers that have plain weights of their own: not shared, and behind no mask or cast."""
    linear = [node for node in weighted(graph, where) if node.op in ("linear", "addmm")]
    return [site for site in sites(linear) if all(_is_plain(layer, site) for layer in site.layers)]


def is_own(layer: Node) -> bool:
    """Whether a node is a linear layer with a plain weight and bias that nothing else reads."""
    given = [layer.weight, layer.bias] if layer.op in ("linear", "addmm") else []
    own = [tensor is None or (_is_tensor(tensor) and tensor.users == (layer,)) for tensor in given]
    return bool(given) and given[0] is not None and all(own)


def matrix_of(layer: Node) -> Tensor:
    """The weight of a layer, `(outputs, inputs)` float64."""
    weight = weight_of(layer)
    assert weight is not None
    weight = weight.detach().double()
    return weight if roles(layer).in_axis == 1 else weight.T


def makers(graph: Graph, found: list[Site]) -> dict[str, Node]:
    """For each site, by its source's name, the linear layer that makes it (through attention: its values), if any."""
    made = producers(graph, found).items()
    return {name: maker for name, maker in made if maker.op == "linear" and _is_tensor(maker.weight)}


def head(site: Site) -> int:
    """Channels of a head, where attention makes what a site reads; else all that it reads."""
    node = site.source
    while node.op not in ("scaled_dot_product_attention", "linear"):
        node = node.inputs[0]
    return int(node.value.shape[-1])


def fold_into(edit: Editor, maker: Node, site: Site, mix: Mix) -> None:
    """Mix what a linear layer gives in the layer itself: nothing is left to compute."""
    if mix.shift is not None:
        assert maker.bias is not None
        name = str(maker.bias.target)
        edit.set_tensor(name, edit.graph.tensors[name].detach() - mix.shift.to(edit.graph.tensors[name].dtype))
    _turn(edit, maker.weight, mix.forward, roles(maker).out_axis)
    _turn(edit, maker.bias, mix.forward, 0)
    _answer(edit, site, mix)


def fold_scores(edit: Editor, query: Node, key: Node, mix: Mix) -> None:
    """Mix the queries by `forward` and the keys by `backward`: their products stay."""
    for layer, matrix in ((query, mix.forward), (key, mix.backward)):
        _turn(edit, layer.weight, matrix, roles(layer).out_axis)
        _turn(edit, layer.bias, matrix, 0)


def put_in_front(edit: Editor, site: Site, mix: Mix) -> None:
    """Mix by a product in front of the layers that read it."""
    first, source = edit.node(site.layers[0].name), edit.node(site.source.name)
    width, size, dtype = int(source.value.shape[-1]), mix.forward.shape[-1], source.value.dtype
    matrix = mix.forward.reshape(size, size) if size == width else mix.forward
    stem = free_name(edit.graph.tensors, f"{site.path}.input", ["__h", "__shift"])
    held = edit.add(f"{stem}__h", matrix.to(dtype).contiguous())
    value, cut, own = source, size < width, matrix.dim() == 3
    if cut:
        value = edit.call(aten.unflatten.int, value, -1, [width // size, size], before=first)
    if own:  # runs before rows, so that each run is one product
        value = edit.call(aten.transpose.int, value, -3, -2, before=first)
    value = edit.call(aten.matmul.default, value, held, before=first)
    if own:
        value = edit.call(aten.transpose.int, value, -3, -2, before=first)
    if cut:
        value = edit.call(aten.flatten.using_ints, value, -2, -1, before=first)
    if mix.shift is not None:
        offset = edit.add(f"{stem}__shift", -turned(mix.shift, mix.forward, 0).to(dtype))
        value = edit.call(aten.add.Tensor, value, offset, before=first)
    for layer in site.layers:
        edit.replace_input(edit.node(layer.name), source, value)
    _answer(edit, site, mix)


def _answer(edit: Editor, site: Site, mix: Mix) -> None:
    for layer in site.layers:
        if mix.shift is not None:
            add_to_bias(edit, layer, mix.shift)
        _turn(edit, layer.weight, mix.backward, roles(layer).in_axis)


def _turn(edit: Editor, place: Node | None, matrix: Tensor, axis: int) -> None:
    if place is not None:
        name = str(place.target)
        edit.set_tensor(name, turned(edit.graph.tensors[name], matrix, axis))


def _is_plain(layer: Node, site: Site) -> bool:
    weight = layer.weight
    return weight is not None and _is_tensor(weight) and all(user in site.layers for user in weight.users)


def _is_tensor(weight: Node | None) -> bool:
    """Whether channels may be mixed: not those of a weight behind a mask."""
    return weight is not None and weight.kind == "tensor"
