"""Answering early: classifiers inside the model, for inputs that are easy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, fx

from planish.analysis import analyze
from planish.compress.adaptive.heads import NEVER, Answers, fit, thresholds
from planish.compress.adaptive.stages import EXIT
from planish.compress.adaptive.values import depending, result, siblings, values_of
from planish.compress.sweep import check_items
from planish.errors import DataError, OptionError
from planish.graph import FAMILIES, Data, Editor, Graph, Node, Pass, Progress, Step
from planish.graph.cut import ancestors

aten = torch.ops.aten
GRID = 4
"""An image's features are averaged over GRID x GRID fields."""
FEWEST = 16
"""Rows of data that an exit can be trained with at all."""


@dataclass(frozen=True)
class _Exit:
    """A place to leave: the value there, and what share of the multiplications is done by then."""

    path: str
    value: Node
    share: float


@dataclass(frozen=True)
class EarlyExit(Pass):
    """Give a classifier exits: an input that an exit is sure of takes its answer from there.

    Teerapittayanon et al., "BranchyNet" (2016). The graph that comes out computes everything and picks each row's
    answer, so that it can be trained, quantized and judged like any other; building it for a processor cuts it at the
    exits, and then the rest of the model runs only for the rows that go on.

    An exit's classifier is linear. Its features are, of an image, averages over 4x4 fields; of tokens, what the model
    itself makes of its last block's output (norm, pooling), made of this block's instead; of vectors, themselves. It
    learns the whole model's probabilities. How sure each exit must be follows from what is lost on rows that its
    classifier has not seen (five-fold cross-validation), with a margin for their number: many rows leave earlier than
    few at the same `loss`. The data's targets are used for that if it has any; else every answer that is not the whole
    model's counts as lost.

    Attributes:
        at: Paths of the modules after which to exit, or a number of exits, spread evenly over the multiplications.
        confidence: What is compared with the threshold: the largest probability, or 1 less the entropy, which is
            divided by that of a uniform guess.
        loss: How much accuracy may be lost: 0.005 is half a point.
    """

    at: tuple[str, ...] | int = 2
    confidence: Literal["max", "entropy"] = "max"
    loss: float = 0.005

    def __post_init__(self) -> None:
        if isinstance(self.at, list):
            object.__setattr__(self, "at", tuple(self.at))
        if not self.at or (isinstance(self.at, int) and self.at < 1):
            raise OptionError("one exit or more", "at", "at=2, or at=('blocks.1',)")
        if self.confidence not in ("max", "entropy"):
            raise OptionError(f"confidence is 'max' or 'entropy', not {self.confidence!r}", "confidence")
        if not 0 <= self.loss < 1:
            raise OptionError(f"a loss is a share from 0 to 1, not {self.loss}", "loss", "loss=0.005")

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each spot: after which module, and how much of the work is done by then."""
        classifier(graph)
        return [
            Step(spot.path, spot.value.name, f"exit after {spot.share:.0%} of the multiplications")
            for spot in self._exits(graph)
        ]

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The graph with exits, trained and with thresholds."""
        items = list(data or ())
        calls, exits = check_items(items, "EarlyExit"), self._exits(graph)
        edit, (answer, layer) = graph.edit(), classifier(graph)
        heads = [
            _attach(edit, spot, number, answer, layer, self.confidence)
            for number, spot in reversed(list(enumerate(exits)))  # the first exit is asked first, so it is put on last
        ][::-1]
        placed = edit.done()
        seen = _read(placed, calls, [answer.name, *(head.features for head in heads)], progress)
        teacher = seen[answer.name]
        if len(teacher) < FEWEST:
            raise DataError(f"{len(teacher)} rows of data are too few to train exits with", hint="some hundreds")
        targets = _targets(items, len(teacher))
        truth = teacher.argmax(1) if targets is None else targets
        progress(len(calls), len(calls) + 1, "training exits")
        edit, said = placed.edit(), []
        for head in heads:
            weight, bias, logits = fit(seen[head.features], teacher)
            edit.set_tensor(f"{head.path}.weight", weight)
            edit.set_tensor(f"{head.path}.bias", bias)
            said.append(Answers(_confidence(logits, self.confidence), logits.argmax(1) == truth))
        shares = [0.0, *(spot.share for spot in exits), 1.0]
        costs = [after - before for before, after in pairwise(shares)]
        sure = thresholds(said, teacher.argmax(1) == truth, costs, self.loss)
        for head, threshold in zip(heads, sure, strict=True):
            edit.set_tensor(f"{head.path}.threshold", torch.tensor([threshold]))
        return edit.done()

    def _exits(self, graph: Graph) -> list[_Exit]:
        work = {cost.node: float(cost.work.macs) for cost in analyze(graph).nodes}
        total = sum(work.values()) or 1.0

        def at(path: str) -> _Exit:
            value = result(graph, path)
            return _Exit(path, value, sum(work.get(node.name, 0.0) for node in ancestors(value.fx)) / total)

        if isinstance(self.at, tuple):
            return sorted((at(path) for path in self.at), key=lambda spot: spot.share)
        paths = sorted({_listed(node.path) for node in graph.nodes} - {""})
        known = [spot for spot in map(at, paths) if 0 < spot.share < 1 and len(spot.value.shape or ()) in (2, 3, 4)]
        wanted = [(place + 1) / (self.at + 1) for place in range(self.at)]
        chosen = {min(known, key=lambda spot: abs(spot.share - share)).path for share in wanted} if known else set()
        if len(chosen) < self.at:
            raise OptionError(
                f"the model has no {self.at} lists' modules to exit after", "at", "at=('path.of.a.module',)"
            )
        return sorted((spot for spot in known if spot.path in chosen), key=lambda spot: spot.share)


def _listed(path: str) -> str:
    """The outermost module on a path that stands in a list; empty if none does."""
    parts = path.split(".")
    place = next((place for place, part in enumerate(parts) if part.isdecimal()), -1)
    return ".".join(parts[: place + 1])


def classifier(graph: Graph) -> tuple[Node, Node]:
    """The model's answer `(batch, classes)`, and the linear layer that it comes from.

    Raises:
        OptionError: The model returns something else, or has exits already.
    """
    answer = graph.outputs[0] if len(graph.outputs) == 1 else None
    if answer is None or answer.shape is None or len(answer.shape) != 2 or not isinstance(answer.shape[1], int):
        raise OptionError("only a classifier can exit early: a model that returns one tensor (batch, classes)", "at")
    layer = answer
    while layer.op not in FAMILIES["linear"]:
        calls = [source for source in layer.inputs if source.kind == "call"]
        if len(calls) != 1:
            known = "the model has exits already" if layer.op == "where" else "its answer comes from no linear layer"
            raise OptionError(f"only a classifier can exit early: {known}", layer.path or layer.name)
        layer = calls[0]
    return answer, layer


@dataclass(frozen=True)
class _Head:
    """An exit in the graph: its module's path, and the name of the node that holds its features."""

    path: str
    features: str


def _attach(edit: Editor, spot: _Exit, number: int, answer: Node, layer: Node, confidence: str) -> _Head:
    """Put an exit before the model's output, with a classifier of zeros that is never sure."""
    graph, path = edit.graph, f"exits.{number}"
    output = Node(graph, graph.fx.output_node())
    later = output.inputs[0]
    root = dict(list(answer.fx.meta.get("nn_module_stack", {}).items())[:1])

    def call(op: Callable[..., Any], *args: Any) -> Node:
        node = edit.call(op, *args, before=output)
        node.fx.meta["nn_module_stack"] = {**root, path: (path, EXIT)}
        return node

    features = _features(call, graph, spot, graph.node(layer.name))
    classes, width = answer.shape[1], features.shape[1]  # type: ignore[index]
    weight = edit.add(f"{path}.weight", torch.zeros(classes, width), trainable=True)  # type: ignore[arg-type]
    bias = edit.add(f"{path}.bias", torch.zeros(classes), trainable=True)  # type: ignore[arg-type]
    early = call(aten.linear.default, features, weight, bias)
    if confidence == "max":
        sure = call(aten.amax.default, call(aten.softmax.int, early, -1), [-1], True)
    else:
        probability, logarithm = call(aten.softmax.int, early, -1), call(aten.log_softmax.int, early, -1)
        negative = call(aten.sum.dim_IntList, call(aten.mul.Tensor, probability, logarithm), [-1], True)
        sure = call(aten.add.Scalar, call(aten.mul.Scalar, negative, 1 / math.log(classes)), 1.0)  # type: ignore[arg-type]
    threshold = edit.add(f"{path}.threshold", torch.tensor([NEVER]))
    chosen = call(aten.where.self, call(aten.ge.Tensor, sure, threshold), early, later)
    edit.replace_input(output, later, chosen)
    return _Head(path, features.name)


def _features(call: Callable[..., Node], graph: Graph, spot: _Exit, layer: Node) -> Node:
    """What an exit's classifier reads, `(batch, features)`."""
    value = Node(graph, graph.node(spot.value.name).fx)
    shape = value.shape or ()
    if len(shape) == 2:
        return value
    if len(shape) == 4 and all(isinstance(size, int) for size in shape[1:]):
        sides = [int(size) for size in shape[2:]]
        strides = [max(size // GRID, 1) for size in sides]
        kernels = [size - (min(size, GRID) - 1) * stride for size, stride in zip(sides, strides, strict=True)]
        return call(aten.flatten.using_ints, call(aten.avg_pool2d.default, value, kernels, strides), 1)
    if len(shape) != 3 or not (modules := siblings(graph, spot.path)):
        raise OptionError(f"an exit has no features to make of a value of shape {shape}", spot.path, "another module")
    last, features = result(graph, modules[-1]), layer.input
    assert features is not None, "a linear layer reads something"
    copies: dict[fx.Node, Node] = {last.fx: value}
    tail = depending([last.fx], ancestors(features.fx))
    if features.fx not in tail or last.shape is None or last.shape[2] != shape[2]:
        raise OptionError("what follows the last of its list does not fit what this module gives", spot.path)
    for node in graph.fx.nodes:
        if node in tail and node not in copies:
            args: Any = fx.map_arg(node.args, lambda source: copies.get(source) or Node(graph, source))  # type: ignore[arg-type]
            copies[node] = call(node.target, *args)  # type: ignore[arg-type]
    return copies[features.fx]


def _read(
    graph: Graph, calls: Sequence[tuple[Any, Any]], wanted: Sequence[str], progress: Progress
) -> dict[str, Tensor]:
    """The values of some nodes, of all rows of the data."""
    parts: dict[str, list[Tensor]] = {name: [] for name in wanted}
    for place, seen in enumerate(values_of(graph, calls, wanted)):
        progress(place, len(calls) + 1, "reading features")
        for name in wanted:
            parts[name].append(seen[name])
    return {name: torch.cat(rows) for name, rows in parts.items()}


def _targets(items: Sequence[tuple[Any, ...]], rows: int) -> Tensor | None:
    """The right classes, `(rows,)`; None if the data does not tell."""
    known = [item[2] for item in items if len(item) == 3]
    if not known:
        return None
    targets = torch.cat([torch.as_tensor(target) for target in known]) if len(known) == len(items) else torch.empty(0)
    if len(targets) != rows or targets.is_floating_point():
        raise DataError("targets are the numbers of the right classes, one for each row, or absent", "data")
    return targets


def _confidence(logits: Tensor, kind: str) -> Tensor:
    probability = logits.softmax(-1)
    if kind == "max":
        return probability.amax(-1)
    return 1 + (probability * logits.log_softmax(-1)).sum(-1) / math.log(logits.shape[-1])
