"""Operations on each element, and arithmetic on sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from planish.targets.cpu.builder import Builder
from planish.targets.cpu.rules.arguments import Call, arguments

Rule = Callable[[Builder, Call], Any]


def _dtype(item: Any) -> torch.dtype | None:
    value = item.meta.get("val") if isinstance(item, fx.Node) else None
    return value.dtype if isinstance(value, torch.Tensor) else None


def _common(left: Any, right: Any) -> torch.dtype:
    """The type in which torch computes with two operands."""

    def sample(item: Any) -> Any:
        value = item.meta.get("val") if isinstance(item, fx.Node) else item
        if isinstance(value, torch.Tensor):
            return torch.empty((1,) * value.dim(), dtype=value.dtype)
        return 1.0 if isinstance(value, float | torch.SymFloat) else value if isinstance(value, bool) else 1

    return torch.result_type(sample(left), sample(right))


def unary(op: str, **attributes: Any) -> Rule:
    """A function of one float tensor."""

    def rule(b: Builder, node: Call) -> str:
        return b.emit(op, b.value(node.args[0], node.meta["val"].dtype), **attributes)

    return rule


def binary(op: str) -> Rule:
    """Arithmetic on two operands, in the type of the result; `alpha` scales the second."""

    def rule(b: Builder, node: Call) -> Any:
        value = node.meta["val"]
        if not isinstance(value, torch.Tensor):
            return _size_arithmetic(op, b, node)
        left, right = node.args[0], node.args[1]
        dtype = value.dtype
        second = b.value(right, dtype)
        alpha = node.kwargs.get("alpha", 1)
        if alpha != 1:
            second = b.emit("Mul", second, b.value(alpha, dtype))
        return b.emit(op, b.value(left, dtype), second)

    return rule


def _size_arithmetic(op: str, b: Builder, node: Call) -> str:
    if b.size_of(node) is not None:
        return b.size(node)
    return b.emit(op, b.size(node.args[0]), b.size(node.args[1]))


def comparison(op: str, negate: bool = False) -> Rule:
    """A comparison, in the common type of the operands."""

    def rule(b: Builder, node: Call) -> str:
        left, right = node.args[0], node.args[1]
        dtype = _common(left, right)
        if dtype == torch.bool and op != "Equal":
            dtype = torch.int32
        result = b.emit(op, b.value(left, dtype), b.value(right, dtype))
        return b.emit("Not", result) if negate else result

    return rule


def logical(op: str) -> Rule:
    """A logical operation; integers are compared with zero, bitwise ones are left to their own operation."""

    def rule(b: Builder, node: Call) -> str:
        if node.meta["val"].dtype != torch.bool:
            dtype = node.meta["val"].dtype
            bitwise = {"And": "BitwiseAnd", "Or": "BitwiseOr", "Xor": "BitwiseXor"}[op]
            return b.emit(bitwise, b.value(node.args[0], dtype), b.value(node.args[1], dtype))
        return b.emit(op, *[b.value(arg, torch.bool) for arg in node.args[:2]])

    return rule


def negation(b: Builder, node: Call) -> str:
    """`~x`, `logical_not(x)`."""
    if node.meta["val"].dtype != torch.bool:
        return b.emit("BitwiseNot", b.value(node.args[0]))
    return b.emit("Not", b.value(node.args[0], torch.bool))


def reversed_subtraction(b: Builder, node: Call) -> str:
    """`rsub(a, b) = b - alpha * a`."""
    dtype = node.meta["val"].dtype
    first = b.value(node.args[0], dtype)
    alpha = arguments(node).get("alpha", 1)
    if alpha != 1:
        first = b.emit("Mul", first, b.value(alpha, dtype))
    return b.emit("Sub", b.value(node.args[1], dtype), first)


def division(b: Builder, node: Call) -> str:
    """Division with torch's rounding modes."""
    if not isinstance(node.meta["val"], torch.Tensor):
        return _size_arithmetic("Div", b, node)
    mode, dtype = arguments(node).get("rounding_mode"), node.meta["val"].dtype
    if mode == "floor" or node.target._schema.name.endswith("floor_divide"):
        work = dtype if dtype.is_floating_point else torch.float64
        quotient = b.emit("Floor", b.emit("Div", b.value(node.args[0], work), b.value(node.args[1], work)))
        return quotient if work == dtype else b.cast(quotient, dtype)
    result = b.emit("Div", b.value(node.args[0], dtype), b.value(node.args[1], dtype))
    if mode == "trunc" and dtype.is_floating_point:
        return b.emit("Mul", b.emit("Floor", b.emit("Abs", result)), b.emit("Sign", result))
    return result


def remainder(b: Builder, node: Call) -> str:
    """`remainder`, whose sign is the divisor's."""
    dtype = node.meta["val"].dtype
    left, right = b.value(node.args[0], dtype), b.value(node.args[1], dtype)
    if not dtype.is_floating_point:
        return b.emit("Mod", left, right)
    return b.emit("Sub", left, b.emit("Mul", b.emit("Floor", b.emit("Div", left, right)), right))


def power(b: Builder, node: Call) -> str:
    """`x ** y`; squares and roots by the cheaper operation."""
    dtype = node.meta["val"].dtype
    base, exponent = node.args[0], node.args[1]
    x = b.value(base, dtype)
    if exponent == 2:
        return b.emit("Mul", x, x)
    if exponent == 0.5:
        return b.emit("Sqrt", x)
    if exponent == -0.5:
        return b.emit("Reciprocal", b.emit("Sqrt", x))
    if exponent == 3:
        return b.emit("Mul", b.emit("Mul", x, x), x)
    return b.emit("Pow", x, b.value(exponent, dtype))


def rsqrt(b: Builder, node: Call) -> str:
    """One over the square root."""
    return b.emit("Reciprocal", b.emit("Sqrt", b.value(node.args[0])))


def gelu(b: Builder, node: Call) -> str:
    """The exact Gelu or its tanh approximation, as the model says."""
    return b.emit("Gelu", b.value(node.args[0]), approximate=arguments(node)["approximate"])


def silu(b: Builder, node: Call) -> str:
    """`x * sigmoid(x)`."""
    x = b.value(node.args[0])
    return b.emit("Mul", x, b.emit("Sigmoid", x))


def clamp(b: Builder, node: Call) -> str:
    """Limits on one side or both; numbers or tensors."""
    given, dtype = arguments(node), node.meta["val"].dtype
    x = b.value(node.args[0], dtype)
    low, high = given.get("min"), given.get("max")
    if not isinstance(low, fx.Node) and not isinstance(high, fx.Node):
        return b.emit("Clip", x, *("" if limit is None else b.value(limit, dtype) for limit in (low, high)))
    x = x if low is None else b.emit("Max", x, b.value(low, dtype))
    return x if high is None else b.emit("Min", x, b.value(high, dtype))


def hardtanh(b: Builder, node: Call) -> str:
    """Limits by position (`hardtanh`, `relu6`)."""
    given, dtype = arguments(node), node.meta["val"].dtype
    low, high = given.get("min_val", 0.0), given.get("max_val", 6.0)
    return b.emit("Clip", b.value(node.args[0]), b.value(low, dtype), b.value(high, dtype))


def where(b: Builder, node: Call) -> str:
    """Choice by condition."""
    dtype = node.meta["val"].dtype
    return b.emit("Where", b.value(node.args[0], torch.bool), *[b.value(arg, dtype) for arg in node.args[1:3]])


def masked_fill(b: Builder, node: Call) -> str:
    """A number where the mask is set."""
    dtype = node.meta["val"].dtype
    return b.emit("Where", b.value(node.args[1], torch.bool), b.value(node.args[2], dtype), b.value(node.args[0]))


def identity(b: Builder, node: Call) -> str:
    """What changes no number."""
    return b.value(node.args[0])


def convert(b: Builder, node: Call) -> str:
    """A change of type (`to`, `type_as`, `_to_copy`, `float`)."""
    return b.value(node.args[0], node.meta["val"].dtype)


def softmax(b: Builder, node: Call) -> str:
    """Softmax along one axis."""
    return b.emit("Softmax", b.value(node.args[0], node.meta["val"].dtype), axis=node.args[1])


def log_softmax(b: Builder, node: Call) -> str:
    """Logarithm of softmax."""
    return b.emit("LogSoftmax", b.value(node.args[0], node.meta["val"].dtype), axis=node.args[1])


def leaky(b: Builder, node: Call) -> str:
    """Leaky ReLU."""
    return b.emit("LeakyRelu", b.value(node.args[0]), alpha=float(arguments(node)["negative_slope"]))


def elu(b: Builder, node: Call) -> str:
    """ELU without extra scales."""
    return b.emit("Elu", b.value(node.args[0]), alpha=float(arguments(node)["alpha"]))


def expm1(b: Builder, node: Call) -> str:
    """`exp(x) - 1`."""
    dtype = node.meta["val"].dtype
    return b.emit("Sub", b.emit("Exp", b.value(node.args[0], dtype)), b.value(1.0, dtype))


def log1p(b: Builder, node: Call) -> str:
    """`log(1 + x)`."""
    dtype = node.meta["val"].dtype
    return b.emit("Log", b.emit("Add", b.value(node.args[0], dtype), b.value(1.0, dtype)))


def addcmul(b: Builder, node: Call) -> str:
    """`x + value * a * c`."""
    dtype, value = node.meta["val"].dtype, node.kwargs.get("value", 1)
    product = b.emit("Mul", *[b.value(arg, dtype) for arg in node.args[1:3]])
    product = product if value == 1 else b.emit("Mul", product, b.value(value, dtype))
    return b.emit("Add", b.value(node.args[0], dtype), product)


def hardsigmoid(b: Builder, node: Call) -> str:
    """`clip(x/6 + 1/2, 0, 1)`."""
    return b.emit("HardSigmoid", b.value(node.args[0]), alpha=1 / 6, beta=0.5)


def glu(b: Builder, node: Call) -> str:
    """Half of the channels times the sigmoid of the other half."""
    first, second = b.emit("Split", b.value(node.args[0]), outputs=2, axis=arguments(node)["dim"], num_outputs=2)
    return b.emit("Mul", first, b.emit("Sigmoid", second))


RULES: dict[str, Rule] = {
    **{
        name: unary(op)
        for name, op in {
            "relu": "Relu",
            "sigmoid": "Sigmoid",
            "tanh": "Tanh",
            "exp": "Exp",
            "log": "Log",
            "sqrt": "Sqrt",
            "abs": "Abs",
            "neg": "Neg",
            "sin": "Sin",
            "cos": "Cos",
            "erf": "Erf",
            "floor": "Floor",
            "ceil": "Ceil",
            "round": "Round",
            "reciprocal": "Reciprocal",
            "sign": "Sign",
            "softplus": "Softplus",
            "tan": "Tan",
            "mish": "Mish",
            "hardswish": "HardSwish",
            "atan": "Atan",
            "softsign": "Softsign",
            "selu": "Selu",
        }.items()
    },
    **{name: binary(op) for name, op in {"add": "Add", "sub": "Sub", "mul": "Mul"}.items()},
    **{
        name: binary(op)
        for name, op in {"maximum": "Max", "minimum": "Min", "sym_max": "Max", "sym_min": "Min"}.items()
    },
    **{
        name: comparison(op)
        for name, op in {
            "eq": "Equal",
            "lt": "Less",
            "le": "LessOrEqual",
            "gt": "Greater",
            "ge": "GreaterOrEqual",
        }.items()
    },
    "ne": comparison("Equal", negate=True),
    **{name: logical("And") for name in ("logical_and", "bitwise_and", "__and__", "and_")},
    **{name: logical("Or") for name in ("logical_or", "bitwise_or", "__or__", "or_")},
    **{name: logical("Xor") for name in ("logical_xor", "bitwise_xor", "__xor__")},
    **dict.fromkeys(("logical_not", "bitwise_not"), negation),
    **dict.fromkeys(("div", "true_divide", "floor_divide", "floordiv", "truediv"), division),
    **dict.fromkeys(("to", "_to_copy", "type_as", "float", "_assert_tensor_metadata"), convert),
    **dict.fromkeys(
        (
            *(
                "dropout",
                "feature_dropout",
                "alpha_dropout",
                "native_dropout",
                "contiguous",
                "clone",
                "detach",
                "alias",
            ),
            *("lift_fresh_copy", "detach_", "lift_fresh", "positive", "conj", "resolve_conj"),
        ),
        identity,
    ),
    "rsub": reversed_subtraction,
    "remainder": remainder,
    "pow": power,
    "square": lambda b, node: b.emit("Mul", b.value(node.args[0]), b.value(node.args[0])),
    "rsqrt": rsqrt,
    "gelu": gelu,
    "silu": silu,
    **dict.fromkeys(("clamp", "clip", "clamp_min", "clamp_max"), clamp),
    "hardtanh": hardtanh,
    "relu6": hardtanh,
    "hardsigmoid": hardsigmoid,
    "where": where,
    "masked_fill": masked_fill,
    "softmax": softmax,
    "_softmax": softmax,
    "log_softmax": log_softmax,
    "_log_softmax": log_softmax,
    "leaky_relu": leaky,
    "elu": elu,
    "expm1": expm1,
    "log1p": log1p,
    "addcmul": addcmul,
    "glu": glu,
    "isnan": unary("IsNaN"),
    "isinf": unary("IsInf"),
}
