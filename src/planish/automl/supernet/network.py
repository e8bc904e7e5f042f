"""`Supernet`: all options of some decisions in one network, with shared weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from planish.automl.supernet.insert import Mixed, Weaver, functional
from planish.automl.supernet.run import Memory, Program, Share
from planish.automl.supernet.slots import Point, Slot, sites_of
from planish.errors import OptionError, PlanishError
from planish.graph import Graph
from planish.graph.modes import switch
from planish.graph.ops import base_name
from planish.holes import Label

Item = tuple[Any, ...]
Loss = Callable[[nn.Module, Item], Tensor]
"""`(module, item of data) -> scalar`; it calls the module itself."""


class Supernet(nn.Module):
    """A network that is every point of a space, by turns or in part.

    It is called like the model. Weights of the graph, and those of operators that options bring, are shared by all
    points that use them. What decides is `choose`: a point, or how much of each option; at first the first options.

    Args:
        graph: The model with no decision made. It is not changed.
        slots: The decisions; each option must relax (`Pass.candidates`).

    Raises:
        OptionError: An option does not relax, or the graph cannot train; names the decision and the option.
    """

    def __init__(self, graph: Graph, slots: Sequence[Slot]) -> None:
        super().__init__()
        if not slots:
            raise OptionError("a supernet decides something", "slots")
        if isinstance(graph.training_refusal, PlanishError):
            raise graph.training_refusal
        self.graph, self.slots = graph, tuple(slots)
        self.net = graph.module()
        functional(self.net.graph)
        weaver = Weaver(self.net)
        self.mixed: list[Mixed] = []  # the net holds them as modules
        for place, slot in enumerate(self.slots):
            sites = sites_of(graph, place, slot)
            if not sites:
                raise OptionError("all of its options leave the graph as it is", slot.name)
            self.mixed += [weaver.weave(site) for site in sites]
        self._programs = {False: Program.of(self.net)}
        switch(self.net.graph, True)
        self._programs[True] = Program.of(self.net)
        switch(self.net.graph, False)
        self._settled, self._is_settling = Program.of(self.net, "data"), False
        self._features = self._program_of_features()
        self.choice: list[Share] = [0] * len(self.slots)
        self.eval()

    def train(self, mode: bool = True) -> Supernet:
        """Switch to training (or evaluation) mode."""
        self.training = mode
        for mixed in self.mixed:
            mixed.train(mode)
        return self

    def choose(self, point: Point) -> Supernet:
        """Be one point from now on."""
        self.choice = self.choice_of(point)
        return self

    def choice_of(self, point: Point) -> list[Share]:
        """The option of each decision.

        Raises:
            OptionError: The point leaves a decision open.
        """
        if missing := [slot.name for slot in self.slots if slot.name not in point]:
            raise OptionError(f"the point does not decide {missing[0]!r}", "point")
        return [slot.index(point[slot.name]) for slot in self.slots]

    def point(self, options: Sequence[int]) -> dict[str, Label]:
        """The point that takes these options."""
        return {slot.name: slot.labels[option] for slot, option in zip(self.slots, options, strict=True)}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives."""
        return self._run(self._programs[self.training], self.choice, args, kwargs)

    def _run(
        self,
        program: Program,
        choice: Sequence[Share],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        memory: Memory | None = None,
    ) -> Any:
        inputs = self.graph.flat_inputs(args, kwargs)
        return self._answer(program.run(inputs, choice, memory))

    def _answer(self, outputs: Sequence[Any]) -> Any:
        places = dict(zip(self.net.graph.output_node().all_input_nodes, outputs, strict=True))
        flat = [places.get(node, node) for node in pytree.tree_leaves(self._returned)]
        return pytree.tree_unflatten(flat, self.graph.out_spec)

    @property
    def _returned(self) -> Any:
        return self.net.graph.output_node().args[0]

    @property
    def is_classifier(self) -> bool:
        """Whether its answer is that of a linear layer, scores of classes."""
        return self._features is not None

    @contextmanager
    def settling(self) -> Iterator[None]:
        """Within, it is in evaluation mode, and batch norms take the statistics of what they are given."""
        if self._is_settling:
            yield
            return
        norms = [each for mixed in self.mixed for each in mixed.modules() if isinstance(each, _BatchNorm)]
        kept, training = [(norm, norm.running_mean, norm.running_var) for norm in norms], self.training
        self.eval()
        for norm in norms:  # as torch has it, one without statistics takes those of the batch
            norm.running_mean = norm.running_var = None
        self._is_settling = True
        try:
            yield
        finally:
            self._is_settling = False
            for norm, mean, variance in kept:
                norm.running_mean, norm.running_var = mean, variance
            self.train(training)

    def at(self, point: Point, memory: Memory | None = None) -> Path:
        """A point of it, to be judged.

        Args:
            point: For each decision an option.
            memory: Of other points judged on the same data.
        """
        return Path(self, self.choice_of(point), memory)

    def _program_of_features(self) -> Program | None:
        (answer, *others) = self.net.graph.output_node().all_input_nodes
        if others or answer.op != "call_function" or base_name(answer.target) != "linear":
            return None
        nodes = [node for node in self.net.graph.nodes if node.op != "output"]
        shape = self.graph.node(answer.name).shape or ()
        source = nodes.index(answer.args[0])  # type: ignore[arg-type]
        return self._settled.giving(source) if len(shape) == 2 else None

    def parameters_of(self, choice: Sequence[int]) -> int:
        """How many numbers a point has to learn.

        Args:
            choice: The option of each decision.
        """
        program, used = self._programs[False], dict[int, int]()
        names = {place: str(node.target) for place, node in enumerate(self.net.graph.nodes) if node.op == "get_attr"}
        own = dict(self.net.named_parameters(remove_duplicate=False))
        for place in program.needed(choice):
            step = program.steps[place]
            if step.mixed is not None:
                used |= {id(each): each.numel() for each in step.mixed.options[choice[step.mixed.slot]].parameters()}
            elif place in names and names[place] in own:
                used[id(own[names[place]])] = own[names[place]].numel()
        return sum(used.values())

    def trained(self) -> Graph:
        """The graph that it was made of, with the weights that it has now."""
        state = self.net.state_dict()
        known: dict[int, Tensor] = {}

        def now(name: str, old: Tensor) -> Tensor:
            if name not in state:
                return old
            value = known.setdefault(id(old), state[name].detach().clone())
            return nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value

        return self.graph.replace(tensors={name: now(name, old) for name, old in self.graph.tensors.items()})


class Path:
    """One point of a supernet in evaluation mode, called like the model.

    Statistics of batch norms, which all points share while they train, fit none of them: here they are those of the
    data that it is called with.

    Args:
        net: The supernet.
        choice: The option of each decision.
        memory: Of other points on the same data.
    """

    def __init__(self, net: Supernet, choice: list[Share], memory: Memory | None) -> None:
        self._net, self._choice, self._memory = net, choice, memory

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives."""
        net = self._net
        with torch.inference_mode(), net.settling():
            return net._run(net._settled, self._choice, args, kwargs, self._memory)

    def features(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the last layer of a classifier reads, `(batch, features)`."""
        net = self._net
        assert net._features is not None, "it is a classifier"
        with torch.inference_mode(), net.settling():
            return net._features.run(net.graph.flat_inputs(args, kwargs), self._choice, self._memory)[0]


def one_batch(items: Sequence[Item]) -> Item:
    """Items as one: tensors of arguments and targets put together along their first axis."""
    leaves = [pytree.tree_flatten(item) for item in items]
    spec = leaves[0][1]
    merged = [torch.cat(column) for column in zip(*(flat for flat, _ in leaves), strict=True)]
    return pytree.tree_unflatten(merged, spec)


def weights_of(net: Supernet) -> Iterator[nn.Parameter]:
    """What a supernet trains."""
    return (parameter for parameter in net.parameters() if parameter.requires_grad)
