"""Parts of a graph that can be taken out: an operation, or all that came from a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, fx, nn

from planish.compress.adaptive.values import inside
from planish.errors import OptionError
from planish.graph import FAMILIES, ROLES, Graph, Node, Selector
from planish.graph.cut import ancestors, is_size
from planish.graph.shapes import example

Of = Literal["operations", "modules"]


@dataclass(frozen=True)
class Region:
    """Operations with one value that goes out.

    Attributes:
        path: Module path.
        inputs: The activations that go in.
        output: The value that goes out.
        nodes: The operations, in execution order.
    """

    path: str
    inputs: tuple[Node, ...]
    output: Node
    nodes: tuple[Node, ...]

    @property
    def place(self) -> str:
        """What messages call it."""
        return self.path or self.output.name

    @property
    def stack(self) -> dict[str, tuple[str, str]]:
        """The modules around its operations, itself included."""
        found: dict[str, tuple[str, str]] = {}
        for key, frame in (self.output.fx.meta.get("nn_module_stack") or {}).items():
            found[key] = frame
            if frame[0] == self.path:
                break
        return found

    @property
    def examples(self) -> tuple[Tensor, ...]:
        """Tensors of the shapes that go in for the graph's example, all zero."""
        return tuple(example(node) for node in self.inputs)

    @property
    def varying(self) -> tuple[tuple[tuple[int, str], ...], ...]:
        """Of each input the axes whose size varies, and names of those sizes."""
        names: dict[str, str] = {}

        def axes(node: Node) -> Iterator[tuple[int, str]]:
            for axis, size in enumerate(node.value.shape):
                if not isinstance(size, int):
                    yield axis, names.setdefault(str(size.node.expr), f"size_{len(names)}")

        return tuple(tuple(axes(node)) for node in self.inputs)

    def refuse(self, why: str, hint: str = "") -> OptionError:
        """An error that names the place."""
        return OptionError(why, self.place, hint)


def operations(graph: Graph, where: Selector) -> list[Region]:
    """Each selected operation on activations; casts belong to what reads them.

    Raises:
        OptionError: There is none, or one does not make one tensor out of one; names its module.
    """
    found = []
    for node in graph.select(where):
        if node.op in FAMILIES["cast"] or not is_activation(node.fx):
            continue
        inputs = (node.input,) if node.op in ROLES else tuple(n for n in node.inputs if is_activation(n.fx))
        region = Region(node.path, tuple(each for each in inputs if each is not None), node, (node,))
        found.append(_checked(region, 1))
    if not found:
        raise OptionError(f"the selector {str(where)!r} matches no operation on activations", "where", "linear | conv")
    return found


def modules(graph: Graph, where: Selector) -> list[Region]:
    """Each module that the selector's paths match, the outermost where one lies in another.

    Raises:
        OptionError: There is none, or one does not make one tensor out of one; names it.
    """
    paths = dict.fromkeys(path for node in graph.nodes for path in _above(node.path))
    chosen = [path for path in paths if where.matches(_Module(path))]  # type: ignore[arg-type]
    outermost = [path for path in chosen if not any(path.startswith(f"{other}.") for other in chosen)]
    if not outermost:
        known = ", ".join(list(paths)[:12])
        raise OptionError(
            f"the selector {str(where)!r} matches no module", f"a model with modules {known}", "path('*')"
        )
    return [_checked(_region(graph, path), 1) for path in outermost]


FINDERS: dict[str, Callable[[Graph, Selector], list[Region]]] = {"operations": operations, "modules": modules}


def whole(node: Node, inputs: tuple[Node, ...]) -> Region:
    """An operation with all that it reads.

    Raises:
        OptionError: It stands in a branch.
    """
    return _checked(Region(node.path, inputs, node, (node,)), len(inputs))


def is_activation(node: fx.Node) -> bool:
    """Whether a value is a tensor that depends on the model's inputs."""
    return isinstance(node.meta.get("val"), Tensor) and any(each.op == "placeholder" for each in ancestors(node))


def dying(region: Region) -> set[fx.Node]:
    """The nodes that only serve to make a region's value of what goes in, among them tensors that only it reads."""
    kept = ancestors(*(node.fx for node in region.inputs)) if region.inputs else set()
    gone = {region.output.fx}
    for node in reversed(list(region.output.fx.graph.nodes)):
        if node.users and node not in kept and gone.issuperset(node.users):
            gone.add(node)
    return gone


def stored(region: Region) -> dict[str, Tensor]:
    """The parameters that only a region reads, by name."""
    graph = region.output.graph
    names = [str(node.target) for node in dying(region) if node.op == "get_attr"]
    return {name: graph.tensors[name] for name in names if name in graph.parameter_names}


def nbytes(tensors: Sequence[Tensor]) -> int:
    """What tensors take in memory."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def parameters(module: nn.Module) -> list[Tensor]:
    """A module's parameters."""
    return list(module.parameters())


@dataclass(frozen=True)
class _Module:
    """What a selector sees of a module."""

    path: str
    kind: str = "module"
    op: str = "module"
    dtype: Any = None

    @property
    def name(self) -> str:
        return self.path


def _above(path: str) -> Iterator[str]:
    """The path and those of the modules around it, the outermost first."""
    parts = path.split(".") if path else []
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def _region(graph: Graph, path: str) -> Region:
    nodes = tuple(node for node in inside(graph, path) if not is_size(node.fx))
    own = {node.fx for node in nodes}
    read = dict.fromkeys(source for node in nodes for source in node.inputs if source.fx not in own)
    inputs = tuple(node for node in read if is_activation(node.fx))
    given = [node for node in nodes if any(user not in own and not is_size(user) for user in node.fx.users)]
    if len(given) != 1:
        raise OptionError(f"it gives {len(given)} values, and what replaces it gives one", path, "a smaller module")
    return Region(path, inputs, given[0], nodes)


def _checked(region: Region, count: int) -> Region:
    output, given = region.output, len(region.inputs)
    if output.fx.graph is not output.graph.fx:
        raise region.refuse("it stands in a branch of torch.cond")
    if given != count:
        hint = "Attention(...) replaces attention" if output.op == "scaled_dot_product_attention" else "path('...')"
        raise region.refuse(f"it reads {given} values, and what replaces it reads one", hint)
    if not all(isinstance(node.value, Tensor) and node.dtype is not None for node in (*region.inputs, output)):
        raise region.refuse("it reads or gives something else than a tensor")
    return region
