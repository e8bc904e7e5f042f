"""The residual stream of a transformer: what writes to it, what reads it, and how to rotate all of it at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from planish.compress.hadamard import turned
from planish.compress.sites import roles
from planish.graph import Editor, Graph, Node

aten = torch.ops.aten
MOVES = frozenset(
    {"add", "add_", "dropout", "clone", "contiguous", "to", "_to_copy", "alias", "detach", "slice", "cat"}
)
MOVES |= {"select", "expand", "unsqueeze", "view", "reshape", "transpose", "permute", "mul", "index"}
"""Operations that a rotation of the last axis passes through, on conditions that `_passes` checks."""


@dataclass(frozen=True)
class Norm:
    """A norm of the stream.

    Attributes:
        output: Its last operation, gain included.
        plain: The same without gain and bias: the last operation before the gain of a norm that is written out, or the
            operation itself.
        gain: The tensor that multiplies it, if any.
        bias: The tensor that is added, if any.
        centers: Whether it takes the mean away: a layer norm.
        readers: The linear layers that read it.
    """

    output: Node
    plain: Node
    gain: Node | None
    bias: Node | None
    centers: bool
    readers: tuple[Node, ...]


@dataclass
class Stream:
    """Every value of one residual stream.

    Attributes:
        width: Channels.
        values: The nodes that hold it.
        writers: Linear layers, embeddings and tensors whose outputs are added to it.
        norms: What reads it.
    """

    width: int
    values: set[Node] = field(default_factory=set)
    writers: list[Node] = field(default_factory=list)
    norms: list[Norm] = field(default_factory=list)

    @property
    def readers(self) -> list[Node]:
        """The linear layers behind its norms."""
        return [reader for norm in self.norms for reader in norm.readers]


def find_stream(graph: Graph, layers: Iterable[Node]) -> Stream | None:
    """The residual stream with the most norms that can be rotated as a whole; None if there is none.

    Args:
        graph: The graph.
        layers: Linear layers that may be changed; a stream that others read too is left.
    """
    allowed = set(layers)
    starts = [node.inputs[0] for node in graph.nodes if node.op in ("layer_norm", "rms_norm", "pow") and node.inputs]
    found: list[Stream] = []
    for start in starts:
        if any(start in stream.values for stream in found):
            continue
        stream = _grown(start, allowed)
        if stream is not None and stream.norms and len({norm.centers for norm in stream.norms}) == 1:
            found.append(stream)
    return max(found, key=lambda stream: len(stream.norms), default=None)


def _grown(start: Node, allowed: set[Node]) -> Stream | None:
    """Everything that must turn when `start` does; None if something cannot."""
    if not start.shape or not isinstance(start.shape[-1], int):
        return None
    stream, todo = Stream(int(start.shape[-1])), [start]
    while todo:
        node = todo.pop()
        if node in stream.values:
            continue
        stream.values.add(node)
        if node.kind == "tensor" or node.op in ("linear", "addmm", "embedding"):
            if not _writes(node, stream.width):
                return None
            stream.writers.append(node)
        elif _passes(node, stream.width):
            todo += [source for source in node.inputs if isinstance(source.value, Tensor)]
        else:
            return None
        norms = [norm for user in node.users if (norm := _norm(node, user, stream.width)) is not None]
        inside = {step for norm in norms for step in _between(node, norm.plain)}
        for user in node.users:
            if user in inside:
                continue
            if user.kind != "call" or not _passes(user, stream.width):
                return None
            todo.append(user)
        if any(not norm.readers or not allowed.issuperset(norm.readers) for norm in norms):
            return None
        stream.norms += norms
    return stream


def _passes(node: Node, width: int) -> bool:
    """Whether an operation gives the rotated output for rotated inputs of `width` channels."""
    tensors = [source for source in node.inputs if isinstance(source.value, Tensor)]
    shapes = [node.shape, *(source.shape for source in tensors)]
    if node.op not in MOVES or any(not shape or shape[-1] != width for shape in shapes):
        return False
    last = len(node.shape or ()) - 1
    if node.op in ("add", "add_"):
        return len(tensors) == 2
    if node.op == "mul":
        return len(tensors) == 1
    if node.op == "index":
        return len(tensors) == 1
    if node.op in ("transpose", "permute"):
        order = node.args[1] if node.op == "permute" else None
        axes = [axis % (last + 1) for axis in node.args[1:3]] if order is None else []
        return order[-1] % (last + 1) == last if order is not None else last not in axes
    if node.op in ("slice", "select", "cat", "unsqueeze"):
        axis = node.argument("dim")
        rank = len(tensors[0].shape or ()) + (node.op == "unsqueeze")
        return axis % rank != rank - 1
    return True


def _writes(node: Node, width: int) -> bool:
    """Whether what a node adds to the stream can be rotated in tensors that nothing else reads."""
    if node.kind == "tensor":
        return bool(node.shape) and node.shape[-1] == width and _single(node) and node.value.is_floating_point()
    given = [tensor for tensor in (node.weight, node.bias) if tensor is not None]
    return node.weight is not None and all(
        one.kind == "tensor" and one.users == (node,) and _single(one) for one in given
    )


def _single(place: Node) -> bool:
    return sum(tensor is place.tensor for tensor in place.graph.tensors.values()) == 1


def _norm(value: Node, user: Node, width: int) -> Norm | None:
    if user.op in ("layer_norm", "rms_norm") and user.inputs[0] == value:
        if list(user.argument("normalized_shape")) != [width]:
            return None
        gain, bias = user.argument("weight"), user.argument("bias")
        return _checked(Norm(user, user, gain, bias, user.op == "layer_norm", _readers(user)))
    if user.op != "pow" or user.args[1] != 2:
        return None
    step = user  # mean of squares, plus a number, to the power of -1/2, times the value, times a gain
    for op in ("mean", "add", "rsqrt", "mul"):
        if len(step.users) != 1 or step.users[0].op != op:
            return None
        step = step.users[0]
    if value not in step.inputs:
        return None
    plain = step
    while len(plain.users) == 1 and plain.users[0].op in ("to", "_to_copy"):
        plain = plain.users[0]
    last = plain.users[0] if len(plain.users) == 1 else plain
    gains = [source for source in last.inputs if source.kind == "tensor"]
    if last.op != "mul" or len(gains) != 1 or gains[0].shape != (width,):
        return _checked(Norm(plain, plain, None, None, False, _readers(plain)))
    return _checked(Norm(last, plain, gains[0], None, False, _readers(last)))


def _checked(norm: Norm) -> Norm:
    """Without readers, if one of them could not take the gain."""
    plain = all(_writes(reader, 0) for reader in norm.readers)
    return norm if plain else Norm(norm.output, norm.plain, norm.gain, norm.bias, norm.centers, ())


def _readers(output: Node) -> tuple[Node, ...]:
    """The linear layers that read a norm, through operations that keep channels; () if anything else does."""
    found: list[Node] = []
    todo = list(output.users)
    width = int(output.value.shape[-1])
    while todo:
        user = todo.pop()
        if user.op in ("linear", "addmm") and user.input is not None:
            found.append(user)
        elif user.kind == "call" and user.op not in ("add", "add_", "mul", "cat") and _passes(user, width):
            todo += user.users
        else:
            return ()
    return tuple(found)


def _between(value: Node, last: Node) -> set[Node]:
    """The steps from a value to a later one that depends on it."""
    steps, todo = set(), [last]
    while todo:
        step = todo.pop()
        if step != value and step not in steps and step.kind == "call":
            steps.add(step)
            todo += step.inputs
    return steps


def fused(graph: Graph, stream: Stream, matrix: Tensor) -> Graph:
    """The graph with its stream multiplied by an orthogonal matrix `(width, width)`; its outputs are equal.

    Args:
        graph: A graph with the nodes that the stream names.
        stream: From `find_stream`.
        matrix: float64.
    """
    edit = graph.edit()
    change = matrix
    if stream.norms[0].centers:  # the mean is taken from what is written, once, and the norm need not
        eye = torch.eye(stream.width, dtype=torch.float64)
        change = (eye - torch.full_like(eye, 1 / stream.width)) @ matrix
    for writer in stream.writers:
        if writer.kind == "tensor":
            _change(edit, writer, change, -1)
            continue
        _change(edit, writer.weight, change, 1 if writer.op == "embedding" else roles(writer).out_axis)
        _change(edit, writer.bias, change, 0)
    for norm in stream.norms:
        for reader in norm.readers:
            _take_in(edit, edit.node(reader.name), norm, matrix)
        _strip(edit, norm)
    return edit.done()


def _change(edit: Editor, place: Node | None, matrix: Tensor, axis: int) -> None:
    if place is not None:
        name = str(place.target)
        edit.set_tensor(name, turned(edit.graph.tensors[name], matrix, axis))


def _take_in(edit: Editor, reader: Node, norm: Norm, matrix: Tensor) -> None:
    """Give a layer the norm's gain and bias, and the rotation of its input."""
    assert reader.weight is not None
    name, across = str(reader.weight.target), roles(reader).in_axis
    weight = edit.graph.tensors[name].detach().double().movedim(across, -1)  # (out, in)
    gain, bias = (
        None if place is None else edit.graph.tensors[str(place.target)].detach().double()
        for place in (norm.gain, norm.bias)
    )
    if bias is not None:
        moved = weight @ bias
        if reader.bias is not None:
            old = edit.graph.tensors[str(reader.bias.target)].detach()
            edit.set_tensor(str(reader.bias.target), (old.double() + moved).to(old.dtype))
        else:
            added = edit.add(f"{name.removesuffix('weight')}bias", moved.to(reader.value.dtype), trainable=True)
            edit.set_args(reader, *reader.args[:2], added)
    weight = weight if gain is None else weight * gain
    old = edit.graph.tensors[name]
    edit.set_tensor(name, (weight @ matrix).movedim(-1, across).to(old.dtype).contiguous())


def _strip(edit: Editor, norm: Norm) -> None:
    """Leave of a norm what divides by the root of the mean square."""
    output, plain = edit.node(norm.output.name), edit.node(norm.plain.name)
    if output != plain:
        edit.replace(output, plain)
    elif output.op in ("layer_norm", "rms_norm"):
        eps = output.argument("eps")
        bare = edit.call(aten.rms_norm.default, output.inputs[0], output.args[1], None, eps, before=output)
        edit.replace(output, bare)
