"""Casts that train: the estimator of their gradient, and scales that learn.

A scale learns as `s * 2**p`, with `p` from 0: it stays positive, and a step of the optimizer is a share of the scale
whatever its size. What the cast reads is a number of the scale's own format all the while (a power of two in MX).
"""

from __future__ import annotations

import torch
from torch import Tensor

from planish.errors import OptionError
from planish.formats import FLOAT32, Element, Format
from planish.formats.learning import Gradient
from planish.graph import Editor, Graph, Node
from planish.graph.evaluate import fold

LEARNING = ("lsq", "pact")
POWER = "__power"


def with_gradient(graph: Graph, gradient: Gradient) -> Graph:
    """The graph with another gradient on its casts, and with scales that learn if it is one by which they do.

    Raises:
        OptionError: Scales are to learn, and there is no cast with a stored one.
    """
    edit, learn, count = graph.edit(), gradient in LEARNING, 0
    for name in [node.name for node in graph.nodes if node.op == "cast"]:
        cast = edit.node(name)
        assert cast.format is not None
        if learn and cast.format.is_dynamic:
            continue  # no scale is stored: the gradient passes straight through
        parameters = list(cast.argument("parameters"))
        if learn:
            parameters = [_learned(edit, cast, *pair) for pair in zip(parameters, cast.format.levels, strict=True)]
            count += len(parameters)
        seed = cast.argument("seed")
        rest = () if seed is None else (seed,)
        edit.set_args(cast, cast.argument("x"), parameters, cast.argument("format"), gradient, *rest)
    if learn and not count:
        raise OptionError(f"no cast has a stored scale that could learn by {gradient!r}", "gradient", "Quantize first")
    return edit.done()


def scales(graph: Graph) -> dict[str, Tensor]:
    """The scales that such a graph has learned, by the names of the tensors that they started from."""
    found: dict[str, Tensor] = {}
    for cast in (node for node in graph.nodes if node.op == "cast"):
        for learned in (place for place in cast.argument("parameters") if place.kind == "call"):
            start = learned
            while start.kind == "call":
                start = start.inputs[0]
            value = fold(graph, learned.fx)
            assert value is not None, "a scale depends on tensors only"
            found[str(start.target)] = value.detach()
    return found


def _learned(edit: Editor, cast: Node, stored: Node, level: tuple[str, Element]) -> Node:
    name, element = level
    if name.rpartition(".")[2] != "scale" or stored.tensor is None:
        return stored
    power = edit.add(f"{stored.target}{POWER}", torch.zeros_like(stored.tensor, dtype=torch.float32), trainable=True)
    factor = edit.call(torch.ops.aten.exp2.default, power, before=cast)
    scale = edit.call(torch.ops.aten.mul.Tensor, stored, factor, before=cast)
    if element == FLOAT32:
        return scale
    rounding = Format(element, scale=None, overflow=element.overflows[0])
    return edit.call(torch.ops.planish.cast.default, scale, [], str(rounding), "straight-through", before=cast)
