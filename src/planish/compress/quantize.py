"""Quantize weights and activations: every number format, one pass."""

# ruff: noqa: A001, A002  (`format` is the word for it everywhere else)

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from planish.compress import adaround, bias, exclude, gptq, pairs, relax
from planish.compress.cache import Cache, formats_of, to_cast
from planish.compress.moments import Moments, moments
from planish.compress.ranges import RANGES, Ranges, find_range
from planish.compress.sites import (
    Site,
    free_name,
    is_embedding,
    placed_on_activation,
    placed_on_weight,
    sites,
    skips,
    static_shape,
    unweighted,
    weight_name,
    weight_of,
    weighted,
)
from planish.compress.sweep import Read, sweep
from planish.errors import DataError, OptionError
from planish.formats import Format, get, int8
from planish.formats.integer import Int
from planish.graph import (
    FAMILIES,
    Candidate,
    Data,
    Editor,
    Graph,
    Node,
    Pass,
    Progress,
    Selector,
    Step,
    ops,
    parse_selector,
)

WEIGHTED = "linear | conv | embedding"
Rounding = Literal["rtn", "gptq", "adaround"]


@dataclass(frozen=True)
class Quantize(Pass):
    """Put a `planish::cast` on weights and, if asked, on the activations that meet them.

    A format without a block gets one by its role: weights one scale for each output channel, activations one for the
    tensor (one a token if dynamic). Layers that read one tensor share its cast, and so do the additions beside
    convolutions: skip connections stay in integers, projected ones too, and so does what average pools read. What is
    quantized already is left as it is, so that exceptions come first in a recipe and the general case last.

    Attributes:
        weights: Format of the weights; None leaves them.
        activations: Format of what meets the weights of linear and convolution layers; None leaves it. A static one
            needs calibration data.
        where: The layers.
        attention: Format of queries, keys and values, and of what other products multiply; None leaves them. A pair is
            for queries and keys, which make the scores, and for values; other products take its first.
        cache: Format of the key-value cache of a causal language model, or a pair for keys and for values; None leaves
            it. New keys and values are cast once, before they are appended. Without a block there is one scale for each
            token of each head; what is shared by all tokens (`int8@tensor`) needs calibration data.
        ranges: How a static range follows from the calibration data: "minmax" holds every number, "percentile" cuts the
            rarest, "mse" minimizes the squared rounding error.
        percentile: Per cent of the numbers that a "percentile" range holds.
        by: "rtn" rounds each weight to the nearest; "gptq" rounds one input channel after the other and lets the rest
            make up for it (arXiv 2210.17323), on the inputs that the quantized model really gives, aiming at the
            outputs of the exact one, and chooses the scales on the way; "adaround" learns whether each weight goes up
            or down (arXiv 2004.10568). Both are for linear layers and convolutions in one group; other weights, and
            those that several layers read, are rounded to the nearest, by the scales of least squared error.
        correct_bias: Move the bias of each layer that has one by the mean error of its output on the calibration data
            (arXiv 1906.04721, section 4.2), earlier layers being corrected already.
        pair_bits: 16 keeps the codes of weights to such as never overflow the 16 bits in which x86 processors without
            VNNI add two products with 8-bit activations: exact on every processor, at a small loss
            (`planish.compress.pairs`). 32 leaves them; engines that would overflow are then refused or run slower.
        max_drop: The most that `metric` may fall on the calibration data. The fewest layers that meet it keep their
            precision, the most sensitive first.
        metric: What `max_drop` is measured in.
    """

    weights: Format | str | None = int8
    activations: Format | str | None = None
    where: Selector | str = WEIGHTED
    attention: Format | str | tuple[Format | str | None, Format | str | None] | None = None
    cache: Format | str | tuple[Format | str | None, Format | str | None] | None = None
    ranges: Ranges = "minmax"
    percentile: float = 99.99
    by: Rounding = "rtn"
    correct_bias: bool = False
    pair_bits: Literal[16, 32] = 32
    max_drop: float | None = None
    metric: str = "mean_cosine"

    def __post_init__(self) -> None:
        for name in ("weights", "activations"):
            format = getattr(self, name)
            object.__setattr__(self, name, None if format is None else get(format))
        for name in ("attention", "cache"):
            first, second = formats_of(getattr(self, name), name)
            object.__setattr__(self, name, first if first == second else (first, second))
        object.__setattr__(self, "where", parse_selector(self.where))
        if all(format is None for format in (self.weights, self.activations, self.attention, self.cache)):
            raise OptionError("nothing to quantize: no format is given", "weights, activations", "weights='int8'")
        if self.ranges not in RANGES:
            raise OptionError(f"unknown ranges {self.ranges!r}", "ranges", f"one of {', '.join(RANGES)}")
        if self.by not in get_args(Rounding):
            raise OptionError(f"unknown rounding {self.by!r}", "by", f"one of {', '.join(get_args(Rounding))}")
        if self.pair_bits not in (16, 32):
            raise OptionError(f"pairs of products are added in 16 or 32 bits, not {self.pair_bits}", "pair_bits")
        if self.pair_bits == 16 and self.weights is not None:
            pairs.check(get(self.weights))
        if self.by == "adaround" and self.weights is not None:
            self._check_adaround(get(self.weights))
        if not 50 < self.percentile <= 100:
            raise OptionError(f"a range holds 50 to 100 per cent of the numbers, not {self.percentile}", "percentile")
        if self.max_drop is not None and self.max_drop < 0:
            raise OptionError(f"a metric cannot be asked to fall by {self.max_drop}", "max_drop", "max_drop=0.002")

    def _check_adaround(self, format: Format) -> None:
        if not adaround.applies(format):
            raise OptionError(f"the numbers of {format} are not each above or below another", "by", "by='gptq'")
        if self.pair_bits == 16 and format.bits > 7:
            raise OptionError("AdaRound does not keep codes to pairs", "pair_bits", "by='gptq', or pair_bits=32")

    def plan(self, graph: Graph) -> list[Step]:
        """One step for each tensor: its format, and its bytes before and after."""
        layers = self._layers(graph)
        return [*self._weight_steps(layers), *self._activation_steps(graph, layers)]

    def apply(self, graph: Graph, data: Data | None, progress: Progress) -> Graph:
        """The quantized graph."""
        layers = self._layers(graph)
        if self.max_drop is None:
            return self._quantized(graph, layers, data, progress)
        return exclude.fewest(self._quantized, graph, layers, data, self.metric, self.max_drop, progress)

    def draft(self, graph: Graph) -> Graph:
        """The graph with its casts, ranges and rounding aside; with `max_drop`, as if every layer could stay."""
        return self._structure(graph, self._layers(graph))[0]

    def candidates(self, graph: Graph) -> list[Candidate]:
        """Rounding of what each layer reads, to the nearest whatever `by`; none for a cache, or with `max_drop`."""
        if self.cache is not None or self.max_drop is not None:
            return []
        layers, found = self._layers(graph), list[Candidate]()
        for layer in layers:
            format = self._weight_format(layer)
            if format is not None and not _is_cast(layer.weight):
                found.append(relax.weight(layer, format))
        for site in self._sites(layers):
            found.append(relax.activation(site.source, self._activation_format(), (*site.layers, *skips(site))))
        for node in self._products(graph):
            found += [relax.activation(operand, format, (node,)) for operand, format in self._multiplied(node).items()]
        return found

    def _layers(self, graph: Graph) -> list[Node]:
        layers = weighted(graph, self.where) if self.weights or self.activations else []
        return [node for node in layers if not self._is_done(node)] or self._nothing_left(layers)

    def _is_done(self, node: Node) -> bool:
        weight = self.weights is None or _is_cast(node.weight)
        activation = self.activations is None or is_embedding(node) or _is_cast(node.input)
        return weight and activation

    def _nothing_left(self, layers: list[Node]) -> list[Node]:
        if layers:
            raise OptionError(
                f"every layer that {str(self.where)!r} matches is quantized already",
                "where",
                "let each layer match one step of the recipe",
            )
        return []

    def _weight_steps(self, layers: list[Node]) -> list[Step]:
        steps, seen = [], set()
        for node in layers:
            value, format = weight_of(node), self._weight_format(node)
            if value is None or format is None or _is_cast(node.weight) or (node.weight, format) in seen:
                continue
            seen.add((node.weight, format))
            before = value.numel() * value.element_size()
            action = f"{weight_name(node).rpartition('.')[2]} to {format}"
            steps.append(Step(node.path, node.name, action, before, format.nbytes(value.shape)))
        return steps

    def _activation_steps(self, graph: Graph, layers: list[Node]) -> list[Step]:
        steps: list[Step] = []
        for site in self._sites(layers):
            first, *others = site.layers
            shared = f", shared by {len(others) + 1} layers" if others else ""
            steps.append(Step(site.path, first.name, f"input to {self._activation_format()}{shared}"))
        for node in self._products(graph):
            formats = dict.fromkeys(map(str, self._multiplied(node).values()))
            steps.append(Step(node.path, node.name, f"operands to {' and '.join(formats)}"))
        for cache, format in self._caches(graph):
            sizes = f"{cache.token_bytes():g} to {cache.token_bytes(format):g} bytes a token"
            steps.append(Step(cache.path, cache.whole.name, f"{cache.role} in the cache to {format}, {sizes}"))
        return steps

    def _weight_format(self, node: Node) -> Format | None:
        return None if self.weights is None else placed_on_weight(get(self.weights), node)

    def _activation_format(self) -> Format:
        assert self.activations is not None
        return placed_on_activation(get(self.activations))

    def _multiplied(self, node: Node) -> dict[Node, Format]:
        """The activations that a product multiplies and that are to be cast: no mask, and no tensor of the model. What
        is several of them takes the format of its first place."""
        scores, values = formats_of(self.attention, "attention")
        wanted: dict[Node, Format | None] = dict.fromkeys(node.inputs, scores)
        if node.op == "scaled_dot_product_attention":
            wanted = dict.fromkeys(map(node.argument, ("query", "key")), scores)
            wanted.setdefault(node.argument("value"), values)
        return {
            operand: placed_on_activation(format)
            for operand, format in wanted.items()
            if format is not None and operand.kind != "tensor" and operand.op != "cast"
        }

    def _sites(self, layers: list[Node]) -> list[Site]:
        if self.activations is None:
            return []
        format, found = self._activation_format(), sites(layers)
        if isinstance(format.element, Int) and not format.is_dynamic:
            found += unweighted(layers)
        return [site for site in found if site.source.op != "cast"]

    def _products(self, graph: Graph) -> list[Node]:
        if self.attention is None:
            return []
        nodes = (ops.attention | ops.matmul).within(graph.nodes)
        found = [node for node in nodes if self._multiplied(node)]
        if not found:
            raise OptionError(
                "the graph has no attention and no product of two activations", "attention", "attention=None"
            )
        return found

    def _caches(self, graph: Graph) -> list[tuple[Cache, Format]]:
        return [] if self.cache is None else to_cast(graph, formats_of(self.cache, "cache"))

    def _structure(self, graph: Graph, layers: list[Node]) -> tuple[Graph, set[str]]:
        """The graph with casts, and the names of those whose range is still to be found."""
        edit = graph.edit()
        for node in layers:
            self._cast_weight(edit, node)
        static: list[str] = []
        for site in self._sites(layers):
            readers = (*site.layers, *skips(site))
            static += self._cast_input(edit, site.source, readers, f"{site.path}.input", self._activation_format())
        for node in self._products(graph):
            for operand, format in self._multiplied(node).items():
                stem = f"{node.path or node.name}.{operand.name}"
                static += self._cast_input(edit, operand, (node,), stem, format)
        for cache, format in self._caches(graph):
            static += self._cast_input(edit, cache.new, (cache.whole,), f"{cache.path}.{cache.role}", format)
        return edit.done(), set(static)

    def _quantized(self, graph: Graph, layers: list[Node], data: Data | None, progress: Progress) -> Graph:
        result, static = self._structure(graph, layers)
        rounded = {node.name for node in layers if self.by != "rtn" and gptq.applies(result.node(node.name))}
        nearest = [result.node(node.name) for node in layers if node.name not in rounded]
        for node in {node.weight: node for node in nearest if _is_cast(node.weight)}.values():  # tied weights once
            if self._in_pairs(node):
                pairs.round_weight(result, node)
            elif self.by != "rtn":
                gptq.fit_scale(result, node)
        corrected = {node.name for node in layers if self.correct_bias and bias.applies(result.node(node.name))}
        if static or rounded or corrected:
            self._calibrate(result, data, static, rounded, corrected, progress)
        return result

    def _cast_weight(self, edit: Editor, layer: Node) -> None:
        node = edit.node(layer.name)
        format, value = self._weight_format(node), weight_of(node)
        weight = node.weight
        if format is None or weight is None or value is None or weight.op == "cast":
            return
        _check_weight(value, weight_name(layer), format)
        for user in weight.users:  # a tied weight that was cast to the same format a moment ago
            if user.op == "cast" and user.format == format:
                edit.replace_input(node, weight, user)
                return
        parameters = format.parameters(value)
        stem = free_name(edit.graph.tensors, weight_name(layer), _endings(format))
        stored = [edit.add(stem + end, tensor) for end, tensor in zip(_endings(format), parameters, strict=True)]
        edit.cast(weight, node, format, stored)

    def _cast_input(
        self, edit: Editor, source: Node, readers: tuple[Node, ...], stem: str, format: Format
    ) -> list[str]:
        """Cast one tensor for its readers; the name of the cast if its range is still to be found."""
        first, *others = (edit.node(reader.name) for reader in readers)
        start = edit.node(source.name)
        stored = []
        if format.scale is not None and not format.is_dynamic:
            width = static_shape(format, start.value.shape, stem)
            stem = free_name(edit.graph.tensors, stem, _endings(format))
            blank = format.parameters(low=torch.zeros(width), high=torch.ones(width))
            stored = [edit.add(stem + end, tensor) for end, tensor in zip(_endings(format), blank, strict=True)]
        cast = edit.cast(start, first, format, stored)
        for reader in others:
            edit.replace_input(reader, start, cast)
        return [cast.name] if stored else []

    def _calibrate(
        self,
        graph: Graph,
        data: Data | None,
        static: set[str],
        rounded: set[str],
        corrected: set[str],
        progress: Progress,
    ) -> None:
        wanted, done = static | rounded | corrected, 0

        latest: dict[tuple[Node, bool], Moments] = {}  # of what several layers read in turn

        def inputs_of(node: Node, read: Read) -> Moments:
            assert node.input is not None
            key = node.input, node.name in corrected
            if key in latest:
                return latest[key]
            latest.clear()
            found = moments(node, read(node.input), about_mean=key[1])
            if node.op in FAMILIES["linear"] and sum(user.name in rounded for user in node.input.users) > 1:
                latest[key] = found
            return found

        def visit(node: Node, read: Read) -> None:
            nonlocal done
            progress(done, len(wanted), node.path)
            done += 1
            if node.name in static:
                self._set_range(graph, node, [batch.actual for batch in read(node.inputs[0])])
            if node.name in rounded:
                by = "adaround" if self.by == "adaround" else "gptq"
                gptq.round_weight(graph, node, read, inputs_of(node, read), by, self._in_pairs(node))
            if node.name in corrected:
                bias.correct(graph, node, read)

        sweep(graph, data, visit, wanted, "Quantize")
        progress(len(wanted), len(wanted), "")

    def _in_pairs(self, layer: Node) -> bool:
        return self.pair_bits == 16 and pairs.applies(layer)

    def _set_range(self, graph: Graph, cast: Node, values: list[Tensor]) -> None:
        assert cast.format is not None
        low, high = find_range(values, cast.format, self.ranges, self.percentile, cast.path)
        parameters = cast.format.parameters(low=low, high=high)
        for place, tensor in zip(cast.args[1], parameters, strict=True):
            graph.tensors[place.target] = tensor


def _is_cast(node: Node | None) -> bool:
    return node is not None and node.op == "cast"


def _endings(format: Format) -> list[str]:
    return [] if format.is_dynamic else [f"__{name.replace('.', '_')}" for name, _ in format.levels]


def _check_weight(value: Tensor, name: str, format: Format) -> None:
    if not bool(torch.isfinite(value).all()):
        raise DataError("a weight holds NaN or infinity", name, "repair the model first")
    if format.is_dynamic:
        raise OptionError(f"weights store their scales; {format} is dynamic", "weights", "leave '~dynamic' out")
