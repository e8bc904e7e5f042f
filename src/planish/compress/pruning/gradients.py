"""What the loss has to say about each weight: its derivative by the weight's mask.

With `c` in `expression * c` at 1, `dL/dc = w dL/dw`. SNIP (Lee et al., arXiv 1810.02340, equation 5) prunes where its
magnitude is least; movement pruning (Sanh et al., arXiv 2005.07683, equation 3) where `-w dL/dw`, summed over the data,
is least: where learning would move weights towards zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

from planish.errors import DataError
from planish.graph import Data, Graph, Progress
from planish.graph.assemble import assemble
from planish.metrics import read_tensor


def saliencies(
    graph: Graph, masks: Iterable[str], data: Data | None, by: str, seed: int, progress: Progress
) -> dict[str, Tensor]:
    """The score of each weight by the name of its mask, in the weight's shape.

    The loss of an item is the cross-entropy where its target holds class numbers, and half the mean squared difference
    where it holds an output. Without a target it is that to the output of `graph.origin`; for SNIP that output is moved
    by noise of its own size, as a model that still is what it was would otherwise have no gradient.

    Args:
        graph: With the masks in place.
        masks: The tensors' names.
        data: Items `(args, kwargs)` or `(args, kwargs, target)`.
        by: "snip" sums magnitudes over the items, "movement" the derivatives themselves, signs reversed.
        seed: Of the noise.
        progress: Called after each item.

    Raises:
        DataError: There is no data, an item does not fit, or all derivatives are zero.
    """
    found: dict[str, Tensor] = {}
    tensors = {name: tensor.detach() for name, tensor in graph.tensors.items()}
    for name in masks:
        there = tensors[name]
        ones = torch.ones(()).expand(there.shape) if bool(there.all()) else there.float()  # a view costs no memory
        tensors[name] = ones.detach().requires_grad_()
        tensors[name].register_post_accumulate_grad_hook(_collector(found, name, by))
    net = assemble(graph, fx.GraphModule, graph.fx, tensors, graph.branches)
    teacher = graph.origin or graph.replace()  # a copy: a graph that has run keeps its tensors
    noise = torch.Generator().manual_seed(seed) if by == "snip" else None
    items = list(() if data is None else data)
    if not items:
        raise DataError(f"by={by!r} looks at gradients, and there is no data", hint="recipe(graph, data=...)")
    for done, item in enumerate(items):
        graph.flat_inputs(tuple(item[0]), dict(item[1]))  # refuses what does not fit
        _loss(net, teacher, item, noise).backward()
        progress(done + 1, len(items), "gradients")
    if not any(bool(score.any()) for score in found.values()):
        raise DataError(
            "no weight has a gradient: the model answers what it is to answer", "data", "targets in the data, or 'snip'"
        )
    return {name: found.get(name, torch.zeros(tensors[name].shape)) for name in masks}


def _collector(found: dict[str, Tensor], name: str, by: str) -> Any:
    def collect(mask: Tensor) -> None:
        assert mask.grad is not None
        score = mask.grad.abs() if by == "snip" else -mask.grad
        found[name] = found[name].add_(score) if name in found else score.clone()
        mask.grad = None

    return collect


def _loss(net: fx.GraphModule, teacher: Graph, item: tuple[Any, ...], noise: torch.Generator | None) -> Tensor:
    args, kwargs, *given = item
    output = read_tensor(net(*args, **kwargs))
    if given and given[0] is not None:
        target = read_tensor(given[0])
        if not target.is_floating_point():
            return torch.nn.functional.cross_entropy(output.movedim(-1, 1), target.long())
    else:
        target = read_tensor(teacher(*args, **kwargs))
        if noise is not None:
            size = target.square().mean().sqrt()
            target = target + size * torch.randn(target.shape, generator=noise, dtype=target.dtype)
    if target.shape != output.shape:
        raise DataError(f"the target has shape {tuple(target.shape)}, the output {tuple(output.shape)}", "data")
    return (output - target).square().mean() / 2
