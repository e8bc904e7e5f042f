"""`Attention`: something cheaper in the place of attention.

Axes: B batch, H heads, Q queries, K keys, C features of a head, V features of a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from planish.compress.architecture.regions import Region, whole
from planish.compress.architecture.splice import captured, splice
from planish.errors import OptionError
from planish.graph import Candidate, Data, Graph, Node, Pass, Progress, Selector, Step, parse_selector
from planish.graph.modes import SWITCH, named_arguments

Kind = Literal["softmax", "linear", "average", "local", "identity"]
LEAST = 1e-6
"""What a sum of weights is at least, before something is divided by it."""


@dataclass(frozen=True)
class Attention(Pass):
    """Put something cheaper in the place of `scaled_dot_product_attention`.

    "linear" weighs keys by the products of elu(q)+1 and elu(k)+1, so that sums over the keys serve all queries
    (Katharopoulos et al., arXiv 2006.16236, equations 4 to 7); "average" weighs all keys alike; "local" leaves out
    those further away than `window`; "identity" lets each query see the value at its own place only; "softmax" leaves
    attention as it is. What a mask hides stays hidden.

    Attributes:
        kind: What comes.
        where: The attentions.
        window: How far a query of "local" attention sees, to each side.
    """

    kind: Kind = "linear"
    where: Selector | str = "attention"
    window: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", parse_selector(self.where))
        if self.kind not in get_args(Kind):
            raise OptionError(f"unknown kind {self.kind!r}", "kind", f"one of {', '.join(get_args(Kind))}")
        if self.window < 0:
            raise OptionError(f"a query sees 0 keys to each side or more, not {self.window}", "window", "window=8")

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each attention."""
        says = "stays as it is" if self.kind == "softmax" else f"becomes {self._named}"
        return [Step(node.path, node.name, says) for node in self._nodes(graph)]

    def draft(self, graph: Graph) -> Graph:
        """The graph with what comes."""
        return self._replaced(graph)

    def candidates(self, graph: Graph) -> list[Candidate]:
        """What comes, on queries, keys, values and the mask."""
        if self.kind == "softmax":
            return [Candidate(node.name, (node.name,), nn.Identity()) for node in self._nodes(graph)]
        regions = map(_region, self._nodes(graph))
        return [
            Candidate(region.output.name, tuple(node.name for node in region.inputs), self._module(region))
            for region in regions
        ]

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The graph with what comes."""
        return self._replaced(graph)

    @property
    def _named(self) -> str:
        return f"local, {self.window} to each side" if self.kind == "local" else self.kind

    def _nodes(self, graph: Graph) -> list[Node]:
        found = [node for node in graph.select(parse_selector(self.where)) if _is_attention(node)]
        if not found:
            raise OptionError(f"{str(self.where)!r} selects no attention", "where", "where='attention'")
        return found

    def _module(self, region: Region) -> _Mixer:
        query, key, *_ = region.inputs
        if self.kind == "identity" and query.value.shape[-2] != key.value.shape[-2]:
            raise region.refuse("its queries and keys are not at the same places", "another kind")
        module = _KINDS[self.kind](region.output, self.window)
        module.eval()
        return module

    def _replaced(self, graph: Graph) -> Graph:
        nodes = self._nodes(graph)
        if self.kind == "softmax":
            return graph
        edit, moved = graph.edit(), dict[str, Node]()
        for region in map(_region, nodes):
            inputs = [moved.get(node.name) or edit.node(node.name) for node in region.inputs]
            module = self._module(region)
            part = captured(module, region, self.kind, *module.options)
            moved[region.output.name] = splice(edit, region, inputs, part, {})
        return edit.done()


class _Mixer(nn.Module):
    """What the kinds have in common.

    Args:
        node: The attention that it stands for.
        window: How far a query of "local" attention sees.
    """

    def __init__(self, node: Node, window: int) -> None:
        super().__init__()
        given = named_arguments(node.fx)
        self.causal, self.scale, self.window = bool(given["is_causal"]), given["scale"], window
        switched = node.fx.meta.get(SWITCH, {}).get("dropout_p", (0.0, 0.0))
        self.dropout = float(max(given["dropout_p"], *switched))
        query, key = node.argument("query").value, node.argument("key").value
        self.shared = int(query.shape[-3]) // int(key.shape[-3]) if given["enable_gqa"] else 1

    @property
    def options(self) -> tuple[object, ...]:
        """All that decides what it does."""
        return self.causal, self.scale, self.window, self.dropout, self.shared

    def spread(self, x: Tensor) -> Tensor:
        """Keys or values of each query head."""
        return x.repeat_interleave(self.shared, -3) if self.shared > 1 else x

    def allowed(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor | None:
        """How much each query may see of each key, `(..., Q, K)`, 0 for what is hidden; None for all."""
        seen = torch.ones(q.shape[-2], k.shape[-2], dtype=q.dtype, device=q.device).tril() if self.causal else None
        if mask is None:
            return seen
        factor = mask.to(q.dtype) if mask.dtype == torch.bool else mask.exp()
        return factor if seen is None else factor * seen


class Linear(_Mixer):
    """Linear attention."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, H, Q, C)`, `(B, H, K, C)`, `(B, H, K, V)` to `(B, H, Q, V)`."""
        q, k, v = functional.elu(q) + 1, functional.elu(self.spread(k)) + 1, self.spread(v)
        if (seen := self.allowed(q, k, mask)) is None:
            sums = k.sum(-2, keepdim=True).transpose(-2, -1)
            return (q @ (k.transpose(-2, -1) @ v)) / (q @ sums).clamp_min(LEAST)
        weights = (q @ k.transpose(-2, -1)) * seen
        return (weights @ v) / weights.sum(-1, keepdim=True).clamp_min(LEAST)


class Average(_Mixer):
    """Each query sees all keys alike."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, H, Q, C)`, `(B, H, K, C)`, `(B, H, K, V)` to `(B, H, Q, V)`."""
        v = self.spread(v)
        if (seen := self.allowed(q, k, mask)) is None:
            return v.mean(-2, keepdim=True).expand(*q.shape[:-1], v.shape[-1])
        return (seen @ v) / seen.sum(-1, keepdim=True).clamp_min(LEAST)


class Local(_Mixer):
    """Attention to the keys nearby."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, H, Q, C)`, `(B, H, K, C)`, `(B, H, K, V)` to `(B, H, Q, V)`."""
        near = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(-self.window)
        near = near.tril(0 if self.causal else self.window)
        if mask is not None:
            near = near & mask if mask.dtype == torch.bool else mask.masked_fill(~near, -torch.inf)
        dropout = self.dropout if self.training else 0.0
        return functional.scaled_dot_product_attention(
            q, k, v, near, dropout, scale=self.scale, enable_gqa=self.shared > 1
        )


class Own(_Mixer):
    """Each query sees the value at its own place."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, H, Q, C)`, `(B, H, Q, C)`, `(B, H, Q, V)` to `(B, H, Q, V)`."""
        return self.spread(v)


_KINDS: dict[str, type[_Mixer]] = {"linear": Linear, "average": Average, "local": Local, "identity": Own}


def _is_attention(node: Node) -> bool:
    return node.op == "scaled_dot_product_attention"


def _region(node: Node) -> Region:
    operands = [node.argument(name) for name in ("query", "key", "value", "attn_mask")]
    return whole(node, tuple(each for each in operands if each is not None))
