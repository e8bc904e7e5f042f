"""Find the fraction bits of each value on calibration data, then those of what is added to sums."""

from __future__ import annotations

import torch
from torch import Tensor

from planish.compress.sweep import Read, sweep
from planish.formats import Format, Int
from planish.formats.rounding import Rounding
from planish.graph import ROLES, Data, Graph, Node, Progress
from planish.graph.evaluate import fold
from planish.targets.fpga.lowering.dyadic import dyadic
from planish.targets.fpga.lowering.functions import run_of
from planish.targets.fpga.preparing.ranges import fixed_format

SUM_BITS = 32


def choose(graph: Graph, data: Data | None, wishes: dict[str, int], rounding: Rounding, progress: Progress) -> None:
    """Give each cast the fixed-point format of least squared error on what really comes."""
    done = 0

    def visit(node: Node, read: Read) -> None:
        nonlocal done
        progress(done, len(wishes), node.path)
        done += 1
        values = torch.cat([batch.actual.flatten() for batch in read(node.inputs[0])])
        form = fixed_format(values, wishes[node.name], rounding, node.path or node.name)
        node.fx.update_arg(2, str(form))

    if wishes:
        sweep(graph, data, visit, wishes, "Prepare")
    progress(len(wishes), len(wishes), "")


def settle(graph: Graph, small: dict[str, str]) -> Graph:
    """Round what is added to sums to their place: biases, and what keeps norms from dividing by zero."""
    edit = graph.edit()
    places = Places(edit.graph)
    for above, power in small.items():
        node, frac = edit.node(above), places.of(edit.node(power))
        code = max(1, round(float(node.args[1]) * 2.0**frac))
        edit.set_args(node, node.args[0], code * 2.0**-frac)
    for name in [node.name for node in graph.nodes if node.op in ROLES and node.bias is not None]:
        node = edit.node(name)
        bias = node.bias
        value = None if bias is None else fold(edit.graph, bias.fx)
        if bias is None or value is None or node.input is None or node.weight is None:
            continue
        frac = places.of(node)
        found = dyadic(value.detach().double().numpy())
        if found is None or found[1] > frac:
            source = bias.inputs[0] if bias.op == "cast" else bias
            cast = edit.call(
                torch.ops.planish.cast.default, source, [], str(Format(Int(SUM_BITS, frac), scale=None)), before=node
            )
            edit.replace_input(node, bias, cast)
    return edit.done()


class Places:
    """Fraction bits of each step of a graph whose casts have their formats."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known: dict[torch.fx.Node, int] = {}
        self._constant: dict[torch.fx.Node, bool] = {}
        for node in graph.fx.nodes:
            sources = node.all_input_nodes
            called = node.op == "call_function" and bool(sources) and all(self._constant[each] for each in sources)
            self._constant[node] = node.op == "get_attr" or called

    def of(self, node: Node) -> int:
        """Fraction bits of the numbers that a step gives."""
        if node.fx not in self.known:
            self.known[node.fx] = self._find(node)
        return self.known[node.fx]

    def _find(self, node: Node) -> int:
        if node.op == "cast" and node.format is not None and run_of(node.format) is not None:
            return self.of(node.inputs[0])
        if node.op == "cast" and node.format is not None and isinstance(node.format.element, Int):
            return node.format.element.frac - _exponent(node)
        if self._constant.get(node.fx, False) and (value := fold(self.graph, node.fx)) is not None:
            return _frac(value)
        sources = [self.of(each) for each in node.inputs if each.shape is not None]
        match node.op:
            case "linear" | "matmul" | "mm" | "bmm":
                return self._product(node)
            case op if op in ROLES:
                return self._product(node)
            case "mul" | "mul_":
                first, second = node.args[:2]
                return sum(
                    self.of(arg) if isinstance(arg, Node) else _frac(torch.tensor(arg)) for arg in (first, second)
                )
            case _:
                return max(sources)

    def _product(self, node: Node) -> int:
        if node.op in ROLES:
            assert node.input is not None
            assert node.weight is not None
            return self.of(node.input) + self.of(node.weight)
        return sum(self.of(arg) for arg in node.args[:2])


def _exponent(cast: Node) -> int:
    scales = [scale.tensor for scale in cast.args[1]]
    return 0 if not scales or scales[0] is None else int(scales[0].double().log2().round().max())


def _frac(value: Tensor) -> int:
    found = dyadic(value.detach().double().numpy())
    return 0 if found is None else found[1]
