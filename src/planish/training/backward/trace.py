"""One training step, run on tensors without data: what each operation computes and keeps, and what is alive when.

Nothing is computed and no memory is taken, so that a step can be asked about that would not fit. What autograd keeps is
what it asks to keep (its saved-tensor hooks), not what we think that it should.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from planish.errors import ModelError
from planish.graph import Graph
from planish.training.backward.ledger import Ledger
from planish.training.backward.measured import zeros_like
from planish.training.engine import Item
from planish.training.losses import losses
from planish.training.optimizers import groups, optimizers

LOSS = "(loss)"
UPDATE = "(update)"


@dataclass
class Kept:
    """A storage that waits for the backward pass.

    Attributes:
        bytes: Of it.
        bits: Of each number, if they are floating-point; 0 otherwise.
        maker: The operation that made it; "" for an input of the model.
        savers: The operations whose gradients need it.
    """

    bytes: int
    bits: int
    maker: str
    savers: list[str] = field(default_factory=list)


@dataclass
class Trace:
    """What one step did. Operations have the names of the graph's nodes, `LOSS` or `UPDATE`.

    Attributes:
        forward: FLOPs of products, by operation.
        backward: Likewise.
        kept: Storages that wait for the backward pass; parameters and buffers are not among them.
        values: The storages that each operation returns, (number, bytes).
        kept_numbers: Those of `values` that are kept.
        parameters: Bytes of those, buffers included.
        inputs: Bytes of the batch, targets included.
        gradients: Bytes.
        optimizer: Bytes of its state.
        peak: The most bytes alive at once in a step that is not the first.
        peak_at: The pass ("forward", "backward", "update") and the operation at which that was.
    """

    forward: dict[str, int]
    backward: dict[str, int]
    kept: list[Kept]
    values: dict[str, list[tuple[int, int]]]
    kept_numbers: frozenset[int]
    parameters: int
    inputs: int
    gradients: int
    optimizer: int
    peak: int
    peak_at: tuple[str, str]


def trace(graph: Graph, item: Item, loss: str = "mse", optimizer: str = "adamw") -> Trace:
    """Run one step without data.

    Args:
        graph: A graph that was captured for training.
        item: `(args, kwargs, target)`; a target of None stands for zeros in the shape of the output.
        loss: The loss of `planish train`.
        optimizer: Likewise.

    Raises:
        ModelError: The graph was captured for evaluation only, or the sizes of its values depend on data.
        DataError: The item does not fit the graph.
    """
    net = graph.module().train()  # refuses what cannot train
    step = _Step(net, graph, loss)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as fake:
            args, kwargs, target = pytree.tree_map(lambda leaf: _faked(fake, leaf), item)
            return step.run(fake, graph.flat_inputs(args, kwargs), target, optimizer)
    except (DynamicOutputShapeException, GuardOnDataDependentSymNode) as error:
        what = "the sizes of the model's values depend on its data: a step cannot be followed without it"
        raise ModelError(what, step.place or "the model") from error


def _faked(fake: FakeTensorMode, leaf: Any) -> Any:
    return fake.from_tensor(leaf) if isinstance(leaf, Tensor) else leaf


class _Step(fx.Interpreter):
    """The forward pass, operation by operation; then the rest."""

    def __init__(self, net: fx.GraphModule, graph: Graph, loss: str) -> None:
        super().__init__(net)
        self.graph_, self.loss = graph, losses[loss]
        self.ledger = Ledger(self._owner)
        self.phase, self.place = "forward", ""
        self.values: dict[str, list[tuple[int, int]]] = {}
        self.makers: dict[int, str] = {}
        self.kept: dict[int, Kept] = {}
        self.own: set[int] = set()
        self.fakes: dict[Tensor, Tensor] = {}
        self.ends: list[int] = []  # autograd's own count, after each operation
        self.names: list[str] = []

    def _owner(self) -> tuple[str, str]:
        """The pass and the operation at work; in the backward pass, the one whose gradient it is."""
        if self.phase != "backward":
            return self.phase, self.place
        node = torch._C._current_autograd_node()
        if node is not None and node.name() != "torch::autograd::AccumulateGrad":
            place = bisect_left(self.ends, node._sequence_nr() + 1)
            self.place = self.names[place] if place < len(self.names) else LOSS
        return self.phase, self.place

    def run(self, fake: FakeTensorMode, inputs: list[Any], target: Any, optimizer: str) -> Trace:  # type: ignore[override]
        ledger = self.ledger
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            self.fakes.setdefault(tensor, fake.from_tensor(tensor))
        parameters = [p for t, p in self.fakes.items() if isinstance(t, nn.Parameter) and t.requires_grad]
        held = _total(ledger, self.fakes.values())
        self.own = {number for number, _, _ in ledger.storages(list(self.fakes.values()))}
        given = _total(ledger, tree := [*inputs, target])
        for number, _, _ in ledger.storages(tree):
            self.makers[number] = ""
        with ledger:
            made = optimizers[optimizer](groups(parameters, 0.01), lr=1e-3)  # type: ignore[arg-type]  # fake parameters
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter)
            made.step()
            made.zero_grad(set_to_none=True)
            state = _total(ledger, dict(made.state))
            ledger.restart()
            gradients = self._pass(inputs, target, parameters)
            self.phase, self.place = "update", UPDATE
            torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            made.step()
        flops: dict[str, dict[str, int]] = defaultdict(dict)
        for (phase, place), count in ledger.flops.items():
            flops[phase][place] = count
        return Trace(
            dict(flops["forward"]),
            dict(flops["backward"]),
            list(self.kept.values()),
            self.values,
            frozenset(self.kept),
            held,
            given,
            gradients,
            state,
            ledger.peak,
            ledger.peak_owner or ("forward", ""),
        )

    def _pass(self, inputs: list[Any], target: Any, parameters: list[Tensor]) -> int:
        """Forward and backward; the bytes of the gradients."""
        with torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor):
            flat = super().run(*inputs, enable_io_processing=False)
            output = pytree.tree_unflatten(list(flat), self.graph_.out_spec)
            del flat
            self.env.clear()  # which would keep the output
            self.place = LOSS
            loss = self.loss(output, zeros_like(output) if target is None else target)
            del output
        self.phase = "backward"
        loss.backward()
        del loss
        return _total(self.ledger, [p.grad for p in parameters])

    def fetch_attr(self, target: str) -> Any:
        value = super().fetch_attr(target)
        return self.fakes.get(value, value) if isinstance(value, Tensor) else value

    def run_node(self, n: fx.Node) -> Any:
        self.place = n.name
        value = super().run_node(n)
        if n.op == "call_function":
            found = [(number, size) for number, size, _ in self.ledger.storages(value)]
            self.values[n.name] = found
            for number, _ in found:
                self.makers.setdefault(number, n.name)
        elif n.op == "placeholder":
            self.values[n.name] = [(number, size) for number, size, _ in self.ledger.storages(value)]
        self.ends.append(torch.autograd._get_sequence_nr())  # pyright: ignore[reportPrivateImportUsage]
        self.names.append(n.name)
        return value

    def _save(self, tensor: Tensor) -> Tensor:
        for number, size, _ in self.ledger.storages(tensor):
            if number not in self.own:
                bits = 8 * tensor.element_size() if tensor.is_floating_point() else 0
                kept = self.kept.setdefault(number, Kept(size, bits, self.makers.get(number, self.place)))
                if self.place not in kept.savers:
                    kept.savers.append(self.place)
        return tensor


def _total(ledger: Ledger, values: Iterable[Any] | dict[Any, Any]) -> int:
    found = {number: size for number, size, _ in ledger.storages(values if isinstance(values, dict) else list(values))}
    return sum(found.values())
