"""Fewer layers: residual blocks that change their input little are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from planish.compress.adaptive.values import inside, result, values_of
from planish.compress.sweep import check_items
from planish.errors import OptionError
from planish.graph import Data, Graph, Node, Pass, Progress, Selector, Step, parse_selector
from planish.graph.evaluate import fold


@dataclass(frozen=True)
class SkipLayers(Pass):
    """Leave out the residual blocks with the least influence.

    Men et al., "ShortGPT" (arXiv 2403.03853): a block's influence is 1 less the cosine between what it gets and what it
    gives, a mean over the tokens (or the pixels) of the calibration data. A block is a numbered module that adds to
    what it gets and gives a value of the same shape.

    Attributes:
        count: How many: a number of blocks, or a share (below 1) of them.
        where: Which blocks may go: those with an operation that this selects.
    """

    count: int | float = 1
    where: Selector | str = "any"

    def __post_init__(self) -> None:
        if not self.count > 0 or (self.count >= 1 and self.count != int(self.count)):
            raise OptionError(f"a number of blocks, or a share below 1, not {self.count}", "count", "count=1")
        object.__setattr__(self, "where", parse_selector(self.where))

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each block that may go; which ones do, the data decides."""
        found = self._blocks(graph)
        action = f"left out, if among the {self._number(found)} of {len(found)} with the least influence"
        return [Step(path, output.name, action) for path, _, output in found]

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The graph without those blocks."""
        found, calls = self._blocks(graph), check_items(data, "SkipLayers")
        names = {node.name for _, source, output in found for node in (source, output)}
        total = [0.0] * len(found)
        for place, seen in enumerate(values_of(graph, calls, names)):
            progress(place, len(calls), "measuring influence")
            for block, (_, source, output) in enumerate(found):
                total[block] += influence(seen[source.name], seen[output.name]) / len(calls)
        least = sorted(range(len(found)), key=total.__getitem__)[: self._number(found)]
        edit = graph.edit()
        for block in sorted(least, reverse=True):  # the last first: its input may be the output of one that goes, too
            _, source, output = found[block]
            edit.replace(edit.node(output.name), edit.node(source.name))
        return edit.done()

    def _number(self, found: Sequence[object]) -> int:
        number = int(self.count) if self.count >= 1 else round(self.count * len(found))
        if not 0 < number < len(found):
            raise OptionError(f"{number} of {len(found)} blocks cannot be left out", "count", "count=1")
        return number

    def _blocks(self, graph: Graph) -> list[tuple[str, Node, Node]]:
        """Path, input and output of each block, in execution order."""
        chosen = {node.name for node in graph.select(self.where)}
        order = {node.name: place for place, node in enumerate(graph.nodes)}
        found: list[tuple[str, Node, Node]] = []
        for path in sorted({path for node in graph.nodes for path in _numbered(node.path)}, key=len):
            nodes = inside(graph, path)
            nested = any(path.startswith(f"{other}.") for other, _, _ in found)
            if nested or chosen.isdisjoint(node.name for node in nodes) or (ends := _ends(graph, path, nodes)) is None:
                continue
            found.append((path, *ends))
        if not found:
            raise OptionError(f"the selector {str(self.where)!r} matches no residual block", "where", "where='any'")
        return sorted(found, key=lambda block: order[block[2].name])


def influence(before: Tensor, after: Tensor) -> float:
    """1 less the mean cosine between the features of two values: of `(batch, tokens, features)`, of images
    `(batch, channels, height, width)`, or of vectors `(batch, features)`."""
    axis = 1 if before.dim() == 4 else -1
    return 1 - float(functional.cosine_similarity(before, after, dim=axis).mean())


def _numbered(path: str) -> list[str]:
    """The modules of lists that a path lies in ("layers.0.blocks.1.fc": two)."""
    parts = path.split(".")
    return [".".join(parts[: place + 1]) for place, part in enumerate(parts) if place and part.isdecimal()]


def _ends(graph: Graph, path: str, nodes: Sequence[Node]) -> tuple[Node, Node] | None:
    """What a block gets and gives; None if it is no residual block."""
    own = {node.name for node in nodes}
    if not any(user.name not in own for node in nodes for user in node.users):
        return None
    output = result(graph, path)
    outside = {source for node in nodes for source in node.inputs if source.name not in own}
    like = [source for source in outside if source.shape == output.shape and source.dtype == output.dtype]
    like = [source for source in like if fold(graph, source.fx) is None]
    adds = any(
        node.op in ("add", "add_") and len([source for source in node.inputs if source.shape == output.shape]) == 2
        for node in nodes
    )
    return (like[0], output) if len(like) == 1 and adds and len(output.shape or ()) > 1 else None
