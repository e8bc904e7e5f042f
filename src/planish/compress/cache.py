"""The key-value cache of a causal language model, found by what the graph does with it.

A tensor goes in, the keys or values of the new tokens are appended to it, attention reads the whole, and the whole
comes out again for the next call. Whatever is cast before it is appended is cast once: attention reads what the cache
holds, in this call and in every later one.
"""

# ruff: noqa: A001, A002  (`format` is the word for it everywhere else)

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch

from planish.errors import OptionError
from planish.formats import Format, get
from planish.graph import FAMILIES, Graph, Node

Formats = tuple[Format | None, Format | None]
"""Of keys and of values."""
Role = Literal["keys", "values"]

_APPEND = frozenset({"cat", "concat", "concatenate"})
_CUT = frozenset({"slice", "narrow", "contiguous", "clone", "alias", "detach"})
_PRODUCTS = FAMILIES["attention"] | FAMILIES["matmul"]
_SOFTMAX = frozenset({"softmax", "_softmax", "_safe_softmax"})
_MANY = 1 << 30
"""Stands for a size that varies: more than any block holds."""


@dataclass(frozen=True)
class Cache:
    """One tensor of a cache.

    Attributes:
        role: What attention takes it for.
        new: The keys or values of the tokens of one call.
        whole: The operation that appends them to those of earlier calls.
        axis: Its axis of tokens.
    """

    role: Role
    new: Node
    whole: Node
    axis: int

    @property
    def path(self) -> str:
        """Module path of the attention; the node's name where there is no module."""
        return self.whole.path or self.whole.name

    def shape(self, varying: int, tokens: int) -> list[int]:
        """The shape of some tokens' keys or values, with one number for every other size that may vary."""
        assert self.new.shape is not None
        sizes = [size if isinstance(size, int) else varying for size in self.new.shape]
        sizes[self.axis] = tokens
        return sizes

    def token_bytes(self, format: Format | None = None) -> float:
        """Bytes of one more token in a row of the batch; without a format in the tensor's own type."""
        if format is None:
            return torch.Size(self.shape(1, 1)).numel() * self.new.value.element_size()
        return (format.nbytes(self.shape(1, 9)) - format.nbytes(self.shape(1, 1))) / 8  # eight end on a whole byte


def caches(graph: Graph) -> list[Cache]:
    """The tensors of the graph's cache, in the order in which it returns them."""
    found: dict[Node, Cache] = {}
    for output in graph.outputs:
        whole = _uncut(output)
        tensors = whole.argument("tensors") if whole.op in _APPEND else None
        if tensors is None or len(tensors) != 2 or _uncut(tensors[0]).kind != "input" or whole in found:
            continue
        role = _role(whole)
        if role is not None:
            found[whole] = Cache(role, tensors[1], whole, whole.argument("dim") % whole.value.dim())
    return list(found.values())


def formats_of(given: Format | str | tuple[Format | str | None, Format | str | None] | None, option: str) -> Formats:
    """The formats of keys and values, given as one for both or as a pair.

    Raises:
        OptionError: It is something else, or an unknown format.
    """
    pair = given if isinstance(given, tuple) else (given, given)
    if len(pair) != 2:
        raise OptionError(f"{option} is one format or two, not {len(pair)}", option, f"{option}=('int8', 'int4')")
    keys, values = (None if format is None else get(format) for format in pair)
    return keys, values


def to_cast(graph: Graph, formats: Formats) -> list[tuple[Cache, Format]]:
    """The tensors of the cache that are to be cast and are not yet, each with its format.

    Raises:
        OptionError: The graph has no cache, all of it is cast, or a format does not suit a cache.
    """
    found = caches(graph)
    if not found:
        raise OptionError(
            "the graph has no key-value cache: no input that new keys or values are appended to, that attention reads "
            "and that comes out again",
            "cache",
            "capture the model with use_cache=True and past_key_values among the inputs, or leave cache out",
        )
    wanted = [(cache, formats[cache.role == "values"]) for cache in found]
    left = [(cache, placed(format, cache)) for cache, format in wanted if format and cache.new.op != "cast"]
    if not left:
        raise OptionError("the whole cache is quantized already", "cache", "leave cache out of the later pass")
    return left


def placed(format: Format, cache: Cache) -> Format:
    """The format as a cache takes it: one scale for each token of each head where it names no block.

    What belongs to one token is computed when the token comes (the format is then dynamic), and what all tokens share
    is known before (static): so a token is rounded alike, whichever tokens come with it.

    Raises:
        OptionError: Scales are shared by some tokens, by those of one call, or depend on the size of the batch.
    """
    chosen = _by_token(format)
    shape = cache.shape(_MANY, _MANY)
    varying = [axis for axis, size in enumerate(shape) if size == _MANY]
    levels = [level if len(level) >= len(shape) else (1,) * len(shape) for level in chosen.level_shapes(shape)]
    if all(level[cache.axis] == _MANY for level in levels):
        return chosen.dynamic()
    if not chosen.is_dynamic and all(level[axis] == 1 for level in levels for axis in varying):
        return chosen
    raise OptionError(
        f"{chosen} has scales that tokens of one call or of one batch would share, and later tokens would not",
        "cache",
        "blocks within a token (int8@token, int4@g32, bm8@tile1x48), or over all of them (int8@tensor)",
    )


def _by_token(format: Format) -> Format:
    """The format with a block at each of its levels: that of one token where it names none."""
    if format.scale is None:
        return format
    placed = format.per_token() if format.block is None else format
    return placed if placed.scale is None else replace(placed, scale=_by_token(placed.scale))


def _uncut(node: Node) -> Node:
    """What a node is a part of: a cache with a sliding window returns the last tokens only."""
    while node.op in _CUT:
        node = node.inputs[0]
    return node


def _role(whole: Node) -> Role | None:
    """What attention takes a tensor for; None if nothing multiplies it as keys or values."""
    for source, product in _meetings(whole, _PRODUCTS):
        if product.op in FAMILIES["matmul"]:
            ends = _SOFTMAX | _PRODUCTS | FAMILIES["linear"]
            return "keys" if any(end.op in _SOFTMAX for _, end in _meetings(product, ends)) else "values"
        if source in (product.argument("key"), product.argument("value")):
            return "keys" if source == product.argument("key") else "values"
    return None


def _meetings(start: Node, ends: frozenset[str]) -> Iterator[tuple[Node, Node]]:
    """The operations that what is made of a tensor first comes to, each with what it reads; sizes are not followed."""
    seen, todo = {start}, [start]
    while todo:
        source = todo.pop()
        for user in source.users:
            if user.op in ends:
                yield source, user
            elif user not in seen and not isinstance(user.value, int | torch.SymInt):
                seen.add(user)
                todo.append(user)
