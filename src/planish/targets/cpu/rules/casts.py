"""Casts: QuantizeLinear and DequantizeLinear, in the shapes that integer kernels recognize.

Weights are stored as exactly the codes of `Format.encode`. Activations of 8 bits are unsigned in the file, shifted by
128 where the form is signed: kernels multiply unsigned by signed, and the numbers are the same. What is multiplied with
another activation, as queries are with keys, stays signed where its form is and the engine wants it so.
A scale that is computed for each token is divided out in front of a linear layer and multiplied back behind it, so that
the product itself is the static pattern that every engine has an integer kernel for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import torch
from onnx import helper, numpy_helper
from torch import fx

from planish.formats import Format
from planish.formats.block import TOKEN
from planish.formats.integer import Int
from planish.graph import FAMILIES
from planish.graph.branches import source
from planish.graph.ops import base_name
from planish.targets.cpu.builder import Builder, to_numpy
from planish.targets.cpu.rules.arguments import Call, arguments

Rule = Callable[[Builder, Call], Any]
_PRODUCTS = FAMILIES["attention"] | FAMILIES["matmul"]


def is_cast(node: Any) -> bool:
    """Whether the node is a `planish::cast`."""
    return isinstance(node, fx.Node) and node.op == "call_function" and base_name(node.target) == "cast"


def is_weight(b: Builder, node: Any) -> bool:
    """Whether the node is a cast of something that depends on no input."""
    return is_cast(node) and b.known(node.args[0]) is not None


def format_of(node: Call) -> Format:
    """The number format of a cast."""
    return Format.parse(arguments(node)["format"])


# Weights -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """A weight as integer codes with scales, in the axes that DequantizeLinear knows.

    Attributes:
        codes: The codes, in the weight's own shape.
        scale: float32: of no axis, of one (`axis`), or of as many as the codes have (blocked along `axis`).
        zero: Zero points in the scale's shape, or None.
        axis: The axis that scales run along.
        block: Numbers of a block along `axis`; 0 where each index has its own scale.
        bits: Bits of one code.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray | None
    axis: int
    block: int
    bits: int

    def transposed(self) -> Stored:
        """The same for the transposed matrix."""
        scale, zero = (None if a is None else a.T for a in (self.scale, self.zero))
        return Stored(self.codes.T, scale, zero, 1 - self.axis, self.block, self.bits)  # type: ignore[arg-type]

    def rows(self, order: np.ndarray) -> Stored:
        """The same with its rows in another order."""
        ours = self.scale.ndim > 0 and self.axis == 0
        scale, zero = (a[order] if ours and a is not None else a for a in (self.scale, self.zero))
        return Stored(self.codes[order], scale, zero, self.axis, self.block, self.bits)  # type: ignore[arg-type]


def stored(b: Builder, node: Call) -> Stored | None:
    """The codes of a weight cast; None where DequantizeLinear cannot say what the format means."""
    form, numbers = format_of(node), b.known(node.args[0])
    element = form.element
    if numbers is None or not isinstance(element, Int) or element.bits > 8 or (form.scale and form.scale.scale):
        return None
    given = [b.known(parameter) for parameter in arguments(node)["parameters"]]
    codes = form.encode(numbers.detach().float(), given or None)  # type: ignore[arg-type]
    unit = 2.0**-element.frac
    if form.scale is None:
        return Stored(to_numpy(codes.codes), np.float32(unit), None, 0, 0, element.bits)  # type: ignore[arg-type]
    shape = tuple(numbers.shape)
    scale = to_numpy((codes.parameters[0].float() * unit).broadcast_to(form.scale_shape(shape)))
    zero = None
    if form.is_affine:
        zero = to_numpy(codes.parameters[1].broadcast_to(form.scale_shape(shape)))
    if scale.ndim == 0:
        return Stored(to_numpy(codes.codes), scale, zero, 0, 0, element.bits)
    layout = form.block.layout(shape)  # type: ignore[union-attr]  # a scale with axes has a block
    cut = [axis for axis, (count, _) in enumerate(layout) if count > 1]
    if len(cut) <= 1 and all(size == 1 for axis, (_, size) in enumerate(layout) if axis in cut):
        axis = cut[0] if cut else 0
        flat = (-1,) if cut else ()
        return Stored(
            to_numpy(codes.codes),
            scale.reshape(flat),
            None if zero is None else zero.reshape(flat),
            axis,
            0,
            element.bits,
        )
    blocked = [axis for axis, (_, size) in enumerate(layout) if size != 1]
    if len(blocked) != 1 or any(count * size != n for (count, size), n in zip(layout, shape, strict=True)):
        return None
    return Stored(to_numpy(codes.codes), scale, zero, blocked[0], layout[blocked[0]][1], element.bits)


def _integers(b: Builder, array: np.ndarray, bits: int, name: str) -> str:
    """Codes or zero points as an initializer, 4-bit ones packed two to the byte."""
    if bits > 4:
        return b.constant(array, name=name)
    kind = ml_dtypes.uint4 if array.dtype == np.uint8 else ml_dtypes.int4
    return b.raw(numpy_helper.from_array(np.ascontiguousarray(array).astype(kind), name))


def _dequantize(b: Builder, held: Stored, name: str) -> str:
    inputs = [_integers(b, held.codes, held.bits, name), b.constant(held.scale, np.float32, name=f"{name}__scale")]
    zero = held.zero if held.zero is not None else np.zeros(held.scale.shape, held.codes.dtype)
    inputs.append(_integers(b, zero, held.bits, f"{name}__zero_point"))
    extra = {"block_size": held.block} if held.block else {}
    return b.emit("DequantizeLinear", *inputs, **({"axis": held.axis} if held.scale.ndim else {}), **extra)  # type: ignore[arg-type]


def _name(b: Builder, node: Call) -> str:
    while (node := source(node, b.graph.calls)).op != "get_attr" and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return str(node.target) if node.op == "get_attr" else node.name


def weight(b: Builder, node: Call, transposed: bool = False) -> str:
    """The ONNX value of what feeds a weight: codes and scales for a cast, otherwise the folded numbers."""
    node = source(node, b.graph.calls)
    if is_weight(b, node) and (held := stored(b, node)) is not None:
        return _dequantize(b, held.transposed() if transposed else held, _name(b, node))
    known = b.known(node)
    if known is None:
        x = b.value(node)
        return b.emit("Transpose", x, perm=[1, 0]) if transposed else x
    if not transposed:
        return b.value(node)
    return b.constant(to_numpy(known.t()), name=_name(b, node))


def reordered(b: Builder, node: Call, order: np.ndarray) -> str:
    """A weight with its rows in another order: codes and scales for a cast, otherwise the folded numbers.

    Raises:
        LookupError: It depends on an input.
    """
    node = source(node, b.graph.calls)
    held = stored(b, node) if is_weight(b, node) else None
    if held is not None and not (held.block and held.axis == 0):
        return _dequantize(b, held.rows(order), _name(b, node))
    if (known := b.known(node)) is None:
        raise LookupError("weights that are computed from an input")
    return b.constant(to_numpy(known)[order], name=_name(b, node))


def rows(b: Builder, table: Call, indices: str) -> str:
    """Rows of an embedding table; of a quantized one, codes and scales are looked up separately."""
    table = source(table, b.graph.calls)
    held = stored(b, table) if is_weight(b, table) else None
    if held is None or (held.scale.ndim and held.axis != 0 and not held.block) or (held.block and held.axis != 1):
        return b.emit("Gather", b.value(table), indices, axis=0)
    name = _name(b, table)
    x = b.cast(b.emit("Gather", b.constant(held.codes, name=name), indices, axis=0), torch.float32)
    if held.block:
        x = b.emit("Reshape", x, b.emit("Concat", b.emit("Shape", indices), b.ints(-1, held.block), axis=0))

    def looked_up(array: np.ndarray, label: str) -> str:
        if not held.scale.ndim:
            return b.constant(array.astype(np.float32))
        column = array.astype(np.float32).reshape(len(array), -1, *([1] if held.block else []))
        return b.emit("Gather", b.constant(column, name=f"{name}__{label}"), indices, axis=0)

    if held.zero is not None:
        x = b.emit("Sub", x, looked_up(held.zero, "zero_point"))
    x = b.emit("Mul", x, looked_up(held.scale, "scale"))
    if held.block:
        x = b.emit("Reshape", x, b.emit("Concat", b.emit("Shape", indices), b.ints(held.codes.shape[1]), axis=0))
    return x


# Activations ---------------------------------------------------------------------------------------------------------


def refusal(form: Format) -> str | None:
    """Why no CPU engine here can round activations to a format; None if they can."""
    element = form.element
    if not isinstance(element, Int) or element.bits > 8:
        return f"no CPU engine rounds activations to {form}"
    if form.rounding != "even":
        return f"CPU engines round half to even, {form} does not"
    if form.scale is not None and form.scale.scale is not None:
        return f"{form} has scales of scales"
    if form.block and not form.block.is_tensor and form.block != TOKEN:
        return f"the scales of {form} are neither per tensor nor per token"
    return None


def cast(b: Builder, node: Call) -> str:
    """A cast where it stands: of a weight, or of an activation."""
    if is_weight(b, node):
        return weight(b, node)
    form = format_of(node)
    if b.dialect.rounds(form):
        return b.value(node.args[0])
    if why := refusal(form):
        raise LookupError(why)
    x = b.value(node.args[0], torch.float32)
    if form.is_dynamic:
        scale, zero = _measured(b, x, form)
        codes = _scaled(b, x, scale, zero, form)
        whole = codes if zero is None else b.emit("Sub", codes, zero)
        return b.emit("Mul", whole, scale)
    parameters = [b.known(parameter) for parameter in arguments(node)["parameters"]]
    pool = b.maker(x) if len(node.args[0].users) == 1 else None
    if pool is None or pool.op_type != "MaxPool":
        signed = b.dialect.signed_products and any(base_name(user.target) in _PRODUCTS for user in node.users)
        return _static(b, x, form, parameters, signed)
    # rounding and maximum commute: rounded first, the pool runs in integers and reads a quarter of the bytes
    options = {attribute.name: helper.get_attribute_value(attribute) for attribute in pool.attribute}
    return b.emit("MaxPool", _static(b, pool.input[0], form, parameters), **options)


def _static(b: Builder, x: str, form: Format, parameters: list[torch.Tensor | None], signed: bool = False) -> str:
    element = form.element
    assert isinstance(element, Int)
    if any(parameter is None for parameter in parameters):
        raise LookupError("the scale of an activation is computed from an input")
    unit = 2.0**-element.frac
    scale = to_numpy(parameters[0].float() * unit) if form.scale else np.float32(unit)  # type: ignore[union-attr]
    if scale.size != 1:
        raise LookupError(f"the scales of {form} are neither per tensor nor per token")
    zero = int(parameters[1].item()) if form.is_affine else 0  # type: ignore[union-attr]
    return _round(b, x, float(scale.reshape(())), zero, element, signed)


def _round(b: Builder, x: str, scale: float, zero: int, element: Int, signed: bool = False) -> str:
    """Quantize and dequantize in 8 bits, unsigned unless the element and its reader want signs; a narrower element is
    clipped first."""
    lowest = -128 if element.signed else 0
    if (element.lowest, element.highest) != (lowest, lowest + 255):
        bounds = ((limit - zero) * np.float32(scale) for limit in (element.lowest, element.highest))
        x = b.emit("Clip", x, *(b.constant(bound, np.float32) for bound in bounds))
    point = np.int8(zero) if signed and element.signed else np.uint8(zero - lowest)
    s, z = b.constant(scale, np.float32), b.constant(point)
    return b.emit("DequantizeLinear", b.emit("QuantizeLinear", x, s, z), s, z)


def _measured(b: Builder, x: str, form: Format) -> tuple[str, str | None]:
    """Scale, and zero point if affine, of each token or of the tensor, as `Format.parameters` computes them."""
    element = form.element
    assert isinstance(element, Int)
    over = (b.ints(-1),) if form.block == TOKEN else ()
    one = b.constant(1.0, np.float32)

    def positive(raw: str) -> str:
        return b.emit("Where", b.emit("Equal", raw, b.constant(0.0, np.float32)), one, raw)

    if not form.is_affine:
        high = b.emit("ReduceMax", b.emit("Abs", x), *over, keepdims=1)
        return positive(b.emit("Div", high, b.constant(element.maximum, np.float32))), None
    nothing = b.constant(0.0, np.float32)
    high = b.emit("Max", b.emit("ReduceMax", x, *over, keepdims=1), nothing)
    low = b.emit("Min", b.emit("ReduceMin", x, *over, keepdims=1), nothing)
    scale = positive(b.emit("Div", b.emit("Sub", high, low), b.constant(element.highest - element.lowest, np.float32)))
    lowest = b.constant(element.lowest, np.float32)
    return scale, b.emit("Round", b.emit("Sub", lowest, b.emit("Div", low, scale)))


def _scaled(b: Builder, x: str, scale: str, zero: str | None, form: Format) -> str:
    """Codes as float numbers: the static pattern with scale 1."""
    element = form.element
    assert isinstance(element, Int)
    codes = b.emit("Div", x, scale)
    if zero is not None:
        codes = b.emit("Add", codes, zero)
    return _round(b, codes, 1.0, 0, element)


@dataclass(frozen=True)
class Moved:
    """A scale that was divided out of a linear layer's input: `moved(product)` puts it back."""

    input: str
    restore: Callable[[str], str]

    def __call__(self, product: str) -> str:
        """The product in its true scale."""
        return self.restore(product)


def moved_scale(b: Builder, given: Call, weight_node: Call) -> Moved | None:
    """For a dynamic cast in front of a linear layer, its codes and how to scale the product.

    With codes `u`, scale `s` and zero point `z` of each token: `((u - z) * s) @ w = s * (u @ w - z * sum(w))`.
    """
    given = source(given, b.graph.calls)
    if not is_cast(given) or is_weight(b, given):
        return None
    form = format_of(given)
    numbers = b.known(weight_node)
    if not form.is_dynamic or b.dialect.rounds(form) or refusal(form) or numbers is None:
        return None
    x = b.value(given.args[0], torch.float32)
    scale, zero = _measured(b, x, form)
    codes = _scaled(b, x, scale, zero, form)
    if zero is None:
        return Moved(codes, lambda product: b.emit("Mul", product, scale))
    sums = b.constant(numbers.double().sum(1).float().numpy(), name=f"{_name(b, weight_node)}__sum")

    def restore(product: str) -> str:
        return b.emit("Mul", b.emit("Sub", product, b.emit("Mul", zero, sums)), scale)

    return Moved(codes, restore)


RULES: dict[str, Rule] = {"cast": cast}
