"""`Graph`: what a model computes, as PyTorch exported it, with the names that the user gave.

A graph never changes once it is made. `edit()` gives a copy to change; copies share all tensors, so a thousand variants
of a model cost a thousand lists of nodes and no weight.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from planish.errors import DataError, OptionError, PlanishError
from planish.graph import check, evaluate, store
from planish.graph.assemble import assemble, assemble_tree
from planish.graph.branches import calls_of, copied, steps_of
from planish.graph.convert import Converter
from planish.graph.copying import clone, copy_graph
from planish.graph.edit import Editor
from planish.graph.export import export
from planish.graph.hierarchy import Part
from planish.graph.modes import EVALUATION_ONLY, Net, add_counters
from planish.graph.node import Node
from planish.graph.select import Selector, parse_selector
from planish.graph.text import to_text


@dataclass(eq=False)
class Graph:
    """A captured model.

    Attributes:
        fx: The steps in order, as composite ATen operations. Read-only: change a graph through `edit()`.
        tensors: Every parameter, buffer and constant by its dotted name in the user's model.
        buffers: Names among `tensors` that the user's `state_dict` has as buffers; other non-parameters are constants.
        branches: Bodies of `torch.cond`, by name.
        example: The example inputs, `(args, kwargs)`.
        dynamic: `{input name: {axis: size name}}`, as given to `capture`.
        symbols: torch's name of a dynamic size -> the user's.
        training_refusal: Why the graph cannot train; None if it can.
        origin: The graph that a recipe started from, which recovery learns from; not saved.
    """

    fx: fx.Graph
    tensors: dict[str, torch.Tensor]
    example: tuple[tuple[Any, ...], dict[str, Any]]
    buffers: frozenset[str] = frozenset()
    branches: Mapping[str, fx.GraphModule] = field(default_factory=dict)
    dynamic: Mapping[str, Any] = field(default_factory=dict)
    symbols: Mapping[str, str] = field(default_factory=dict)
    training_refusal: PlanishError | None = field(default_factory=lambda: EVALUATION_ONLY)
    origin: Graph | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The operations in execution order, those in branches of `torch.cond` before the call that chooses one."""
        return tuple(Node(self, node) for node in steps_of(self.fx, self.branches))

    @cached_property
    def calls(self) -> Mapping[fx.Graph, fx.Node]:
        """Body of a branch -> the `torch.cond` that may run it."""
        return calls_of(self.fx, self.branches)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The inputs, flattened, in order."""
        return tuple(Node(self, node) for node in self.fx.nodes if node.op == "placeholder")

    @property
    def outputs(self) -> tuple[Node, ...]:
        """The nodes whose values the model returns, each once."""
        return tuple(Node(self, node) for node in self.fx.output_node().all_input_nodes)

    @property
    def parameter_names(self) -> frozenset[str]:
        """Dotted names of the parameters."""
        return frozenset(name for name, tensor in self.tensors.items() if isinstance(tensor, nn.Parameter))

    @property
    def in_spec(self) -> pytree.TreeSpec:
        """Structure of `(args, kwargs)`."""
        return self.fx._codegen.pytree_info.in_spec  # type: ignore[attr-defined]  # every graph here has a pytree codegen

    def flat_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """The values of the inputs, in order.

        Raises:
            DataError: They have another structure than the example inputs.
        """
        names = self.in_spec.child(1).context
        if set(names or ()) == set(kwargs):
            kwargs = {name: kwargs[name] for name in names or ()}
        leaves, spec = pytree.tree_flatten((tuple(args), dict(kwargs)))
        if spec != self.in_spec:
            raise DataError(f"an item of data has the structure {spec}, the graph takes {self.in_spec}", "data")
        return leaves

    @property
    def out_spec(self) -> pytree.TreeSpec:
        """Structure of what the model returns."""
        return self.fx._codegen.pytree_info.out_spec  # type: ignore[attr-defined]

    def node(self, name: str) -> Node:
        """The node of that name.

        Raises:
            OptionError: There is none.
        """
        for node in (*self.fx.nodes, *steps_of(self.fx, self.branches)):
            if node.name == name:
                return Node(self, node)
        raise OptionError(f"the graph has no node {name!r}", hint="print(graph) lists the names")

    def select(self, selector: Selector | str) -> list[Node]:
        """The operations that a selector takes, in execution order.

        Raises:
            OptionError: It takes none; says how many each of its module paths has.
        """
        chosen = parse_selector(selector)
        found = chosen.within(self.nodes)
        if not found:
            modules = sorted({path.partition(".")[0] for path in (node.path for node in self.nodes) if path})
            operations = sorted({node.op for node in self.nodes})
            raise OptionError(
                f"the selector {str(chosen)!r} matches nothing",
                f"a graph with modules {', '.join(modules[:12]) or 'none'} and operations {', '.join(operations[:20])}",
                "print(graph) shows every name, operation and path",
            )
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run in evaluation mode without gradients; the output has the model's own structure."""
        with torch.no_grad():
            return self._runnable(*args, **kwargs)

    @cached_property
    def _runnable(self) -> fx.GraphModule:
        return assemble(self, fx.GraphModule, self.fx, self.tensors, self.branches)

    @overload
    def module(self, hierarchical: Literal[False] = False) -> Net: ...
    @overload
    def module(self, hierarchical: Literal[True]) -> Part: ...

    def module(self, hierarchical: bool = False) -> Net | Part:
        """An ordinary trainable module, in evaluation mode, with its own copy of all parameters and buffers.

        Its `state_dict` has the user's names. `train()` and `eval()` switch dropout, batch norm and attention dropout.

        Args:
            hierarchical: Give the user's module tree back, each module that the model called with a forward of its own,
                as hooks, FSDP, tensor parallelism and pipelines need it. The values that cross a module's border are
                passed one by one, whatever structure the user's own modules passed them in.
        """
        copies: dict[int, torch.Tensor] = {}
        mine = self.parameter_names | self.buffers
        tensors = {
            name: copies.setdefault(id(tensor), clone(tensor)) if name in mine else tensor
            for name, tensor in self.tensors.items()
        }
        steps = copy_graph(self.fx)
        add_counters(steps)
        bodies = copied(self.branches, Net)
        net = (
            assemble_tree(self, steps, tensors, bodies) if hierarchical else assemble(self, Net, steps, tensors, bodies)
        )
        net.meta["training_refusal"] = self.training_refusal
        net.training = True  # GraphModule says so of a new one; eval() below sets every submodule
        return net.eval()

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Graph:
        """The graph on another device, in another floating type, or both; `graph` itself stays.

        Tensors, example inputs, and the devices and types that the export baked into operations change. As there is no
        telling a type that the user named from one that followed from the weights', every step that computed in
        the type of the weights or inputs computes in the new one. Scales of number formats keep their type.

        Raises:
            OptionError: `dtype` is not floating.
            GraphError: An operation does not take the new type.
        """
        return Converter(self, device, dtype).graph()

    def recapture(self) -> Graph:
        """Export the graph again, as if it were the user's model: what an edit left behind is normal form again.

        Outputs, names of tensors, module paths, dynamic sizes and modes stay; names of nodes are given afresh, and
        tensors are shared.

        Raises:
            ModelError: torch cannot export what the edits made.
        """
        steps = copy_graph(self.fx)
        add_counters(steps)
        args, kwargs = self.example
        names = [*self.fx._codegen.pytree_info.orig_args[: len(args)], *kwargs]  # type: ignore[attr-defined]
        net = assemble_tree(self, steps, self.tensors, copied(self.branches, Net))
        refusal = self.training_refusal
        attributes = export(net, self.example, names, self.dynamic, training=refusal is None)
        return Graph(**(attributes if refusal is None else {**attributes, "training_refusal": refusal})).verify()

    def edit(self) -> Editor:
        """A copy to change; this graph stays as it is, and both share all tensors."""
        return Editor(self)

    def replace(self, **changes: Any) -> Graph:
        """A graph with some attributes replaced and the rest shared."""
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Graph(**{**kept, **changes})

    def verify(self) -> Graph:
        """Check that the graph is well formed, and return it.

        Raises:
            GraphError: It is not; names the node and its module path.
        """
        check.verify(self)
        return self

    def save(self, path: str | os.PathLike[str], whole: bool = False) -> None:
        """Write the graph as one `.planish` file: safetensors, with the graph as JSON in its header.

        Weights that are cast or masked take the bytes of their codes and of what the mask leaves. What is loaded
        computes the same; `whole` also keeps the numbers behind, as what goes on training or compressing needs them.
        """
        store.save(self, path, whole)

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process as the file that `save` writes."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "graph.planish")
            self.save(path, whole=True)
            return _from_bytes, (path.read_bytes(),)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Graph:
        """Read what `save` wrote. Nothing in the file is executed.

        Raises:
            UntrustedFile: The file is damaged, or names an operator or structure outside the allow-list.
        """
        return cls(**store.read(path)).verify()

    def base_state_dict(self) -> dict[str, torch.Tensor]:
        """The user's parameters and buffers under the user's names, weight expressions folded to plain tensors."""
        return evaluate.base_tensors(self)

    def __str__(self) -> str:
        return to_text(self)

    def __repr__(self) -> str:
        parameters = sum(self.tensors[name].numel() for name in self.parameter_names)
        return f"<Graph: {len(self.nodes)} operations, {parameters:,} parameters>"


def _from_bytes(content: bytes) -> Graph:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.planish")
        path.write_bytes(content)
        return Graph.load(path)
