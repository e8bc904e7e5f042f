"""`KernelSize`: convolutions with smaller or larger kernels, the old ones at their center."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from planish.compress.sites import weight_of
from planish.errors import OptionError
from planish.graph import FAMILIES, Candidate, Data, Editor, Graph, Node, Pass, Progress, Selector, Step, parse_selector
from planish.graph.modes import named_arguments

_LAST = 2**63 - 1


@dataclass(frozen=True)
class KernelSize(Pass):
    """Give convolutions another kernel size: the center of the kernel, or the kernel amid zeros.

    Padding follows, so that outputs keep their size. Several sizes of one network share their weights, as in
    Once-for-All (Cai et al., arXiv 1908.09791) without its transformation matrices.

    Attributes:
        size: Of the new kernels along each axis: one number, or one for each axis.
        where: The convolutions.
    """

    size: int | tuple[int, ...] = 3
    where: Selector | str = "conv"

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))
        if isinstance(self.size, list):
            object.__setattr__(self, "size", tuple(self.size))
        sizes = (self.size,) if isinstance(self.size, int) else self.size
        if not sizes or any(isinstance(size, bool) or size < 1 for size in sizes):
            raise OptionError(f"a kernel has 1 number or more along each axis, not {self.size}", "size", "size=3")

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each convolution: its kernel, and the bytes of its weight before and after."""
        steps = []
        for change in self._changes(graph):
            before = change.value.numel() * change.value.element_size()
            after = before * torch.Size(change.new).numel() // torch.Size(change.old).numel()
            action = f"kernel {_sides(change.old)} " + (
                "stays" if change.new == change.old else f"to {_sides(change.new)}"
            )
            steps.append(Step(change.node.path, change.node.name, action, before, after))
        return steps

    def draft(self, graph: Graph) -> Graph:
        """The graph with the new kernels."""
        return self._resized(graph)

    def candidates(self, graph: Graph) -> list[Candidate]:
        """The convolution with the part of the kernel, or with the kernel amid numbers that are learned."""
        found = []
        for change in self._changes(graph):
            node = change.node
            sources = [each for each in (node.input, node.weight, node.bias) if each is not None]
            found.append(Candidate(node.name, tuple(source.name for source in sources), Resized(change)))
        return found

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The graph with the new kernels."""
        return self._resized(graph)

    def _resized(self, graph: Graph) -> Graph:
        edit = graph.edit()
        for change in self._changes(graph):
            if change.new != change.old:
                _resize(edit, change)
        return edit.done()

    def _changes(self, graph: Graph) -> list[Change]:
        found = [node for node in graph.select(parse_selector(self.where)) if node.op in FAMILIES["conv"]]
        if not found:
            raise OptionError(f"{str(self.where)!r} selects no convolution", "where", "where='conv'")
        return [_change(node, self.size) for node in found]


@dataclass(frozen=True)
class Change:
    """What becomes of one convolution.

    Attributes:
        node: The convolution.
        value: Its weight.
        old: The kernel's sides.
        new: What they become.
        padding: What the padding becomes.
    """

    node: Node
    value: Tensor
    old: tuple[int, ...]
    new: tuple[int, ...]
    padding: tuple[int, ...]

    @property
    def margins(self) -> list[int]:
        """How far the new kernel reaches over the old one at each end of each axis, the last axis first; negative
        where it is smaller: as `functional.pad` takes them."""
        pairs = [((new - old) // 2,) * 2 for old, new in zip(self.old, self.new, strict=True)]
        return [end for pair in reversed(pairs) for end in pair]

    def arguments(self) -> dict[str, Any]:
        """The operation's arguments but for its operands."""
        given = named_arguments(self.node.fx)
        return {name: given[name] for name in ("stride", "dilation", "groups")} | {"padding": self.padding}


class Resized(nn.Module):
    """A convolution with another kernel size that shares its weight.

    Args:
        change: What becomes of it.
    """

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.margins, self.arguments = change.margins, change.arguments()
        self.convolve = getattr(functional, change.node.op)
        grows = any(new > old for old, new in zip(change.old, change.new, strict=True))
        shape = (*change.value.shape[:2], *change.new)
        self.border = nn.Parameter(torch.zeros(shape, dtype=change.value.dtype)) if grows else None
        inner = functional.pad(torch.ones_like(change.value), self.margins)
        self.register_buffer("outer", 1 - inner if grows else None)
        self.outer: Tensor | None

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """What the operation is given, its weight in the old size, to its result."""
        weight = functional.pad(weight, self.margins)
        if self.border is not None and self.outer is not None:
            weight = weight + self.border * self.outer
        return self.convolve(x, weight, bias, **self.arguments)


def _change(node: Node, size: int | tuple[int, ...]) -> Change:
    value, place = weight_of(node), node.path or node.name
    if "transpose" in node.op or value is None:
        raise OptionError(f"the kernel of {node.op} cannot change", place, "where='conv & ~path(...)'")
    old = tuple(value.shape[2:])
    new = (size,) * len(old) if isinstance(size, int) else size
    if len(new) != len(old):
        raise OptionError(f"the kernel has {len(old)} axes and the size {len(new)}", place, f"size={old}")
    given = named_arguments(node.fx)
    padding = _spread(given["padding"], given["dilation"], old)
    wider = [d * (n - o) for d, n, o in zip(_each(given["dilation"], old), new, old, strict=True)]
    if any(extra % 2 for extra in wider) or any((n - o) % 2 for n, o in zip(new, old, strict=True)):
        raise OptionError(f"a kernel of {_sides(new)} has no center in one of {_sides(old)}", place, "odd sizes")
    now = tuple(p + extra // 2 for p, extra in zip(padding, wider, strict=True))
    if min(now) < 0:
        raise OptionError(
            f"its outputs would grow: the kernel of {_sides(old)} has padding {_sides(padding)}",
            place,
            "where='conv & ~path(...)'",
        )
    return Change(node, value, old, new, now)


def _each(value: Any, like: Sequence[int]) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * len(like) if len(values) == 1 else values


def _spread(padding: Any, dilation: Any, sides: Sequence[int]) -> list[int]:
    """The padding as numbers; "same" and "valid" are words for some."""
    if padding == "valid":
        return [0] * len(sides)
    if padding == "same":
        return [d * (side - 1) // 2 for d, side in zip(_each(dilation, sides), sides, strict=True)]
    return _each(padding, sides)


def _resize(edit: Editor, change: Change) -> None:
    node = edit.node(change.node.name)
    weight = node.weight
    assert weight is not None, "it was folded"
    own = edit.graph.parameter_names - {name for name, t in edit.graph.tensors.items() if _tied(edit.graph, name, t)}
    if weight.kind == "tensor" and str(weight.target) in own and weight.users == (node,):
        _replace_tensor(
            edit,
            weight,
            functional.pad(change.value.detach(), change.margins).clone(memory_format=torch.contiguous_format),
        )
    else:
        padded = edit.call(torch.ops.aten.pad.default, weight, change.margins, before=node)
        edit.replace_input(node, weight, padded)
    given = named_arguments(node.fx)
    operands = [node.input, node.weight, node.bias]
    rest = [given["stride"], list(change.padding), given["dilation"], given["groups"]]
    node.fx.target = getattr(torch.ops.aten, node.op).default  # a padding in words has an overload of its own
    edit.set_args(node, *operands, *rest)


def _tied(graph: Graph, name: str, tensor: Tensor) -> bool:
    return any(other is tensor for each, other in graph.tensors.items() if each != name)


def _replace_tensor(edit: Editor, weight: Node, value: Tensor) -> None:
    """Give a parameter that one operation reads another shape."""
    name = str(weight.target)
    old = edit.graph.tensors.pop(name)
    weight.fx.target = f"{name}__gone"
    edit.graph.tensors[f"{name}__gone"] = old
    weight.fx._rename(f"{weight.name}__gone")
    new = edit.add(name, nn.Parameter(value, old.requires_grad), trainable=True)
    edit.replace(weight, new)


def _sides(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))
