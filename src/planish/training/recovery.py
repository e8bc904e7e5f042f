"""A graph that learns from the graph that it was: both at the same inputs, compared at outputs and between blocks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from planish.errors import OptionError
from planish.formats.learning import Gradient
from planish.graph import Data, Graph, Progress, Selector
from planish.training import batches, learned, network
from planish.training.callbacks import Callback
from planish.training.checkpoint import Checkpoints
from planish.training.loop import Loop
from planish.training.losses import Distance, of_outputs, of_pairs, relative
from planish.training.options import Training

CACHE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
"""Bytes of the teacher's answers that are kept: to ask again in later epochs takes as long as a step."""
MARGIN = 1.0
"""A value further from the teacher's than this share of its energy stands in another basis, and is not compared."""

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


class Recovery:
    """A student made of a compressed graph, and its teacher.

    Args:
        graph: What recovers; it knows its origin and is not changed.
        data: Items of inputs; targets are left out.
        where: The operations whose parameters train.
        gradient: The estimator of the casts' gradient.
        batch_size: Rows of an item where the graph's batch is dynamic.
        distance: How outputs are compared.
        features: Weight of the comparison between blocks.

    Attributes:
        net: The student, a module of its own in evaluation mode.

    Raises:
        OptionError: The graph does not know what it was, or nothing of it may train.
        DataError: There is no data, or an item has another form.
    """

    def __init__(
        self,
        graph: Graph,
        data: Data | None,
        where: Selector,
        gradient: Gradient,
        batch_size: int,
        distance: Distance,
        features: float,
    ) -> None:
        if graph.origin is None:
            raise OptionError(
                "the graph does not know what it was, so there is nothing to learn from",
                "graph.origin",
                "Recipe(..., Distill()), or graph.replace(origin=teacher)",
            )
        self._graph, self._distance, self._features = graph, distance, features
        self._trains = network.parameters_of(graph, where)
        self._items = batches.regroup(graph, batches.read(data, "recovery"), batch_size)
        student = learned.with_gradient(graph, gradient)
        self._powers = student.parameter_names - graph.parameter_names
        self._student = network.folded(student, self._trains | self._powers)
        marks = network.landmarks(self._student, graph.origin) if features else []
        marks = _comparable(self._student, graph.origin, marks, self._items[0]) if marks else []
        self._teacher = network.tapped(graph.origin, marks)
        self._known: dict[int, Any] = {}
        self._room = CACHE
        self.net = network.tapped(self._student, marks).module()
        for name, parameter in self.net.named_parameters(remove_duplicate=False):
            parameter.requires_grad_(name in self._trains | self._powers)

    def run(
        self,
        training: Training,
        callbacks: Sequence[Callback] = (),
        checkpoints: Checkpoints | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Train the student; errors as of `Loop`."""
        Loop(self.net, list(enumerate(self._items)), self._loss, training, callbacks, checkpoints, progress).run()

    def graph(self) -> Graph:
        """The graph that was given, with what the student has learned by now."""
        result = network.trained(self._graph, self.net, self._trains | (self._graph.buffers & self._buffers()))
        if not self._powers:
            return result
        return network.moved(result, learned.scales(self.student()))

    def student(self) -> Graph:
        """What trains, as it is now: casts with their gradients, scales as expressions, what is frozen folded."""
        return network.trained(self._student, self.net)

    def _buffers(self) -> set[str]:
        return {name for name, _ in self.net.named_buffers()}

    def _loss(self, net: nn.Module, item: tuple[int, Inputs]) -> Tensor:
        place, (args, kwargs) = item
        output, mine = net(*args, **kwargs)
        wanted, its = self._answer(place, args, kwargs)
        loss = of_outputs(self._distance, output, wanted)
        return loss + self._features * of_pairs(relative, mine, its) if mine else loss

    def _answer(self, place: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if place not in self._known:
            answer = self._teacher(*args, **kwargs)
            size = sum(leaf.nbytes for leaf in pytree.tree_leaves(answer) if isinstance(leaf, Tensor))
            if size > self._room:
                return answer
            self._room -= size
            self._known[place] = answer
        return self._known[place]


def _comparable(student: Graph, teacher: Graph, marks: list[str], item: Inputs) -> list[str]:
    """The marks whose values are in one basis: a rotation of the hidden state leaves nothing to compare."""
    (_, mine), (_, its) = (network.tapped(graph, marks)(*item[0], **item[1]) for graph in (student, teacher))
    with torch.no_grad():
        far = [float(relative(*pair)) for pair in zip(mine, its, strict=True)]
    return [mark for mark, distance in zip(marks, far, strict=True) if distance < MARGIN]
