"""Operations with weights, pooling, normalization, recurrence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from planish.targets.cpu.builder import Builder, to_numpy
from planish.targets.cpu.rules import casts
from planish.targets.cpu.rules.arguments import Call, arguments

Rule = Callable[[Builder, Call], Any]


def linear(b: Builder, node: Call) -> str:
    """`x @ w.T + b`. The weight is stored transposed: a Transpose behind a DequantizeLinear defeats integer kernels."""
    given = arguments(node)
    source, weight, bias = given["input"], given["weight"], given["bias"]
    w = casts.weight(b, weight, transposed=True)
    restore = casts.moved_scale(b, source, weight)
    y = restore(b.emit("MatMul", restore.input, w)) if restore else b.emit("MatMul", b.value(source), w)
    return y if bias is None else b.emit("Add", y, b.value(bias))


def addmm(b: Builder, node: Call) -> str:
    """`bias + x @ w`."""
    bias, x, w = node.args[:3]
    if node.kwargs.get("beta", 1) != 1 or node.kwargs.get("alpha", 1) != 1:
        raise LookupError("addmm with alpha or beta")
    return b.emit("Add", b.emit("MatMul", b.value(x), b.value(w)), b.value(bias))


def matmul(b: Builder, node: Call) -> str:
    """`matmul`, `mm`, `bmm`."""
    return b.emit("MatMul", b.value(node.args[0]), b.value(node.args[1]))


def baddbmm(b: Builder, node: Call) -> str:
    """`beta * c + alpha * a @ b`."""
    given, dtype = arguments(node), node.meta["val"].dtype
    product = b.emit("MatMul", b.value(node.args[1]), b.value(node.args[2]))
    if given["alpha"] != 1:
        product = b.emit("Mul", product, b.value(given["alpha"], dtype))
    if given["beta"] == 0:
        return product
    addend = b.value(node.args[0])
    return b.emit(
        "Add", product, addend if given["beta"] == 1 else b.emit("Mul", addend, b.value(given["beta"], dtype))
    )


def einsum(b: Builder, node: Call) -> str:
    """Einstein's summation, in ONNX's own spelling."""
    return b.emit("Einsum", *[b.value(part) for part in node.args[1]], equation=node.args[0].replace(" ", ""))


def convolution(b: Builder, node: Call) -> str:
    """1-, 2- and 3-dimensional convolution, `padding` as numbers or as a word."""
    given = arguments(node)
    source, weight, bias = given["input"], given["weight"], given["bias"]
    rank = source.meta["val"].dim() - 2
    spread = {name: _each(given[name], rank) for name in ("stride", "dilation")}
    padding = given["padding"]
    kernel = [int(size) for size in weight.meta["val"].shape[2:]]
    attributes: dict[str, Any] = {
        "strides": spread["stride"],
        "dilations": spread["dilation"],
        "group": given["groups"],
    }
    if padding == "same":
        reach = [d * (k - 1) for d, k in zip(spread["dilation"], kernel, strict=True)]
        attributes["pads"] = [total // 2 for total in reach] + [total - total // 2 for total in reach]
    else:
        each = [0] * rank if padding == "valid" else _each(padding, rank)
        attributes["pads"] = [*each, *each]
    inputs = [b.value(source), casts.weight(b, weight)]
    if bias is not None:
        inputs.append(b.value(bias))
    if given.get("transposed") or "transpose" in node.target._schema.name:
        attributes["output_padding"] = _each(given["output_padding"], rank)
        return b.emit("ConvTranspose", *inputs, kernel_shape=kernel, **attributes)
    return b.emit("Conv", *inputs, kernel_shape=kernel, **attributes)


def _each(value: Any, rank: int) -> list[int]:
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [int(v) for v in (values * rank if len(values) == 1 else values)]


def embedding(b: Builder, node: Call) -> str:
    """Rows of a table; of a quantized table the codes are looked up, so that the file holds no float copy."""
    table, indices = node.args[0], node.args[1]
    return casts.rows(b, table, b.value(indices))


def batch_norm(b: Builder, node: Call) -> str:
    """Batch norm with its running statistics."""
    source, weight, bias, mean, variance = node.args[:5]
    given = arguments(node)
    channels = (int(source.meta["val"].shape[1]),)
    dtype = node.meta["val"].dtype if isinstance(node.meta["val"], torch.Tensor) else source.meta["val"].dtype

    def vector(item: Any, default: float) -> str:
        return b.value(item) if item is not None else b.constant(to_numpy(torch.full(channels, default, dtype=dtype)))

    parts = [vector(weight, 1.0), vector(bias, 0.0), b.value(mean), b.value(variance)]
    return b.emit("BatchNormalization", b.value(source), *parts, epsilon=float(given["eps"]))


def layer_norm(b: Builder, node: Call) -> str:
    """Layer norm over the last axes."""
    given, source = arguments(node), node.args[0]
    shape, rank = given["normalized_shape"], source.meta["val"].dim()
    dtype = source.meta["val"].dtype
    ones = given["weight"]
    w = b.value(ones) if ones is not None else b.constant(to_numpy(torch.ones([int(n) for n in shape], dtype=dtype)))
    inputs = [b.value(source), w, *([b.value(given["bias"])] if given["bias"] is not None else [])]
    return b.emit("LayerNormalization", *inputs, axis=rank - len(shape), epsilon=float(given["eps"]))


def rms_norm(b: Builder, node: Call) -> str:
    """Root-mean-square norm."""
    given, source = arguments(node), node.args[0]
    dtype, rank = source.meta["val"].dtype, source.meta["val"].dim()
    x = b.value(source)
    over = b.ints(*range(rank - len(given["normalized_shape"]), rank))
    eps = given["eps"] if given["eps"] is not None else torch.finfo(dtype).eps
    mean = b.emit("ReduceMean", b.emit("Mul", x, x), over, keepdims=1)
    y = b.emit("Div", x, b.emit("Sqrt", b.emit("Add", mean, b.value(eps, dtype))))
    return y if given["weight"] is None else b.emit("Mul", y, b.value(given["weight"]))


def group_norm(b: Builder, node: Call) -> str:
    """Group norm, as instance norm over reshaped channels: the form both engines know."""
    given, source = arguments(node), node.args[0]
    groups, dtype = given["num_groups"], source.meta["val"].dtype
    rank, channels = source.meta["val"].dim(), int(source.meta["val"].shape[1])
    flat = b.emit("Reshape", b.value(source), b.ints(0, groups, -1))
    ones, zeros = (b.constant(to_numpy(torch.full((groups,), v, dtype=dtype))) for v in (1.0, 0.0))
    normal = b.emit("InstanceNormalization", flat, ones, zeros, epsilon=float(given["eps"]))
    y = b.emit("Reshape", normal, b.shape(source))
    column = b.ints(channels, *[1] * (rank - 2))
    if given["weight"] is not None:
        y = b.emit("Mul", y, b.emit("Reshape", b.value(given["weight"]), column))
    return y if given["bias"] is None else b.emit("Add", y, b.emit("Reshape", b.value(given["bias"]), column))


def instance_norm(b: Builder, node: Call) -> str:
    """Instance norm over its own statistics."""
    given, source = arguments(node), node.args[0]
    channels, dtype = int(source.meta["val"].shape[1]), source.meta["val"].dtype

    def vector(item: Any, default: float) -> str:
        return (
            b.value(item) if item is not None else b.constant(to_numpy(torch.full((channels,), default, dtype=dtype)))
        )

    parts = [vector(given["weight"], 1.0), vector(given["bias"], 0.0)]
    return b.emit("InstanceNormalization", b.value(source), *parts, epsilon=float(given["eps"]))


def pool(op: str, rank: int) -> Rule:
    """Maximum and average pooling."""

    def rule(b: Builder, node: Call) -> str:
        given = arguments(node)
        kernel = _each(given["kernel_size"], rank)
        padding = _each(given["padding"], rank)
        attributes: dict[str, Any] = {
            "kernel_shape": kernel,
            "strides": _each(given["stride"] or kernel, rank),
            "pads": [*padding, *padding],
            "ceil_mode": int(given["ceil_mode"]),
        }
        if op == "MaxPool":
            attributes["dilations"] = _each(given["dilation"], rank)
        else:
            if given.get("divisor_override"):
                raise LookupError("average pooling with a divisor of its own")
            attributes["count_include_pad"] = int(given["count_include_pad"])
        return b.emit(op, b.value(node.args[0]), **attributes)

    return rule


def adaptive_average(b: Builder, node: Call) -> str:
    """Adaptive average pooling to one number a channel, or where sizes divide."""
    source = node.args[0]
    wanted = node.args[1] if isinstance(node.args[1], list | tuple) else [node.args[1]]
    rank = len(wanted)
    if all(size == 1 for size in wanted):
        total = source.meta["val"].dim()
        return b.emit("ReduceMean", b.value(source), b.ints(*range(total - rank, total)), keepdims=1)
    have = b.shape_of(source)[-rank:]
    if None in have or any(h % w for h, w in zip(have, wanted, strict=True)):
        raise LookupError("adaptive pooling whose sizes do not divide")
    kernel = [h // w for h, w in zip(have, wanted, strict=True)]
    return b.emit("AveragePool", b.value(source), kernel_shape=kernel, strides=kernel)


def upsample(mode: str) -> Rule:
    """Interpolation to the size of the result."""

    def rule(b: Builder, node: Call) -> str:
        known, source = b.shape_of(node), node.args[0]
        if None in known[2:]:
            raise LookupError("interpolation to a size that varies")
        lead = [b.dimension(source, 0), b.dimension(source, 1)]
        sizes = b.emit("Concat", *lead, b.ints(*known[2:]), axis=0)  # type: ignore[arg-type]
        corners = arguments(node).get("align_corners")
        transform = "align_corners" if corners else "asymmetric" if mode == "nearest" else "half_pixel"
        extra = {"nearest_mode": "floor"} if mode == "nearest" else {"cubic_coeff_a": -0.75} if mode == "cubic" else {}
        return b.emit(
            "Resize",
            b.value(source),
            "",
            "",
            sizes,
            mode=mode,
            coordinate_transformation_mode=transform,
            **extra,  # type: ignore[arg-type]
        )

    return rule


def pixel_shuffle(b: Builder, node: Call) -> str:
    """Channels into space."""
    return b.emit("DepthToSpace", b.value(node.args[0]), blocksize=node.args[1], mode="CRD")


def recurrent(op: str, order: Sequence[int], **attributes: Any) -> Rule:
    """All layers and directions of an LSTM, GRU or plain recurrence.

    Args:
        op: The ONNX operation.
        order: torch's gates in ONNX's order (LSTM: i o f c, torch has i f g o; GRU: z r h, torch has r z n).
        attributes: Of the ONNX operation.
    """

    def rule(b: Builder, node: Call) -> Any:
        given = arguments(node)
        if given.get("hx") is None or "batch_sizes" in given:
            raise LookupError("a recurrent layer on packed sequences")
        source, states, parameters = given["input"], given["hx"], given["params"]
        states = list(states) if isinstance(states, list | tuple) else [states]
        layers, two, biased = given["num_layers"], given["bidirectional"], given["has_biases"]
        x = b.value(source)
        x = b.emit("Transpose", x, perm=[1, 0, 2]) if given["batch_first"] else x
        directions, per = 1 + two, 4 if biased else 2
        if len(parameters) != layers * directions * per:
            raise LookupError("an LSTM whose states are projected")
        hidden = int(states[0].meta["val"].shape[-1])
        extra = {key: value * directions if isinstance(value, list) else value for key, value in attributes.items()}
        rows = np.concatenate([np.arange(gate * hidden, (gate + 1) * hidden) for gate in order])
        finals: list[tuple[str, ...]] = []
        for layer in range(layers):
            first = layer * directions
            own = [parameters[(first + d) * per : (first + d + 1) * per] for d in range(directions)]
            w, r = (_stacked(b, [p[i] for p in own], rows) for i in (0, 1))
            bias = b.emit("Concat", *(_stacked(b, [p[i] for p in own], rows) for i in (2, 3)), axis=1) if biased else ""
            at = [b.ints(first), b.ints(first + directions), b.ints(0)]
            y, *last = b.emit(
                op,
                *(x, w, r, bias, "", *(b.emit("Slice", b.value(state), *at) for state in states)),
                outputs=1 + len(states),
                hidden_size=hidden,
                direction="bidirectional" if two else "forward",
                **extra,
            )
            finals.append(tuple(last))
            # (sequence, directions, batch, hidden) -> (sequence, batch, directions * hidden)
            x = b.emit("Reshape", b.emit("Transpose", y, perm=[0, 2, 1, 3]), b.ints(0, 0, directions * hidden))
        x = b.emit("Transpose", x, perm=[1, 0, 2]) if given["batch_first"] else x
        return x, *(b.emit("Concat", *parts, axis=0) if layers > 1 else parts[0] for parts in zip(*finals, strict=True))

    return rule


def _stacked(b: Builder, tensors: Sequence[fx.Node], rows: np.ndarray) -> str:
    """Weights or biases of each direction, one above the other."""
    parts = [b.emit("Unsqueeze", casts.reordered(b, tensor, rows), b.ints(0)) for tensor in tensors]
    return b.emit("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]


RULES: dict[str, Rule] = {
    "linear": linear,
    "addmm": addmm,
    **dict.fromkeys(("matmul", "mm", "bmm"), matmul),
    "baddbmm": baddbmm,
    "einsum": einsum,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), convolution),
    "embedding": embedding,
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm"), batch_norm),
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    **{f"max_pool{n}d": pool("MaxPool", n) for n in (1, 2, 3)},
    **{f"avg_pool{n}d": pool("AveragePool", n) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": adaptive_average for n in (1, 2, 3)},
    "upsample_nearest2d": upsample("nearest"),
    "upsample_nearest1d": upsample("nearest"),
    "upsample_bilinear2d": upsample("linear"),
    "upsample_bicubic2d": upsample("cubic"),
    "pixel_shuffle": pixel_shuffle,
    "lstm": recurrent("LSTM", (0, 3, 1, 2)),
    "gru": recurrent("GRU", (1, 0, 2), linear_before_reset=1),
    "rnn_tanh": recurrent("RNN", (0,)),
    "rnn_relu": recurrent("RNN", (0,), activations=["Relu"]),
}
