"""What each layer loses in each format, without running the whole model for each pair.

All items are taken through the graph together, layer by layer. Up to a layer everything is computed once; from there
on, for each format, only what depends on the layer is run again. For L equal layers and F formats that is about
2 + L·F/2 runs of the model instead of L·F, and never more memory than one layer boundary of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from planish import metrics
from planish.analysis.execute import Executor, ItemCall, Values, calls, run
from planish.analysis.noise import Noise
from planish.errors import OptionError
from planish.formats import Format, channel, get
from planish.graph import ROLES, Data, Graph, Node, Progress, Selector, ops
from planish.record import Measurement

Judge = metrics.Metric


@dataclass(frozen=True)
class Loss:
    """What the model loses when one layer alone is in a format.

    Attributes:
        node: Name of the layer's operation.
        op: Its base name.
        path: Its module path.
        type: Class name of that module.
        format: The format as it was asked for.
        sqnr: Signal to quantization noise of the model's outputs, in dB; higher is better, 200 is no loss.
        metric: The metric of the model, where one was given.
    """

    node: str
    op: str
    path: str
    type: str
    format: str
    sqnr: float
    metric: Measurement | None = None


@dataclass(frozen=True)
class Sensitivity:
    """The losses of every layer in every format.

    Attributes:
        losses: By layer in execution order, then by format.
        activations: Format of the layers' inputs; empty where only weights were cast.
        reference: The metric of the unchanged model, where one was given.
        executed: How many operations were run, for all items together.
    """

    losses: tuple[Loss, ...]
    activations: str = ""
    reference: Measurement | None = None
    executed: int = 0

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats, in the order they were asked for."""
        return tuple(dict.fromkeys(loss.format for loss in self.losses))

    def ranked(self, form: str) -> list[Loss]:
        """The losses in one format, the most sensitive layer first."""
        return sorted((loss for loss in self.losses if loss.format == form), key=lambda loss: loss.sqnr)

    def measurements(self) -> list[Measurement]:
        """Rows of a run folder: `sensitivity` in dB, and `sensitivity_metric` where a metric was given."""
        rows: list[Measurement] = []
        for loss in self.losses:
            details = {"node": loss.node, "op": loss.op, "type": loss.type, "format": loss.format}
            details |= {"activations": self.activations} if self.activations else {}
            rows.append(Measurement("sensitivity", loss.sqnr, "dB", "measured", where=loss.path, details=details))
            if (found := loss.metric) is not None:
                more = {**details, "metric": found.name}
                rows.append(
                    Measurement(
                        "sensitivity_metric", found.value, found.unit, "measured", found.spread, "", loss.path, more
                    )
                )
        return rows

    def table(self) -> Table:
        """Layers down, formats across, dB in the cells; the worst layer of each format is marked."""
        table = Table("layer", title="output SQNR in dB, one layer at a time", title_justify="left")
        for name in self.formats:
            table.add_column(name, justify="right")
        worst = {name: self.ranked(name)[0].node for name in self.formats}
        rows: dict[str, list[Loss]] = {}
        for loss in self.losses:
            rows.setdefault(loss.node, []).append(loss)
        for node, found in rows.items():
            cells = [f"{loss.sqnr:.1f}" + (" ◀" if worst[loss.format] == node else "") for loss in found]
            table.add_row(found[0].path or node, *cells)
        return table


def sensitivity(
    graph: Graph,
    data: Data,
    formats: Iterable[Format | str],
    *,
    metric: Judge | str | None = None,
    where: Selector | str = ops.linear | ops.conv,
    activations: Format | str | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """Cast one layer at a time and see what the model's outputs lose.

    Args:
        graph: The graph, in full precision or already partly compressed.
        data: Re-iterable `(args, kwargs)`, with a target where the metric wants one. All items are held at once.
        formats: Formats of the weights; one without a block has a scale per output channel.
        metric: A metric's name, or `metric(callable, data) -> Measurement`. It gets the very data objects, and costs
            nothing more when it calls its argument on them.
        where: The layers to try; those in a branch of `torch.cond` are left out.
        activations: A format for the layer's input as well; static ranges are those of this data.
        progress: Called after each layer and format.

    Raises:
        DataError: There is no data, or an item does not fit the graph.
        OptionError: No layer with a weight matches, or no format is given.
    """
    chosen = [(str(form), get(form)) for form in formats]
    if not chosen:
        raise OptionError("no format to try", "formats", "formats=['int8', 'int4']")
    layers = [node for node in graph.select(where) if node.weight is not None and node.fx.graph is graph.fx]
    if not layers:
        raise OptionError("no layer with a weight matches", "where", "ops.linear | ops.conv | ops.embedding")
    items = data if isinstance(data, Sequence) else list(data)
    judge = metrics.get(metric) if metric is not None else None
    study = _Study(graph, calls(items))
    given = get(activations) if activations is not None else None
    losses: list[Loss] = []
    for node in layers:
        study.reach(node)
        for label, form in chosen:
            outputs = study.outputs(form, given)
            noise = Noise()
            for exact, actual in zip(study.exact, outputs, strict=True):
                noise.add_all(exact, actual)
            found = judge(study.replay(outputs, form, given), items) if judge is not None else None
            losses.append(Loss(node.name, node.op, node.path, node.module_type, label, noise.sqnr, found))
            if progress is not None:
                progress(len(losses), len(layers) * len(chosen), f"{node.path or node.name} in {label}")
    reference = judge(study.replay(study.exact, None, None), items) if judge is not None else None
    return Sensitivity(tuple(losses), str(activations or ""), reference, study.executor.executed)


class _Study:
    """All items at the same layer of one graph."""

    def __init__(self, graph: Graph, items: list[ItemCall]) -> None:
        self.executor = Executor(graph)
        self.items = items
        self.exact = [run(self.executor, call) for call in items]
        self._values = [self.executor.bind(call) for call in items]
        self._position = 0
        self._node: Node | None = None
        self._downstream: list[fx.Node] = []

    def reach(self, node: Node) -> None:
        """Take every item to just before `node`, and compute what the rest needs and `node` does not change."""
        position = self.executor.place[node.fx]
        self._node, self._downstream = node, self.executor.downstream(node.fx)
        for values in self._values:
            self.executor.advance(values, self._position, position)
            self.executor.complete(values, [node.fx, *self._downstream])
        self._position = position

    def outputs(self, form: Format, activations: Format | None) -> list[list[Any]]:
        """The flat outputs of every item with the node's weight, and its input, cast."""
        node = self._reached
        replaced = self._cast(node, form)
        parameters = self._input_parameters(node, activations)
        return [self._rest(node, values, replaced, activations, parameters) for values in self._values]

    def replay(self, known: list[list[Any]], form: Format | None, activations: Format | None) -> Callable[..., Any]:
        """The model with that one cast, as a callable: what it has answered before it does not compute again."""
        answers = {_identity(call): outputs for call, outputs in zip(self.items, known, strict=True)}
        node = self._reached

        def model(*args: Any, **kwargs: Any) -> Any:
            outputs = answers.get(_identity((args, kwargs)))
            if outputs is None:
                if form is None:
                    outputs = run(self.executor, (args, kwargs))
                else:
                    values = self.executor.bind((args, kwargs))
                    self.executor.advance(values, 0, self.executor.place[node.fx])
                    self.executor.complete(values, [node.fx, *self._downstream])
                    parameters = self._input_parameters(node, activations)
                    outputs = self._rest(node, values, self._cast(node, form), activations, parameters)
            return self.executor.structured(outputs)

        return model

    @property
    def _reached(self) -> Node:
        assert self._node is not None
        return self._node

    def _cast(self, node: Node, form: Format) -> Mapping[str, Tensor]:
        """The argument that is the weight, cast; one scale per output channel where the format has no block."""
        roles = ROLES[node.op]
        assert node.weight is not None
        weight = self.executor.constants.get(node.weight.fx)
        if not isinstance(weight, Tensor):
            raise OptionError(
                "the weight depends on the input", f"{node.path} ({node.name})", "leave it out with where="
            )
        placed = form if form.block is not None else form.at(channel(roles.out_axis))
        return {f"_{roles.weight}": placed.cast(weight)}

    def _input_parameters(self, node: Node, activations: Format | None) -> tuple[Tensor, ...]:
        """Scales of the layer's input over all items, of a static format."""
        if activations is None or activations.is_dynamic or activations.scale is None:
            return ()
        seen = [self._input(node, values) for values in self._values]
        low, high = (torch.stack(ends).float() for ends in zip(*map(torch.aminmax, seen), strict=True))
        return activations.per_tensor().parameters(low=low.amin(), high=high.amax())

    def _input(self, node: Node, values: Values) -> Tensor:
        assert node.input is not None
        return values[node.input.fx] if node.input.fx in values else self.executor.constants[node.input.fx]

    def _rest(
        self,
        node: Node,
        values: Values,
        replaced: Mapping[str, Tensor],
        activations: Format | None,
        parameters: tuple[Tensor, ...],
    ) -> list[Any]:
        if activations is not None and (x := self._input(node, values)).is_floating_point():
            form = activations if activations.is_dynamic else activations.per_tensor()
            replaced = {**replaced, f"_{ROLES[node.op].input}": form.cast(x, parameters or None)}
        value = self.executor.evaluate(node.fx, values, **replaced)
        return self.executor.replay(values, node.fx, value, self._downstream)


def _identity(call: ItemCall) -> tuple[int, ...]:
    return tuple(id(leaf) for leaf in pytree.tree_leaves(call))
