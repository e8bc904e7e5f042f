"""Where attention adds to a stream of tokens, and how a graph goes on with fewer of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planish.compress.adaptive.values import values_of
from planish.errors import GraphError, OptionError
from planish.graph import Editor, Graph, Node, Selector
from planish.graph.cut import ancestors

_RESHAPES = frozenset({"view", "reshape", "_unsafe_view"})


@dataclass(frozen=True)
class Block:
    """An attention over tokens and the place where its result joins the residual stream.

    Attributes:
        attention: `scaled_dot_product_attention` of queries, keys and values `(batch, heads, tokens, features)`.
        join: The addition to the stream, `(batch, tokens, features)`.
        tokens: How many tokens there are.
    """

    attention: Node
    join: Node
    tokens: int

    @property
    def path(self) -> str:
        """Module path of the attention."""
        return self.attention.path or self.attention.name


def blocks(graph: Graph, where: Selector | str, who: str) -> list[Block]:
    """The selected attentions whose tokens can be fewer afterwards, in execution order.

    Raises:
        OptionError: The selector matches no attention, or one whose tokens cannot be counted or followed; says why.
    """
    attentions = [node for node in graph.select(where) if node.op == "scaled_dot_product_attention"]
    if not attentions:
        raise OptionError(f"{who} finds no attention among what {str(where)!r} matches", "where", "where='attention'")
    found = [_block(node, who) for node in attentions]
    counts = {block.tokens for block in found}
    if len(counts) > 1:
        listed = ", ".join(map(str, sorted(counts, reverse=True)))
        raise OptionError(f"{who} begins with one number of tokens, and the blocks have {listed}", "where")
    return found


def _block(node: Node, who: str) -> Block:
    place = node.path or node.name

    def refuse(reason: str) -> OptionError:
        return OptionError(f"{who} cannot take this attention: {reason}", place, "where='attention & ~path(...)'")

    query, key = node.args[:2]
    tokens = key.shape[-2]
    mask = node.argument("attn_mask")
    if node.argument("is_causal") or (mask is not None and not _hides_nothing(mask)):
        raise refuse("its mask says which tokens see each other")
    if not isinstance(tokens, int):
        raise refuse("the number of its tokens varies")
    if query.shape != key.shape or len(query.shape) != 4:
        raise refuse(f"queries are {query.shape} and keys {key.shape}")
    at = node
    while at.op not in ("add", "add_") or any(source.kind == "tensor" for source in at.inputs):
        users = at.users
        if len(users) != 1 or users[0].kind != "call":
            raise refuse("its result is not added to the tokens it came from")
        at = users[0]
    if at.shape is None or len(at.shape) != 3 or at.shape[1] != tokens:
        raise refuse(f"its result joins a value of shape {at.shape}, not (batch, {tokens}, features)")
    return Block(node, at, tokens)


def _hides_nothing(mask: Node) -> bool:
    """Whether a mask depends on sizes only, and lets every token see every other."""
    if any(node.op == "placeholder" for node in ancestors(mask.fx, past_sizes=False)):
        return False
    graph = mask.graph
    (seen,) = values_of(graph, [graph.example], [mask.name])
    value = seen[mask.name]
    return bool(value.all()) if value.dtype == torch.bool else not bool(value.any())


def unmask(edit: Editor, found: Iterable[Block]) -> None:
    """Take away the masks, which hide nothing and are of the old sizes."""
    for block in found:
        attention = edit.node(block.attention.name)
        if attention.argument("attn_mask") is not None:
            weigh(edit, attention, None)


def weigh(edit: Editor, attention: Node, bias: Node | None) -> None:
    """Give attention a bias on its scores in place of its mask."""
    edit.set_args(attention, *attention.args[:3], bias, *attention.args[4:], **attention.kwargs)


def put(edit: Editor, old: Node, readers: Sequence[Node], new: Node, size: Node | None = None, count: int = 0) -> None:
    """Let the graph go on with a stream of fewer tokens.

    Every operation that depends on it gets its shape again; the token counts that the export baked into reshapes are
    rewritten. A mean over all tokens becomes one in which each counts for as many as were merged into it.

    Args:
        edit: The graph.
        old: The stream as it was, `(batch, tokens, features)`.
        readers: The operations that shall read the new one.
        new: The stream as it is to be, `(batch, fewer, features)`.
        size: Of each token, `(batch, fewer, 1)`: how many were merged into it; None counts each once.
        count: Sum of `size`: how many tokens there were at first.

    Raises:
        OptionError: An operation does not work with another number of tokens; names its module path.
    """
    tokens, before = int(old.value.shape[1]), {new: old.value}
    for reader in readers:
        edit.replace_input(reader, old, new)
    for fx_node in list(edit.graph.fx.nodes):
        node = Node(edit.graph, fx_node)
        if node.kind != "call" or not any(source in before for source in node.inputs):
            continue
        was = node.value
        try:
            if size is not None and node.op == "mean" and _is_over_tokens(node, new):
                total = edit.call(torch.ops.aten.mul.Tensor, node.args[0], size, before=node)
                total = edit.call(torch.ops.aten.sum.dim_IntList, total, *node.args[1:], before=node, **node.kwargs)
                edit.replace(node, edit.call(torch.ops.aten.div.Tensor, total, float(count), before=node))
                continue
            edit.set_args(node, *_resized(node, before), **node.kwargs)
        except GraphError as error:
            raise OptionError(
                f"{node.op} needs all {tokens} tokens: {error.what}", node.path or node.name, "leave its block out"
            ) from error
        if _shapes(node.value) != _shapes(was):
            before[node] = was


def _is_over_tokens(node: Node, stream: Node) -> bool:
    """Whether a mean runs over all tokens of a stream, and nothing else."""
    source, axes = node.args[0], node.argument("dim")
    return source.shape == stream.shape and axes is not None and [axis % 3 for axis in axes] == [1]


def _resized(node: Node, before: Mapping[Node, Any]) -> Sequence[Any]:
    """The arguments of an operation, a token count among the sizes of a reshape brought up to date."""
    source = node.args[0]
    if node.op not in _RESHAPES | {"expand"} or source not in before:
        return node.args
    sizes, was, now = list(node.args[1]), before[source].shape, source.value.shape
    axis = next(axis for axis, (a, b) in enumerate(zip(was, now, strict=True)) if str(a) != str(b))
    place = axis + len(sizes) - len(was) if node.op == "expand" else _place(node.value.shape, was[axis:])
    if place is not None and isinstance(sizes[place], int) and sizes[place] > 0 and sizes[place] % was[axis] == 0:
        sizes[place] = sizes[place] // was[axis] * now[axis]
    return [source, sizes, *node.args[2:]]


def _place(sizes: Sequence[Any], inner: Sequence[Any]) -> int | None:
    """Which size of a reshape's result covers the first of the innermost axes of its input; None if that varies."""
    left = math.prod(inner) if all(isinstance(size, int) for size in inner) else 0
    for place in range(len(sizes) - 1, -1, -1):
        if not isinstance(sizes[place], int) or sizes[place] < 1:
            return None
        if left <= sizes[place]:
            return place
        left //= sizes[place]
    return None


def _shapes(value: Any) -> list[str]:
    return [str(tuple(leaf.shape)) for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
