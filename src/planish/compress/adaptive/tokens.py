"""Fewer tokens for the later layers of a transformer: merging those that are alike, dropping those nobody looks at.

Axes: B batch, H heads, T tokens, D features of a token, C features of a head, K tokens that are kept of one half.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from planish.compress.adaptive.streams import Block, blocks, put, unmask, weigh
from planish.errors import OptionError
from planish.graph import Data, Editor, Graph, Node, Pass, Progress, Selector, Step, parse_selector

aten = torch.ops.aten
_LAST = 2**63 - 1


@dataclass(frozen=True)
class MergeTokens(Pass):
    """Merge the most similar tokens between attention and perceptron of each block (ToMe).

    Bolya et al., "Token Merging" (arXiv 2210.09461). Tokens at even places look for the most similar one (cosine of
    their keys, averaged over heads) at an odd place; the `remove` closest pairs become one token each, the mean of all
    tokens in it. Later attention weighs a token by how many it stands for: the logarithm of its size is added to the
    scores. Needs no training and no data; the number of tokens must be known.

    Attributes:
        remove: Tokens that each block merges away: a number of them, or a share (below 1) of the block's own.
        protect: How many of the first tokens are never merged: 1 for a class token.
        where: Which attentions; the tokens of the others pass unchanged.
    """

    remove: int | float = 0.2
    protect: int = 1
    where: Selector | str = "attention"

    def __post_init__(self) -> None:
        _check(self.remove, self.protect, "remove")
        object.__setattr__(self, "where", parse_selector(self.where))

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each block: how many tokens come in, and how many go on."""
        return [
            Step(block.path, block.join.name, f"{tokens} tokens merged into {fewer}")
            for block, tokens, fewer in _schedule(blocks(graph, self.where, "MergeTokens"), self._fewer)
        ]

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The graph with merging."""
        found = blocks(graph, self.where, "MergeTokens")
        edit, size, whole = graph.edit(), None, found[0].tokens
        unmask(edit, found)
        for place, (block, tokens, fewer) in enumerate(_schedule(found, self._fewer)):
            progress(place, len(found), f"merging after {block.path}")
            attention, join = edit.node(block.attention.name), edit.node(block.join.name)
            if size is not None:
                weigh(edit, attention, _bias(edit, attention, size))
            if fewer < tokens:
                readers = join.users
                merged, size = self._merged(edit, attention, join, size, tokens - fewer)
                put(edit, join, readers, merged, size, whole)
        return edit.done()

    def _fewer(self, tokens: int) -> int:
        pairs = (tokens + 1) // 2 - (self.protect + 1) // 2  # tokens at even places that may be merged
        return tokens - max(min(_count(self.remove, tokens), pairs), 0)

    def _merged(self, edit: Editor, attention: Node, join: Node, size: Node | None, remove: int) -> tuple[Node, Node]:
        """The stream after merging, and the size of each of its tokens."""

        def call(op: Callable[..., Any], *args: Any, **kwargs: Any) -> Node:
            return edit.call(op, *args, before=join.users[0], **kwargs)

        def halves(x: Node) -> tuple[Node, Node]:
            first = self.protect + self.protect % 2, self.protect + 1 - self.protect % 2  # the first even and odd place
            even, odd = (call(aten.slice.Tensor, x, 1, start, _LAST, 2) for start in first)
            return even, odd

        key_BTC = call(aten.mean.dim, attention.args[1], [1])
        norm_BT1 = call(aten.linalg_vector_norm.default, key_BTC, 2, [-1], True)
        even, odd = halves(call(aten.div.Tensor, key_BTC, norm_BT1))
        scores = call(aten.matmul.default, even, call(aten.transpose.int, odd, 1, 2))
        best = call(aten.max.dim, scores, -1)
        closeness, partner = call(operator.getitem, best, 0), call(operator.getitem, best, 1)
        order = call(operator.getitem, call(aten.topk.default, closeness, int(closeness.value.shape[1])), 1)
        gone = call(aten.slice.Tensor, order, 1, 0, remove)
        into = call(aten.gather.default, partner, 1, gone)

        if size is None:
            first = call(aten.slice.Tensor, join, 2, 0, 1)
            size = call(aten.ones_like.default, first)
        x_BTD1 = call(aten.cat.default, [call(aten.mul.Tensor, join, size), size], 2)  # sums, and their sizes
        even, odd = halves(x_BTD1)
        hot = call(aten.to.dtype, call(aten.one_hot.default, into, int(odd.value.shape[1])), x_BTD1.dtype)
        added = call(aten.matmul.default, call(aten.transpose.int, hot, 1, 2), _rows(call, even, gone))
        parts = [call(aten.slice.Tensor, x_BTD1, 1, 0, self.protect)] if self.protect else []
        if remove < int(order.value.shape[1]):
            parts.append(_rows(call, even, call(aten.slice.Tensor, order, 1, remove, _LAST)))
        parts.append(call(aten.add.Tensor, odd, added))
        sums = call(aten.cat.default, parts, 1)
        features = int(join.value.shape[2])
        size = call(aten.slice.Tensor, sums, 2, features, _LAST)
        return call(aten.div.Tensor, call(aten.slice.Tensor, sums, 2, 0, features), size), size


@dataclass(frozen=True)
class PruneTokens(Pass):
    """Drop the tokens that matter least, between attention and perceptron of each block.

    `by="class"` keeps those that the class token, at the first place, looks at most: the mean of its attention over
    heads (Liang et al., "Not All Patches Are What You Need", arXiv 2202.07800). `by="norm"` keeps the longest vectors.

    Attributes:
        remove: Tokens that each block drops: a number of them, or a share (below 1) of the block's own.
        by: What a token is worth.
        protect: How many of the first tokens are never dropped.
        where: Which attentions; the tokens of the others pass unchanged.
    """

    remove: int | float = 0.2
    by: Literal["class", "norm"] = "class"
    protect: int = 1
    where: Selector | str = "attention"

    def __post_init__(self) -> None:
        _check(self.remove, self.protect, "remove")
        if self.by not in ("class", "norm"):
            raise OptionError(f"tokens are worth something by 'class' or 'norm', not {self.by!r}", "by", "by='class'")
        if self.by == "class" and not self.protect:
            raise OptionError("the class token itself would be dropped", "protect", "protect=1")
        object.__setattr__(self, "where", parse_selector(self.where))

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each block: how many tokens come in, and how many go on."""
        return [
            Step(block.path, block.join.name, f"{fewer} of {tokens} tokens kept")
            for block, tokens, fewer in _schedule(blocks(graph, self.where, "PruneTokens"), self._fewer)
        ]

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The graph with dropping."""
        found = blocks(graph, self.where, "PruneTokens")
        edit = graph.edit()
        unmask(edit, found)
        for place, (block, tokens, fewer) in enumerate(_schedule(found, self._fewer)):
            progress(place, len(found), f"dropping after {block.path}")
            attention, join = edit.node(block.attention.name), edit.node(block.join.name)
            if fewer < tokens:
                readers = join.users
                put(edit, join, readers, self._kept(edit, attention, join, fewer - self.protect))
        return edit.done()

    def _fewer(self, tokens: int) -> int:
        return tokens - min(_count(self.remove, tokens), tokens - self.protect - 1)

    def _kept(self, edit: Editor, attention: Node, join: Node, count: int) -> Node:
        def call(op: Callable[..., Any], *args: Any, **kwargs: Any) -> Node:
            return edit.call(op, *args, before=join.users[0], **kwargs)

        worth = call(aten.linalg_vector_norm.default, join, 2, [-1])
        if self.by == "class":
            query, key = attention.args[:2]
            scale = attention.argument("scale") or 1 / math.sqrt(int(query.value.shape[-1]))
            asked = call(aten.mul.Tensor, call(aten.slice.Tensor, query, 2, 0, 1), scale)
            scores = call(aten.matmul.default, asked, call(aten.transpose.int, key, 2, 3))
            seen = call(aten.softmax.int, scores, -1)
            worth = call(aten.select.int, call(aten.mean.dim, seen, [1]), 1, 0)
        worth = call(aten.slice.Tensor, worth, 1, self.protect, _LAST)
        chosen = call(operator.getitem, call(aten.topk.default, worth, count), 1)
        rest = call(aten.slice.Tensor, join, 1, self.protect, _LAST)
        kept = _rows(call, rest, chosen)
        if not self.protect:
            return kept
        return call(aten.cat.default, [call(aten.slice.Tensor, join, 1, 0, self.protect), kept], 1)


def _check(remove: int | float, protect: int, name: str) -> None:
    if not remove > 0 or (remove >= 1 and remove != int(remove)):
        raise OptionError(f"a number of tokens, or a share below 1, not {remove}", name, f"{name}=0.2")
    if protect < 0:
        raise OptionError(f"0 tokens or more are protected, not {protect}", "protect", "protect=1")


def _count(remove: int | float, tokens: int) -> int:
    return int(remove) if remove >= 1 else round(remove * tokens)


def _schedule(found: list[Block], fewer: Callable[[int], int]) -> list[tuple[Block, int, int]]:
    """Each block with the tokens that come in and those that go on."""
    rows, tokens = [], found[0].tokens
    for block in found:
        rows.append((block, tokens, fewer(tokens)))
        tokens = rows[-1][2]
    return rows


def _bias(edit: Editor, attention: Node, size: Node) -> Node:
    """What lets a token count in the softmax for all those that it stands for: `(B, 1, 1, T)`."""

    def call(op: Callable[..., Any], *args: Any) -> Node:
        return edit.call(op, *args, before=attention)

    return call(aten.log.default, call(aten.unsqueeze.default, call(aten.transpose.int, size, 1, 2), 1))


def _rows(call: Callable[..., Node], x: Node, places: Node) -> Node:
    """Of `x` (B, T, D) the tokens at `places` (B, K): `(B, K, D)`."""
    wide = call(aten.expand.default, call(aten.unsqueeze.default, places, 2), [-1, -1, int(x.value.shape[2])])
    return call(aten.gather.default, x, 1, wide)
