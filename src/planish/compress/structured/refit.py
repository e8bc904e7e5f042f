"""Making up for what was pruned: each reader's weights are fitted again to the outputs that it had."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from planish.analysis.dependency import Dependencies, Group, Keep, indices_of, moved
from planish.compress.expression import assign, solvable
from planish.compress.sites import is_embedding, replace_tensor, roles, weight_of
from planish.compress.sweep import Read, sweep
from planish.graph import FAMILIES, Data, Graph, Node, Progress
from planish.graph.evaluate import base_name_of

PULL = 0.01
"""How strongly the fit is held to the original weights, as a share of the diagonal's mean."""
ROWS = 8192
"""Rows of an input that one item of data gives to a fit."""


def refit(found: Dependencies, groups: Sequence[Group], keep: Keep, data: Data | None, progress: Progress) -> Graph:
    """The graph in its old shapes, the pruned units without effect and their readers fitted by least squares.

    Layer by layer in execution order, on what earlier layers, fitted already, really give; the target is what the layer
    gave in the whole graph (as channel pruning does, He et al., arXiv 1707.06168, section 3.1, for all readers).
    A layer whose weights another operation reads too, or that has groups or three axes of space, keeps its weights.

    Args:
        found: The dependencies of the graph.
        groups: Those that lose units.
        keep: The indices that stay.
        data: Calibration data.
        progress: Called for each layer.
    """
    graph = found.graph.replace(tensors=dict(found.graph.tensors))
    readers = {name for group in groups for name in group.readers if is_fitted(graph.node(name))}
    # what a query and a key lose changes their product at once: their makers give zeros from here on
    makers = {name for group in groups if group.kind == "features" for name in group.makers} - readers
    makers = {name for name in makers if _own(graph.node(name))}
    done = 0

    def visit(node: Node, read: Read) -> None:
        nonlocal done
        progress(done, len(readers | makers), f"fitting {node.path}")
        done += 1
        if node.name in readers:
            _fit(found, graph, node, keep, read)
        else:
            _silence(found, graph, node, keep)

    if readers:
        sweep(graph, data, visit, readers | makers, "PruneStructured")
    return graph


def _own(node: Node) -> bool:
    """Whether the layer's weight can get values that nobody else reads."""
    weight = node.weight
    if weight is None or weight_of(node) is None or is_embedding(node) or not solvable(weight.fx):
        return False
    step = weight.fx
    while len(step.users) == 1:
        if step.op == "get_attr":
            return True
        step = next(source for source in step.all_input_nodes if base_name_of(source))
    return False


def is_fitted(node: Node) -> bool:
    """Whether a layer's weights can be fitted: its own, and of an operation that is one matrix product."""
    if not _own(node) or node.input is None:
        return False
    convolved = node.op in ("conv1d", "conv2d") and node.argument("groups") == 1
    plain = convolved and not isinstance(node.argument("padding"), str)
    return node.op in FAMILIES["linear"] or plain


def _fit(found: Dependencies, graph: Graph, node: Node, keep: Keep, read: Read) -> None:
    assert node.weight is not None
    assert node.input is not None
    axis = roles(node).in_axis
    dim = found.trace.axes(node.weight.fx)[axis]
    weight = weight_of(found.graph.node(node.name))
    if weight is None or not moved(dim, keep):
        return
    matrix = weight.detach().double().movedim(axis, 1).flatten(1)  # outputs, channels × kernel
    spots = prod(weight.shape[2:])
    kept = (indices_of(dim, keep)[:, None] * spots + torch.arange(spots)).reshape(-1)
    gram, cross, mean_in, mean_out = _moments(node, read, matrix.float(), kept)
    pull = PULL * gram.diag().mean().clamp_min(1e-12) * torch.eye(len(kept), dtype=gram.dtype)
    solved = torch.linalg.solve(gram + pull, cross + pull @ matrix[:, kept].T).T
    fitted = torch.zeros_like(matrix)
    fitted[:, kept] = solved
    shape = weight.movedim(axis, 1).shape
    _give(graph, node, fitted.reshape(shape).movedim(1, axis).to(weight.dtype))
    if node.bias is not None and _bias_is_own(node):
        name = str(node.bias.target)
        old = graph.tensors[name].detach()
        shift = mean_out - solved @ mean_in
        _replace(graph, name, (old.double() + shift).to(old.dtype))


def _moments(node: Node, read: Read, matrix: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the kept inputs and the exact outputs: products, `(kept, kept)` and `(kept, outputs)`, and means; the products
    are taken about the means where a bias can make up for them."""
    assert node.input is not None
    count, dtype = 0, torch.float64
    gram = torch.zeros(len(kept), len(kept), dtype=dtype)
    cross = torch.zeros(len(kept), len(matrix), dtype=dtype)
    sum_in, sum_out = torch.zeros(len(kept), dtype=dtype), torch.zeros(len(matrix), dtype=dtype)
    for batch in read(node.input):
        actual, exact = (rows_of(node, value.float()) for value in (batch.actual, batch.exact))
        stride = -(-len(actual) // ROWS)
        inputs, outputs = actual[::stride][:, kept], exact[::stride] @ matrix.T
        gram += (inputs.T @ inputs).double()
        cross += (inputs.T @ outputs).double()
        sum_in += inputs.sum(0).double()
        sum_out += outputs.sum(0).double()
        count += len(inputs)
    mean_in, mean_out = sum_in / count, sum_out / count
    if node.bias is not None and _bias_is_own(node):
        gram = gram - count * mean_in[:, None] * mean_in
        cross = cross - count * mean_in[:, None] * mean_out
    return gram / count, cross / count, mean_in, mean_out


def rows_of(node: Node, value: Tensor) -> Tensor:
    """What meets the weight, one row for each place of the output: `(rows, channels × kernel)`."""
    if node.op in FAMILIES["linear"]:
        return value.reshape(-1, value.shape[-1])
    assert node.weight is not None
    kernel = [int(size) for size in node.weight.value.shape[2:]]
    given = [[int(each) for each in node.argument(name)] for name in ("stride", "padding", "dilation")]
    options = [each * (len(kernel) // len(each)) for each in given]
    if len(kernel) == 1:
        value, kernel = value.unsqueeze(-2), [1, *kernel]
        options = [[neutral, *each] for neutral, each in zip((1, 0, 1), options, strict=True)]
    stride, padding, dilation = map(tuple[int, ...], options)
    columns = functional.unfold(value, tuple(kernel), dilation, padding, stride)
    return columns.transpose(1, 2).flatten(0, 1)


def _silence(found: Dependencies, graph: Graph, node: Node, keep: Keep) -> None:
    """Let a layer give zero for the units that go."""
    assert node.weight is not None
    axis, weight = roles(node).out_axis, weight_of(node)
    dim = found.trace.axes(node.weight.fx)[axis]
    if weight is None or not moved(dim, keep):
        return
    stays = torch.zeros(weight.shape[axis], dtype=weight.dtype)
    stays[indices_of(dim, keep)] = 1
    shape = [-1 if place == axis else 1 for place in range(weight.ndim)]
    _give(graph, node, weight * stays.reshape(shape))
    if node.bias is not None and _bias_is_own(node):
        _replace(graph, str(node.bias.target), graph.tensors[str(node.bias.target)].detach() * stays)


def _bias_is_own(node: Node) -> bool:
    return node.bias is not None and node.bias.kind == "tensor" and len(node.bias.users) == 1


def _give(graph: Graph, node: Node, value: Tensor) -> None:
    assert node.weight is not None
    before = dict(graph.tensors)
    assign(graph, node.weight.fx, value)
    _follow(graph, before)


def _replace(graph: Graph, name: str, value: Tensor) -> None:
    before = dict(graph.tensors)
    replace_tensor(graph, name, value)
    _follow(graph, before)


def _follow(graph: Graph, before: dict[str, Tensor]) -> None:
    """A tensor that has several names stays one."""
    new = {id(old): graph.tensors[name] for name, old in before.items() if graph.tensors[name] is not old}
    for name, old in before.items():
        graph.tensors[name] = new.get(id(old), graph.tensors[name])
