"""Low-rank error correction: a thin product beside a compressed weight makes up for what compressing it lost."""

# ruff: noqa: A001  (`format` is the word for it everywhere else)

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from planish.compress import columns
from planish.compress.beside import add_product, by_weight, sizes
from planish.compress.factors import Spectrum, allocate, root, scaled
from planish.compress.grid import Grid, Layout
from planish.compress.moments import moments, rows
from planish.compress.original import original
from planish.compress.sites import free_name, replace_tensor, roles, weight_name, weighted
from planish.compress.sweep import Read, sweep
from planish.errors import DataError, OptionError
from planish.formats import Format, get
from planish.formats.block import group
from planish.graph import FAMILIES, Data, Editor, Graph, Node, Pass, Progress, Selector, Step, parse_selector
from planish.graph.evaluate import fold

Norm = Literal["qera", "lqer", "svd"]


@dataclass(frozen=True)
class Correct(Pass):
    """Add to a compressed weight `E` the product `b @ a` of low rank that is nearest to what `E` has lost: `E + b @ a`.

    Put it behind Quantize or Prune. What was lost is told from the graph that the recipe started from. Layers are done
    in order, each on the inputs that the corrected layers before it give.

    Attributes:
        rank: Rank of each correction. Give this or `bits`.
        bits: The most that all corrections together add for each number of the weights that they correct. Ranks are
            then spread so that the relative errors of the layers' outputs fall the most.
        by: In what norm the product is nearest. "qera": that of the layer's output, by the moments of its input (QERA,
            arXiv 2410.06040, theorem 1); "lqer": each input channel by its mean magnitude (LQER, arXiv 2402.02446,
            section 3.2); "svd": the plain one, without data.
        factors: Format of `a` and `b`; None keeps them in floating point. Groups along the last axis run along the
            weight's own axis in both; without a block there is one scale for each rank.
        rounds: How often the weight is rounded again with the correction in place (by GPTQ, arXiv 2210.17323), and the
            correction computed anew. Weights that GPTQ does not take are left as they are.
        where: The layers: linear ones, and convolutions in one group.
    """

    rank: int | None = None
    bits: float | None = None
    by: Norm = "qera"
    factors: Format | str | None = "int8"
    rounds: int = 0
    where: Selector | str = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", None if self.factors is None else get(self.factors))
        object.__setattr__(self, "where", parse_selector(self.where))
        if (self.rank is None) == (self.bits is None):
            raise OptionError("a correction has either a rank or a budget of bits", "rank, bits", "rank=16")
        if self.rank is not None and self.rank < 1:
            raise OptionError(f"a correction has rank 1 or more, not {self.rank}", "rank", "rank=16")
        if self.bits is not None and self.bits <= 0:
            raise OptionError(f"a budget of bits is above 0, not {self.bits}", "bits", "bits=0.75")
        if self.rounds < 0:
            raise OptionError(f"a weight cannot be rounded {self.rounds} times", "rounds")
        if self.by not in get_args(Norm):
            raise OptionError(f"unknown norm {self.by!r}", "by", f"one of {', '.join(get_args(Norm))}")
        if self.factors is not None and get(self.factors).is_dynamic:
            raise OptionError("factors store their scales", "factors", "leave '~dynamic' out")

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each weight, with the rank and the bytes of its factors where the rank is given."""
        steps = []
        for node in self._layers(graph):
            action = f"{weight_name(node).rpartition('.')[2]} corrected"
            if self.rank is not None:
                rank = min(self.rank, *_shape(node))
                action += f" by rank {rank}, {self._nbytes(node, rank):,} B"
            steps.append(Step(node.path, node.name, action))
        return steps

    def draft(self, graph: Graph) -> Graph:
        """With factors of zeros, a budget spread evenly."""
        layers = self._layers(graph)
        if self.rank is not None:
            return self._wrapped(graph, {node.name: min(self.rank, *_shape(node)) for node in layers})
        budget = (self.bits or 0) * sum(math.prod(_shape(node)) for node in layers)
        rank = max(1, int(budget / sum(self._price(node) for node in layers)))
        return self._wrapped(graph, {node.name: min(rank, *_shape(node)) for node in layers})

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The corrected graph."""
        layers = self._layers(graph)
        ranks = self._ranks(graph, layers, data, progress)
        chosen = [node for node in layers if ranks[node.name]]
        exact = {node.name: _matrix(node, original(node)) for node in chosen}
        result, done = self._wrapped(graph, ranks), 0

        def visit(node: Node, read: Read) -> None:
            nonlocal done
            progress(done, len(chosen), node.path)
            done += 1
            self._correct(node, exact[node.name], read)

        self._visit(result, data, visit, [node.name for node in chosen])
        progress(len(chosen), len(chosen), "")
        return result

    def _layers(self, graph: Graph) -> list[Node]:
        """The first layer that reads each compressed weight."""
        return [first for first, *_ in self._groups(graph)]

    def _groups(self, graph: Graph) -> list[tuple[Node, ...]]:
        found = by_weight(filter(_takes, weighted(graph, self.where)))
        if not found:
            raise OptionError(
                f"the selector {str(self.where)!r} matches no linear layer whose weight is compressed",
                "where",
                "put Correct behind Quantize or Prune",
            )
        return found

    def _visit(self, graph: Graph, data: Data | None, visit: Callable[[Node, Read], None], names: list[str]) -> None:
        if self.by != "svd":
            sweep(graph, data, visit, names, "Correct")
            return
        for name in names:
            visit(graph.node(name), lambda _: [])

    def _ranks(self, graph: Graph, layers: list[Node], data: Data | None, progress: Progress) -> dict[str, int]:
        if self.rank is not None:
            return {node.name: min(self.rank, *_shape(node)) for node in layers}
        assert self.bits is not None
        gains: dict[str, Tensor] = {}

        def visit(node: Node, read: Read) -> None:
            progress(len(gains), 2 * len(layers), f"spectrum of {node.path}")
            exact, scale = _matrix(node, original(node)), self._scale(node, read)[0]
            lost = Spectrum.of(exact - _matrix(node, _value(node.weight)), scale)
            gains[node.name] = lost.values.square() / scaled(exact, scale).square().sum().clamp_min(1e-30)

        self._visit(graph, data, visit, [node.name for node in layers])
        ranks = allocate(
            gains,
            {node.name: self._price(node) for node in layers},
            self.bits * sum(math.prod(_shape(node)) for node in layers),
        )
        if not any(ranks.values()):
            raise OptionError(f"{self.bits} bits do not buy one rank", "bits", "bits=0.5")
        return ranks

    def _scale(self, node: Node, read: Read) -> tuple[Tensor | None, Tensor]:
        """What an error is measured in, and the moments of the inputs."""
        if self.by == "svd":
            return None, torch.eye(_shape(node)[1], dtype=torch.float64)
        assert node.input is not None
        batches = read(node.input)
        known = moments(node, batches)
        if not bool(torch.isfinite(known.gram).all()):
            raise DataError("an activation is NaN or infinite on the calibration data", node.path)
        if self.by == "qera":
            return root(known.gram / known.count), known.gram
        total = torch.stack([rows(node, batch.actual).abs().double().sum(0) for batch in batches]).sum(0)
        return (total / known.count).clamp_min(1e-12), known.gram

    def _wrapped(self, graph: Graph, ranks: Mapping[str, int]) -> Graph:
        edit = graph.edit()
        for layers in self._groups(graph):
            if rank := ranks[layers[0].name]:
                self._wrap(edit, layers, rank)
        return edit.done()

    def _wrap(self, edit: Editor, layers: tuple[Node, ...], rank: int) -> None:
        """Put the correction, still zero, behind the last step of a weight."""
        layer = layers[0]
        assert layer.weight is not None
        endings = {"__b": sizes(layer, rank)[0], "__a": sizes(layer, rank)[1]}
        stem = free_name(edit.graph.tensors, weight_name(layer), list(endings))
        factors = []
        for axis, (ending, size) in enumerate(endings.items(), -1):
            factor = edit.add(stem + ending, torch.zeros(size, dtype=layer.weight.value.dtype), trainable=True)
            factors.append(self._rounded(edit, factor, axis % 2, layer))
        add_product(edit, layers, *factors)

    def _rounded(self, edit: Editor, factor: Node, rank_axis: int, layer: Node) -> Node:
        if self.factors is None:
            return factor
        format, name = self._format(rank_axis), str(factor.target)
        given = format.parameters(edit.graph.tensors[name])
        endings = [f"__{level.replace('.', '_')}" for level, _ in format.levels]
        stored = [edit.add(name + ending, tensor) for ending, tensor in zip(endings, given, strict=True)]
        return edit.call(torch.ops.planish.cast.default, factor, stored, str(format), before=layer)

    def _format(self, rank_axis: int) -> Format:
        """Of the factor whose ranks run along an axis; its groups run along the other."""
        assert self.factors is not None
        format = get(self.factors)
        if format.block is None:
            return format.per_channel(rank_axis)
        (axis, size) = format.block.sizes[0] if len(format.block.sizes) == 1 else (0, None)
        return format.at(group(size, 0)) if rank_axis == 1 and axis == -1 and size else format

    def _nbytes(self, node: Node, rank: int) -> int:
        out, width = _shape(node)
        if self.factors is None:
            return 4 * rank * (out + width)
        return self._format(1).nbytes((out, rank)) + self._format(0).nbytes((rank, width))

    def _price(self, node: Node) -> float:
        """Bits of one rank."""
        return 8 * self._nbytes(node, 64) / 64

    def _correct(self, node: Node, exact: Tensor, read: Read) -> None:
        """Compute one correction; as often as asked for, round the weight with it in place and compute it anew."""
        total = node.weight
        assert total is not None
        weight, product = total.inputs
        scale, gram = self._scale(node, read)
        best: tuple[float, dict[str, Tensor]] | None = None
        rounds = self.rounds if _rounds_alone(weight) else 0
        for left in range(rounds, -1, -1):
            lost = exact - _matrix(node, _value(weight))
            _set_factors(node, product, lost, scale)
            rest = float(scaled(lost - _matrix(node, _value(product)), scale).square().sum())
            if best is None or rest < best[0]:
                best = rest, dict(node.graph.tensors)
            if left:
                _round(node, weight, exact - _matrix(node, _value(product)), gram)
        assert best is not None
        node.graph.tensors.update(best[1])


def _set_factors(node: Node, product: Node, lost: Tensor, scale: Tensor | None) -> None:
    """The factors nearest to what was lost; the second one makes up for rounding the first."""
    graph = node.graph
    pair = product.inputs if product.op == "matmul" else product.inputs[0].inputs
    transposed = roles(node).out_axis == 1
    left_node, right_node = reversed(pair) if transposed else pair
    rank = int(pair[0].value.shape[1])
    left, right = Spectrum.of(lost, scale).factors(rank)
    _set(graph, left_node, left.T if transposed else left)
    if left_node.op == "cast":
        held = _value(left_node).double()
        right = torch.linalg.lstsq(held.T if transposed else held, lost, driver="gelsd").solution
    _set(graph, right_node, right.T if transposed else right)


def _set(graph: Graph, factor: Node, value: Tensor) -> None:
    """Give a factor its numbers, and its cast their scales."""
    tensor = factor.inputs[0] if factor.op == "cast" else factor
    name = str(tensor.target)
    replace_tensor(graph, name, value.to(graph.tensors[name].dtype).contiguous())
    if factor.format is not None:
        given = factor.format.parameters(graph.tensors[name])
        graph.tensors.update({str(place.target): new for place, new in zip(factor.args[1], given, strict=True)})


def _rounds_alone(weight: Node) -> bool:
    """Whether an expression is a cast of a tensor that nothing else reads."""
    if weight.op != "cast" or weight.inputs[0].kind != "tensor" or len(weight.users) > 1:
        return False
    tensors, own = weight.graph.tensors, weight.inputs[0]
    return len(own.users) == 1 and sum(tensor is own.tensor for tensor in tensors.values()) == 1


def _round(node: Node, cast: Node, target: Tensor, gram: Tensor) -> None:
    """Round a matrix to the cast's format by GPTQ, its scales anew, and store it."""
    graph, layout = node.graph, _layout(node)
    assert cast.format is not None
    grid = Grid(cast.format, cast.format.parameters(layout.stored(target.float())), layout)
    rounded = layout.stored(columns.gptq(target.float(), columns.damped(gram), grid))
    graph.tensors.update({str(place.target): new for place, new in zip(cast.args[1], grid.parameters, strict=True)})
    name = str(cast.inputs[0].target)
    replace_tensor(graph, name, rounded.to(graph.tensors[name].dtype))


def _takes(node: Node) -> bool:
    """Whether a layer is of a kind that is corrected, and its weight has lost something."""
    one_group = node.op in ("conv1d", "conv2d", "conv3d") and node.argument("groups") == 1
    return (node.op in FAMILIES["linear"] or one_group) and node.weight is not None and _is_lossy(node.weight)


def _is_lossy(step: Node) -> bool:
    """Whether a weight expression rounds or masks."""
    if step.kind != "call":
        return False
    held = [source for source in step.inputs if source.kind == "tensor"]
    masks = step.op == "mul" and any(place.target not in step.graph.parameter_names for place in held)
    return step.op == "cast" or masks or any(map(_is_lossy, step.inputs))


def _layout(node: Node) -> Layout:
    assert node.weight is not None
    return Layout(tuple(map(int, node.weight.value.shape)), roles(node).out_axis == 1)


def _matrix(node: Node, value: Tensor) -> Tensor:
    return _layout(node).matrix(value.detach()).double()


def _shape(node: Node) -> tuple[int, int]:
    sizes = _layout(node).shape
    return (sizes[1], sizes[0]) if roles(node).out_axis == 1 else (sizes[0], math.prod(sizes[1:]))


def _value(node: Node | None) -> Tensor:
    assert node is not None
    value = fold(node.graph, node.fx)
    assert value is not None, "a weight expression depends on tensors only"
    return value
