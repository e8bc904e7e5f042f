"""Operations that move elements, make tensors, or ask for sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from planish.targets.cpu.builder import Builder
from planish.targets.cpu.rules.arguments import Call, arguments, axes

Rule = Callable[[Builder, Call], Any]
_LAST = np.iinfo(np.int64).max


def reshape(b: Builder, node: Call) -> str:
    """`view`, `reshape`, `unflatten`, `flatten`, `squeeze` of a known rank: whatever gives the shape of the result."""
    source, sizes = node.args[0], b.shape_of(node)
    x = b.value(source)
    have = b.shape_of(source)
    if list(map(str, source.meta["val"].shape)) == list(map(str, node.meta["val"].shape)):
        return x
    unknown = [axis for axis, size in enumerate(sizes) if size is None]
    if len(unknown) <= 1:
        return b.emit("Reshape", x, b.ints(*[-1 if size is None else size for size in sizes]))
    # 0 keeps the size of the same axis: true for a prefix of axes that both shapes share
    same = _shared_prefix(source.meta["val"].shape, node.meta["val"].shape)
    left = [axis for axis in unknown if axis >= same]
    if len(left) <= 1 and len(have) >= same and 0 not in sizes:
        wanted = [0 if axis < same else -1 if size is None else size for axis, size in enumerate(sizes)]
        return b.emit("Reshape", x, b.ints(*wanted))
    return b.emit("Reshape", x, _runtime_shape(b, node))


def _shared_prefix(left: Any, right: Any) -> int:
    count = 0
    for one, other in zip(left, right, strict=False):
        if str(one) != str(other):
            break
        count += 1
    return count


def _runtime_shape(b: Builder, node: Call) -> str:
    """The result's shape from the sizes that the call was given."""
    given = node.args[1] if len(node.args) > 1 else ()
    if (
        isinstance(given, list | tuple)
        and len(given) == node.meta["val"].dim()
        and node.target._schema.name
        in (
            "aten::view",
            "aten::reshape",
            "aten::_unsafe_view",
        )
    ):
        return b.sizes(given)
    source = node.args[0]
    sizes: list[str] = []
    for size, known in zip(node.meta["val"].shape, b.shape_of(node), strict=True):
        if known is not None:
            sizes.append(b.ints(known))
            continue
        match = [axis for axis, other in enumerate(source.meta["val"].shape) if str(other) == str(size)]
        sizes.append(b.dimension(source, match[0]) if match else b.ints(-1))
    return b.emit("Concat", *sizes, axis=0)


def expand(b: Builder, node: Call) -> str:
    """Broadcast to the shape of the result."""
    given = arguments(node).get("size")
    source = node.args[0]
    if given is None:  # expand_as
        return b.emit("Expand", b.value(source), b.shape(node.args[1]))
    lead = len(given) - source.meta["val"].dim()
    sizes = [
        b.dimension(source, axis - lead) if isinstance(size, int) and size == -1 else b.size(size)
        for axis, size in enumerate(given)
    ]
    known = b.shape_of(node)
    target = b.ints(*known) if None not in known else b.emit("Concat", *sizes, axis=0)  # type: ignore[arg-type]
    return b.emit("Expand", b.value(source), target)


def permute(b: Builder, node: Call) -> str:
    """Any order of the axes."""
    rank = node.meta["val"].dim()
    return b.emit("Transpose", b.value(node.args[0]), perm=axes(node.args[1], rank))


def transpose(b: Builder, node: Call) -> str:
    """Two axes swapped."""
    rank = node.meta["val"].dim()
    if rank < 2:
        return b.value(node.args[0])
    first, second = (axis % rank for axis in (node.args[1:3] if len(node.args) > 2 else (-2, -1)))
    order = list(range(rank))
    order[first], order[second] = second, first
    return b.emit("Transpose", b.value(node.args[0]), perm=order)


def unsqueeze(b: Builder, node: Call) -> str:
    """A new axis of size 1."""
    return b.emit("Unsqueeze", b.value(node.args[0]), b.ints(node.args[1] % node.meta["val"].dim()))


def squeeze(b: Builder, node: Call) -> str:
    """Axes of size 1 removed; an axis of another size stays, as in torch."""
    source = node.args[0]
    sizes = b.shape_of(source)
    named = axes(node.args[1] if len(node.args) > 1 else None, len(sizes))
    gone = [axis for axis in named if sizes[axis] == 1]
    return b.emit("Squeeze", b.value(source), b.ints(*gone)) if gone else b.value(source)


def slice_(b: Builder, node: Call) -> str:
    """A run of indices along an axis, with a step."""
    given = arguments(node)
    axis, start, end = given["dim"], given["start"], given["end"]
    if start in (None, 0) and (end is None or (isinstance(end, int) and end >= _LAST)) and given["step"] == 1:
        return b.value(node.args[0])
    if start in (None, 0) and given["step"] == 1 and isinstance(end, fx.Node):
        length = node.args[0].meta["val"].shape[axis]
        if str(length) == str(end.meta["val"]):
            return b.value(node.args[0])
    bounds = [b.size(0 if start is None else start), b.size(_LAST if end is None else end)]
    return b.emit("Slice", b.value(node.args[0]), *bounds, b.ints(axis), b.size(given["step"]))


def select(b: Builder, node: Call) -> str:
    """One index of an axis, which disappears."""
    axis, index = node.args[1], node.args[2]
    at = b.value(index, torch.int64) if isinstance(index, fx.Node) else b.constant(np.array(index, np.int64))
    return b.emit("Gather", b.value(node.args[0]), at, axis=axis)


def cat(b: Builder, node: Call) -> str:
    """Joined along an axis; an empty one-dimensional tensor counts for nothing, as in torch."""
    dtype, rank = node.meta["val"].dtype, node.meta["val"].dim()
    parts = [part for part in node.args[0] if part.meta["val"].dim() == rank]
    axis = arguments(node)["dim"] % rank
    return b.emit("Concat", *[b.value(part, dtype) for part in parts], axis=axis)


def stack(b: Builder, node: Call) -> str:
    """Joined along a new axis."""
    axis = arguments(node)["dim"] % node.meta["val"].dim()
    dtype = node.meta["val"].dtype
    return b.emit(
        "Concat", *[b.emit("Unsqueeze", b.value(part, dtype), b.ints(axis)) for part in node.args[0]], axis=axis
    )


def pieces(b: Builder, node: Call) -> Any:
    """`chunk`, `split`, `unbind`: a list of slices."""
    name, source = node.target._schema.name.partition("::")[2], node.args[0]
    given = arguments(node)
    axis = given["dim"] % source.meta["val"].dim()
    values = node.meta["val"]
    if name == "unbind":
        return tuple(
            b.emit("Gather", b.value(source), b.constant(np.array(i, np.int64)), axis=axis) for i in range(len(values))
        )
    lengths = [b.size_of(value.shape[axis]) for value in values]
    if None in lengths:
        raise LookupError(f"{name} along an axis of unknown size")
    if len(lengths) == 1:
        return (b.value(source),)
    return b.emit("Split", b.value(source), b.ints(*lengths), outputs=len(lengths), axis=axis)  # type: ignore[arg-type]


def getitem(b: Builder, node: Call) -> Any:
    """One of several results."""
    return b._values[node.args[0]][node.args[1]]


def sym_size(b: Builder, node: Call) -> str:
    """A size of a tensor."""
    known = b.size_of(node)
    return b.ints(known) if known is not None else b.dimension(node.args[0], node.args[1])


def sym_numel(b: Builder, node: Call) -> str:
    """How many elements a tensor has."""
    known = b.size_of(node)
    return b.ints(known) if known is not None else b.emit("Reshape", b.emit("Size", b.value(node.args[0])), b.ints(1))


def full(b: Builder, node: Call) -> str:
    """A tensor of one number: `full`, `zeros`, `ones` and their `_like` and `new_` forms."""
    name = node.target._schema.name.partition("::")[2]
    given, value = arguments(node), node.meta["val"]
    number = given.get("fill_value", 1 if "ones" in name else 0)
    known = b.shape_of(node)
    if None not in known:
        target = b.ints(*known)  # type: ignore[arg-type]
    else:
        target = b.shape(node.args[0]) if name.endswith("_like") else b.sizes(given["size"])
    return b.emit("Expand", b.value(number, value.dtype), target)


def arange(b: Builder, node: Call) -> str:
    """A run of numbers."""
    given, dtype = arguments(node), node.meta["val"].dtype
    start, end, step = given.get("start", 0), given["end"], given.get("step", 1)
    bounds = [
        b.value(0 if start is None else start, dtype),
        b.value(end, dtype),
        b.value(1 if step is None else step, dtype),
    ]
    return b.emit("Range", *bounds)


def triangle(b: Builder, node: Call) -> str:
    """`tril`, `triu`."""
    upper = int(node.target._schema.name.endswith("triu"))
    dtype = node.meta["val"].dtype
    x = b.value(node.args[0], torch.int32 if dtype == torch.bool else None)
    result = b.emit("Trilu", x, b.constant(np.array(arguments(node)["diagonal"], np.int64)), upper=upper)
    return b.cast(result, dtype) if dtype == torch.bool else result


def repeat(b: Builder, node: Call) -> str:
    """Tiled along every axis."""
    source, times = node.args[0], node.args[1]
    lead = len(times) - source.meta["val"].dim()
    x = b.value(source)
    if lead:
        x = b.emit("Unsqueeze", x, b.ints(*range(lead)))
    return b.emit("Tile", x, b.sizes(times))


def repeat_interleave(b: Builder, node: Call) -> str:
    """Each index of an axis several times in a row; a number of times, not a tensor."""
    given = arguments(node)
    times, axis, source = given["repeats"], given["dim"], node.args[0]
    if not isinstance(times, int) or axis is None:
        raise LookupError("repeat_interleave by a tensor")
    axis %= source.meta["val"].dim()
    x = b.emit("Unsqueeze", b.value(source), b.ints(axis + 1))
    tiles = [1] * (source.meta["val"].dim() + 1)
    tiles[axis + 1] = times
    wanted = [-1 if size is None else size for size in b.shape_of(node)]
    if wanted.count(-1) > 1:
        wanted = [0 if size == -1 and at < axis else size for at, size in enumerate(wanted)]
    return b.emit("Reshape", b.emit("Tile", x, b.ints(*tiles)), b.ints(*wanted))


def flip(b: Builder, node: Call) -> str:
    """Axes reversed."""
    named = axes(node.args[1], node.meta["val"].dim())
    count = len(named)
    ends = [b.ints(*[-1] * count), b.ints(*[-_LAST] * count), b.ints(*named), b.ints(*[-1] * count)]
    return b.emit("Slice", b.value(node.args[0]), *ends)


def roll(b: Builder, node: Call) -> str:
    """Indices moved round along axes."""
    x, given = b.value(node.args[0]), arguments(node)
    for amount, axis in zip(given["shifts"], given["dims"], strict=True):
        tail = b.emit("Slice", x, b.ints(-amount), b.ints(_LAST), b.ints(axis))
        x = b.emit("Concat", tail, b.emit("Slice", x, b.ints(0), b.ints(-amount), b.ints(axis)), axis=axis)
    return x


def pad(b: Builder, node: Call) -> str:
    """Padding with a number, a reflection or the edge; torch counts axes from the last."""
    given, source = arguments(node), node.args[0]
    amounts, rank = list(given["pad"]), source.meta["val"].dim()
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[
        given.get("mode", "constant")
    ]
    pairs = [(amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)][::-1]
    pairs = [(0, 0)] * (rank - len(pairs)) + pairs
    sizes = b.ints(*[low for low, _ in pairs], *[high for _, high in pairs])
    value = given.get("value") or 0
    return b.emit("Pad", b.value(source), sizes, b.value(value, node.meta["val"].dtype), mode=mode)


def gather(b: Builder, node: Call) -> str:
    """Elements by an index tensor along one axis."""
    return b.emit("GatherElements", b.value(node.args[0]), b.value(node.args[2], torch.int64), axis=node.args[1])


def index_select(b: Builder, node: Call) -> str:
    """Whole slices by an index tensor along one axis."""
    return b.emit("Gather", b.value(node.args[0]), b.value(node.args[2], torch.int64), axis=node.args[1])


def index(b: Builder, node: Call) -> str:
    """`x[i]`, `x[:, i]`, `x[i, j]`: one index tensor or mask anywhere, or several indices on the leading axes."""
    source, given = node.args[0], node.args[1]
    named = [(axis, at) for axis, at in enumerate(given) if at is not None]
    if any(at.meta["val"].dtype == torch.bool for _, at in named):
        axis, at = named[0]
        if len(named) > 1 or at.meta["val"].dim() > 1:
            raise LookupError("an index by a boolean tensor of several axes, or beside another index")
        kept = b.emit("Squeeze", b.emit("NonZero", b.value(at)), b.ints(0))
        return b.emit("Gather", b.value(source), kept, axis=axis)
    if len(named) == 1:
        axis, at = named[0]
        return b.emit("Gather", b.value(source), b.value(at, torch.int64), axis=axis)
    if [axis for axis, _ in named] != list(range(len(named))):
        raise LookupError("index tensors on axes that are not the first ones")
    shape = torch.broadcast_shapes(*[(1,) * at.meta["val"].dim() for _, at in named])
    parts = [b.value(at, torch.int64) for _, at in named]
    lifted = [
        b.emit("Unsqueeze", part, b.ints(*range(len(shape) - at.meta["val"].dim())))
        if len(shape) > at.meta["val"].dim()
        else part
        for part, (_, at) in zip(parts, named, strict=True)
    ]
    zero = lifted[0]
    for part in lifted[1:]:
        zero = b.emit("Add", zero, part)
    target = b.emit("Shape", zero)
    columns = [b.emit("Unsqueeze", b.emit("Expand", part, target), b.ints(-1)) for part in lifted]
    return b.emit("GatherND", b.value(source), b.emit("Concat", *columns, axis=-1))


def index_add(b: Builder, node: Call) -> str:
    """Whole slices added at the places that an index tensor names along one axis."""
    given, dtype = arguments(node), node.meta["val"].dtype
    slices, axis = given["source"], given["dim"] % node.meta["val"].dim()
    others = [place for place in range(slices.meta["val"].dim()) if place != axis]
    places = b.value(given["index"], torch.int64)
    places = b.emit("Unsqueeze", places, b.ints(*others)) if others else places
    added = b.value(slices, dtype)
    if given["alpha"] != 1:
        added = b.emit("Mul", added, b.value(given["alpha"], dtype))
    wide = b.emit("Expand", places, b.shape(slices))
    return b.emit("ScatterElements", b.value(given["self"]), wide, added, axis=axis, reduction="add")


def scatter(b: Builder, node: Call) -> str:
    """Elements written, added or combined at the places that an index tensor names along one axis."""
    given, dtype = arguments(node), node.meta["val"].dtype
    name = node.target._schema.name
    how = (
        "add"
        if "scatter_add" in name
        else {"sum": "add", "prod": "mul", "amax": "max", "amin": "min"}.get(given.get("reduce"))  # type: ignore[arg-type]
    )
    if given.get("include_self") is False or given.get("reduce") == "mean":
        raise LookupError(f"{name.partition('::')[2]} that leaves out the tensor's own numbers, or takes a mean")
    index = b.value(given["index"], torch.int64)
    source = given.get("src", given.get("value"))
    new = b.value(source, dtype)
    if not isinstance(source, fx.Node):
        new = b.emit("Expand", new, b.shape(given["index"]))
    return b.emit(
        "ScatterElements", b.value(node.args[0], dtype), index, new, axis=given["dim"], reduction=how or "none"
    )


def one_hot(b: Builder, node: Call) -> str:
    """Rows of the identity."""
    count = b.size_of(arguments(node)["num_classes"])
    if count is None or count < 0:
        raise LookupError("one_hot without a number of classes")
    return b.emit("OneHot", b.value(node.args[0]), b.ints(count), b.ints(0, 1), axis=-1)


def scalar_tensor(b: Builder, node: Call) -> str:
    """A number as a tensor."""
    return b.value(node.args[0], node.meta["val"].dtype)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as"), reshape),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), expand),
    "permute": permute,
    **dict.fromkeys(("transpose", "t", "mT", "numpy_T"), transpose),
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "slice": slice_,
    "narrow": lambda b, node: b.emit(
        "Slice",
        b.value(node.args[0]),
        b.size(node.args[2]),
        b.emit("Add", b.size(node.args[2]), b.size(node.args[3])),
        b.ints(node.args[1]),
    ),
    "select": select,
    "cat": cat,
    "concat": cat,
    "stack": stack,
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "unbind"), pieces),
    "getitem": getitem,
    "sym_size": sym_size,
    "sym_numel": sym_numel,
    **{
        f"{prefix}{name}{suffix}": full
        for name in ("full", "zeros", "ones", "empty")
        for prefix, suffix in (("", ""), ("new_", ""), ("", "_like"))
    },
    "arange": arange,
    "tril": triangle,
    "triu": triangle,
    "repeat": repeat,
    "tile": repeat,
    "repeat_interleave": repeat_interleave,
    "flip": flip,
    "roll": roll,
    "pad": pad,
    "constant_pad_nd": pad,
    "gather": gather,
    "index_select": index_select,
    "index": index,
    "index_add": index_add,
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce"), scatter),
    "one_hot": one_hot,
    "scalar_tensor": scalar_tensor,
}
