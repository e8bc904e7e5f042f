"""Running a supernet: only what the chosen options need, and what was computed before not again.

A graph is compiled to a list of steps once for each mode; a choice says for each decision which option runs, or how
much of each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, fx
from torch.nn import functional

from planish.automl.supernet.insert import Mixed
from planish.graph.ops import base_name

Share = int | Sequence[tuple[int, Tensor]]
"""Of a decision: the option that runs, or several with what each result is multiplied with before they are added."""


Norms = Literal["own", "data", "none"]


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        sources: Numbers of the steps that it reads.
        call: From the values of all steps to its own; of an input or a place of options, nothing.
        mixed: The options, if it is a place of options.
    """

    sources: tuple[int, ...]
    call: Callable[[list[Any]], Any] | None
    mixed: Mixed | None = None


class Memory:
    """Values of steps that several points have in common, for one input.

    Args:
        room: Bytes; the oldest unused go first.
    """

    def __init__(self, room: int = 1 << 28) -> None:
        self._room, self.held = room, 0
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._names: dict[Hashable, int] = {}

    def name(self, what: Hashable) -> int:
        """A short name for what a value depends on."""
        return self._names.setdefault(what, len(self._names))

    def get(self, name: int) -> Any:
        """The value; None if it is not there."""
        if name in self._values:
            self._values.move_to_end(name)
        return self._values.get(name)

    def keep(self, name: int, value: Any) -> None:
        """Remember a tensor."""
        if not isinstance(value, Tensor):
            return
        self._values[name] = value
        self.held += value.nbytes
        while self.held > self._room:
            _, old = self._values.popitem(last=False)
            self.held -= old.nbytes


@dataclass
class Program:
    """A graph as steps.

    Attributes:
        steps: In an order in which they can run.
        inputs: Numbers of those that are given.
        outputs: Numbers of those that it returns.
    """

    steps: list[Step]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    _needed: dict[Hashable, list[int]] = field(default_factory=dict)

    def giving(self, *outputs: int) -> Program:
        """The same steps for other values."""
        return Program(self.steps, self.inputs, outputs)

    @classmethod
    def of(cls, net: fx.GraphModule, norms: Norms = "own") -> Program:
        """The program of a graph as it is now.

        Args:
            net: The graph with its tensors and modules.
            norms: The statistics of batch norms: their "own", or those of the "data" that they are given; "none" lets
                them give what they are given.
        """
        numbers: dict[fx.Node, int] = {}
        steps: list[Step] = []
        for node in net.graph.nodes:
            if node.op == "output":
                break
            numbers[node] = len(steps)
            sources = tuple(numbers[source] for source in node.all_input_nodes)
            if node.op == "call_module":
                steps.append(Step(sources, None, cast("Mixed", net.get_submodule(str(node.target)))))
            else:
                steps.append(Step(sources, _call(net, node, numbers, norms)))
        given = tuple(place for node, place in numbers.items() if node.op == "placeholder")
        return cls(steps, given, tuple(numbers[node] for node in net.graph.output_node().all_input_nodes))

    def needed(self, choice: Sequence[Share]) -> list[int]:
        """The steps that run, in order."""
        hard = all(isinstance(share, int) for share in choice)
        key = tuple(choice) if hard else tuple(tuple(o for o, _ in s) if not isinstance(s, int) else s for s in choice)
        if key not in self._needed:
            wanted = [False] * len(self.steps)
            for place in self.outputs:
                wanted[place] = True
            for place in range(len(self.steps) - 1, -1, -1):
                if wanted[place]:
                    for source in _read(self.steps[place], choice):
                        wanted[source] = True
            if len(self._needed) > 4096:
                self._needed.clear()
            self._needed[key] = [place for place, each in enumerate(wanted) if each]
        return self._needed[key]

    def run(self, inputs: Sequence[Any], choice: Sequence[Share], memory: Memory | None = None) -> list[Any]:
        """The outputs, flat.

        Args:
            inputs: The graph's inputs, flat.
            choice: For each decision what runs.
            memory: Of earlier runs with these inputs.
        """
        values: list[Any] = [None] * len(self.steps)
        for place, value in zip(self.inputs, inputs, strict=True):
            values[place] = value
        names = [0] * len(self.steps)
        for place in self.needed(choice):
            step = self.steps[place]
            if step.call is None and step.mixed is None:
                continue
            if memory is not None:
                share = choice[step.mixed.slot] if step.mixed is not None else 0
                assert isinstance(share, int), "only what runs alone is remembered"
                names[place] = memory.name((place, share, *(names[source] for source in _read(step, choice))))
                values[place] = memory.get(names[place])
                if values[place] is not None:
                    continue
            values[place] = step.call(values) if step.call is not None else _mix(step, values, choice)
            if memory is not None:
                memory.keep(names[place], values[place])
        return [values[place] for place in self.outputs]


def _read(step: Step, choice: Sequence[Share]) -> Sequence[int]:
    """The steps that a step reads."""
    if step.mixed is None:
        return step.sources
    share = choice[step.mixed.slot]
    options = [share] if isinstance(share, int) else [option for option, _ in share]
    return [step.sources[place] for option in options for place in step.mixed.reads[option]]


def _mix(step: Step, values: list[Any], choice: Sequence[Share]) -> Tensor:
    mixed = step.mixed
    assert mixed is not None, "a step computes something or mixes"
    share = choice[mixed.slot]

    def option(number: int) -> Tensor:
        return mixed.options[number](*(values[step.sources[place]] for place in mixed.reads[number]))

    if isinstance(share, int):
        return option(share)
    total = None
    for number, weight in share:
        part = option(number) * weight
        total = part if total is None else total + part
    assert total is not None, "a decision has an option"
    return total


def _call(net: fx.GraphModule, node: fx.Node, numbers: Mapping[fx.Node, int], norms: Norms) -> Any:
    """A function from the values of all steps to that of one; None for an input."""
    if node.op == "placeholder":
        return None
    if node.op == "get_attr":
        path, _, leaf = str(node.target).rpartition(".")
        owner = net.get_submodule(path) if path else net
        return lambda _values: getattr(owner, leaf)
    target: Any = node.target
    if norms != "own" and base_name(target) == "batch_norm":
        target = _settled if norms == "data" else _bypassed
    elif base_name(target) == "conv2d":
        target = partial(_side_by_side, target)
    args, kwargs = node.args, dict(node.kwargs)
    flat = all(not isinstance(each, list | tuple | dict) for each in (*args, *kwargs.values()))
    if flat and not kwargs:
        template = list(args)
        places = [(place, numbers[each]) for place, each in enumerate(args) if isinstance(each, fx.Node)]

        def quick(values: list[Any]) -> Any:
            given = template.copy()
            for place, number in places:
                given[place] = values[number]
            return target(*given)

        return quick

    def general(values: list[Any]) -> Any:
        given, named = fx.map_arg((args, kwargs), lambda each: values[numbers[each]])  # type: ignore[arg-type]
        return target(*given, **named)

    return general


def _settled(x: Tensor, weight: Any, bias: Any, *rest: Any) -> Tensor:
    """`aten.batch_norm` with the statistics of `x`; `rest` is running mean and variance, training, momentum, eps."""
    return functional.batch_norm(x, None, None, weight, bias, True, 0.0, float(rest[4]))


def _bypassed(x: Tensor, *_rest: Any) -> Tensor:
    return x


def _side_by_side(convolve: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """An image with its channels side by side: pooling then takes a third of the time, and convolutions less."""
    return convolve(*args, **kwargs).contiguous(memory_format=torch.channels_last)
