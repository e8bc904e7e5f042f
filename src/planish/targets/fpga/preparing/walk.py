"""Go through a graph in order and give each value a fixed-point format where a step needs one."""

from __future__ import annotations

import torch
from torch import Tensor

from planish.formats import Format, Int
from planish.graph import FAMILIES, ROLES, Node
from planish.targets.fpga.lowering.dyadic import power_of_two
from planish.targets.fpga.lowering.functions import FUNCTIONS, ROUNDINGS, run_of
from planish.targets.fpga.lowering.rules import RULES
from planish.targets.fpga.preparing import weights
from planish.targets.fpga.preparing.context import MOVES, Preparation, State
from planish.targets.fpga.preparing.forms import FORMS

CLAMPS = frozenset({"relu", "relu_", "relu6", "hardtanh", "hardtanh_", "clamp", "clamp_min", "clamp_max", "clamp_"})
"""Functions that a requantization does on its way."""
PRODUCTS = frozenset({"matmul", "mm", "bmm", "mv"})
SUMS = frozenset({"add", "add_", "sub", "sub_", "rsub"})
FACTORS = frozenset({"mul", "mul_", "div", "div_"})
OCTAVES = 8
"""Between the largest numbers of runs that share an exponent: what these are rounded from has as many bits more."""


def walk(preparation: Preparation) -> None:
    """Every step of the graph, then what it gives back."""
    order = [Node(preparation.edit.graph, node) for node in preparation.edit.graph.fx.nodes]
    for node in order:
        if node.kind == "output":
            for source in node.inputs:
                preparation.fix(node, source, preparation.options.wide)
        elif node.fx not in preparation.states and not node.fx._erased:
            _step(preparation, node)


def _step(preparation: Preparation, node: Node) -> None:
    if node.kind == "input":
        _input(preparation, node)
    elif node.kind == "tensor":
        preparation.states[node.fx] = "constant"
    elif not isinstance(node.value, Tensor | list | tuple) or not _reads_numbers(preparation, node):
        preparation.states[node.fx] = "constant" if isinstance(node.value, Tensor) else "other"
    else:
        _call(preparation, node)


def _reads_numbers(preparation: Preparation, node: Node) -> bool:
    return (
        any(preparation.state(source) not in ("constant", "other") for source in node.inputs)
        or node.op in (FAMILIES["embedding"])
    )


def _input(preparation: Preparation, node: Node) -> None:
    """A float that comes in is cast once, as its first reader wants it."""
    if not isinstance(node.value, Tensor) or not node.value.is_floating_point():
        preparation.states[node.fx] = "other"
        return
    preparation.states[node.fx] = "real"
    reader = _first_cast(node)
    users = node.users
    if not users:
        return
    bits = preparation.options.bits
    if reader is not None and reader.format is not None and isinstance(reader.format.element, Int):
        bits = _bits_before(reader.format)
        if _is_fixed(reader):
            cast = preparation.cast_to(node, reader.format, preparation.following(node))
            _read_by_all(preparation, node, cast)
            return
    cast = preparation.blank(node, bits, preparation.following(node))
    _read_by_all(preparation, node, cast)


def _read_by_all(preparation: Preparation, node: Node, cast: Node) -> None:
    for user in node.users:
        if user != cast:
            preparation.edit.replace_input(user, node, cast)


def _first_cast(node: Node) -> Node | None:
    for user in node.users:
        found = user if user.op == "cast" else _first_cast(user) if user.op in MOVES else None
        if found is not None:
            return found
    return None


def _bits_before(form: Format) -> int:
    """Of the fixed point that a cast becomes, or that what shares exponents is rounded from."""
    return form.element.bits + OCTAVES * (run_of(form) is not None)


def _is_fixed(cast: Node) -> bool:
    """Whether a cast is to fixed point, with a rounding that hardware has, already."""
    form = cast.format
    return (
        form is not None
        and isinstance(form.element, Int)
        and form.rounding in ROUNDINGS
        and not form.levels
        and form.residual is None
    )


def _call(preparation: Preparation, node: Node) -> None:
    op, options, states = node.op, preparation.options, preparation.states
    if op == "cast":
        _cast(preparation, node)
    elif op in FORMS:
        made = FORMS[op](preparation, node)
        states[node.fx] = "fixed"
        if made is not None:
            preparation.edit.replace(node, made)
            preparation.edit.erase(node)
    elif op in ROLES and op not in FAMILIES["embedding"]:
        preparation.fix(node, node.args[ROLES[op].input], options.bits)
        states[node.fx] = "exact"
        weights.layer(preparation, node)
    elif op in FAMILIES["embedding"]:
        _embedding(preparation, node)
    elif op in PRODUCTS:
        for source in node.inputs:
            preparation.fix(node, source, options.bits)
        states[node.fx] = "exact"
    elif op in MOVES or op.startswith("max_pool"):
        states[node.fx] = _moved(preparation, node)
    elif op in CLAMPS:
        states[node.fx] = preparation.state(node.inputs[0])
        preparation.leaves[node.fx] = preparation.leaves.get(node.inputs[0].fx, frozenset())
    elif op in SUMS | FACTORS and _is_arithmetic(preparation, node):
        _arithmetic(preparation, node)
    elif op.removesuffix("_") in FUNCTIONS:
        _function(preparation, node)
    elif op in RULES:
        for source in node.inputs:
            preparation.fix(node, source, options.wide if op in ("cat", "stack", "sum") else options.bits)
        states[node.fx] = "exact" if op == "sum" else "fixed"
    else:
        states[node.fx] = "fixed"
        preparation.refuse(node, f"there is no integer form of {op}")


def _moved(preparation: Preparation, node: Node) -> State:
    """Numbers that are moved, or chosen among, are in the format that they were in; windows read fixed point."""
    source = node.inputs[0]
    if preparation.state(source) == "real" or node.op.startswith("max_pool"):
        preparation.fix(node, source, preparation.options.bits)
        return "fixed"
    if preparation.state(source) == "exact" and _parts(node):
        preparation.fix(node, source, preparation.options.wide)
        return "exact"
    return preparation.state(source)


def _parts(node: Node) -> bool:
    """Whether what is moved goes several ways, each of which may get a format of its own."""
    return isinstance(node.value, list | tuple) or (
        len(node.users) > 1 and all(user.op in MOVES for user in node.users)
    )


def _cast(preparation: Preparation, node: Node) -> None:
    """A cast of the user's: in fixed point it stays, an integer with a scale gets fraction bits for it."""
    form = node.format
    assert form is not None
    preparation.states[node.fx] = "fixed"
    if _is_fixed(node):
        return
    if not isinstance(form.element, Int) or form.residual is not None:
        preparation.refuse(node, f"{form} has no integer meaning: a fixed-point or integer format has")
        return
    source = node.inputs[0]
    if run_of(form) is not None:
        preparation.fix(node, source, _bits_before(form))
        return
    if form.is_dynamic:
        preparation.refuse(node, f"{form} finds its scales as numbers come: only 'floor' to powers of two can be built")
        return
    if preparation.wishes.get(source.name) == form.bits:  # cast for this reader a moment ago
        preparation.edit.replace(node, source)
        return
    if preparation.early(source, form.bits):
        preparation.edit.replace(node, source)
        return
    blank = Format(Int(form.bits), scale=None, rounding=preparation.options.rounding)
    preparation.edit.set_args(node, node.inputs[0], [], str(blank))
    preparation.wishes[node.name] = form.bits


def _embedding(preparation: Preparation, node: Node) -> None:
    preparation.states[node.fx] = "fixed"
    if node.weight is not None:
        cast = weights.cast_of(node.weight)
        bits = preparation.options.bits if cast is None or cast.format is None else cast.format.bits
        preparation.fix_constant(node, node.weight, bits + 1)


def _is_arithmetic(preparation: Preparation, node: Node) -> bool:
    """Whether a sum or product is exact, rather than part of a function of one number."""
    streams = [each for each in node.inputs if preparation.state(each) not in ("constant", "other")]
    if len(streams) > 1:
        trees = frozenset().union(*(preparation.leaves_of(each) for each in streams))
        return not (len(trees) == 1 and any(preparation.state(each) == "real" for each in streams))
    return preparation.state(streams[0]) != "real" and not (
        node.op in SUMS and not any(isinstance(arg, Node) and arg != streams[0] for arg in node.args[:2])
    )


def _arithmetic(preparation: Preparation, node: Node) -> None:
    options = preparation.options
    preparation.states[node.fx] = "exact"
    constants = [arg for arg in node.args[:2] if preparation.state(arg) == "constant"]
    if node.op in FACTORS:
        if node.op.startswith("div") and preparation.state(node.args[1]) != "constant":
            preparation.refuse(node, "it divides by what comes in")
            return
        if constants and _is_number(constants[0]):
            _by_number(preparation, node, float(constants[0]))
            return
        if node.op.startswith("div"):
            preparation.refuse(node, "it divides by a tensor; multiply by its reciprocal")
            return
    for source in node.inputs:
        preparation.fix(node, source, options.wide if node.op in SUMS else options.bits)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _by_number(preparation: Preparation, node: Node, by: float) -> None:
    factor = 1.0 / by if node.op.startswith("div") else by
    stream = next(arg for arg in node.args[:2] if isinstance(arg, Node))
    if power_of_two(abs(factor)) is None:
        made = preparation.call(
            "mul.Tensor", stream, preparation.number(factor, node, "factor"), before=node, state="exact"
        )
        preparation.edit.replace(node, made)
        preparation.edit.erase(node)


def _function(preparation: Preparation, node: Node) -> None:
    """A table: it reads one value in fixed point, or goes on from another function."""
    options = preparation.options
    streams = [each for each in node.inputs if preparation.state(each) not in ("constant", "other")]
    found: frozenset[torch.fx.Node] = frozenset()
    for source in streams:
        if preparation.state(source) == "real" and source.fx in preparation.leaves:
            found |= preparation.leaves[source.fx]
        else:
            found |= {preparation.fix(node, source, options.table).fx}
    preparation.states[node.fx], preparation.leaves[node.fx] = "real", found
    if len(found) > 1:
        preparation.refuse(node, "it is a function of two values at once, which no table holds")
