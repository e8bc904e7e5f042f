"""Operations that look along an axis, look things up, or normalize."""

from __future__ import annotations

import torch

from planish.analysis.dependency.dims import Dim, product
from planish.analysis.dependency.rules.products import joined
from planish.analysis.dependency.trace import Axes, Call, Rule, Value
from planish.formats import Format


def _reduced(call: Call) -> tuple[tuple[int, ...], Axes]:
    """The axes that a reduction takes, and what it leaves."""
    axes = call.axes("self")
    given = call.arguments.get("dim")
    chosen = range(len(axes)) if given is None or given == [] else [given] if isinstance(given, int) else given
    gone = tuple(place % len(axes) for place in chosen) if axes else ()
    keep = call.arguments.get("keepdim", False)
    left = tuple(Dim(1) if place in gone else dim for place, dim in enumerate(axes) if keep or place not in gone)
    return gone, left


def _sum(call: Call) -> Value:
    """What is left out of a sum is 0 to it."""
    return _reduced(call)[1]


def _reduce(call: Call) -> Value:
    gone, left = _reduced(call)
    axes = call.axes("self")
    call.hold([axes[place] for place in gone], "looks at all of it")
    return [left] * len(call.fx.meta["val"]) if isinstance(call.fx.meta["val"], list | tuple) else left


def _along(call: Call) -> Value:
    """The result has the shape of the input, and each number of it depends on a whole line."""
    axes = call.axes("self")
    given = call["dims"] if "dims" in call.arguments else [call["dim"]]
    call.hold([axes[place] for place in given] if given else axes, "looks at all of it")
    return axes


def _sorted(call: Call) -> Value:
    axes, place = call.axes("self"), call["dim"]
    call.hold((axes[place],), "orders it")
    values = call.fx.meta["val"]
    size = call.trace.fresh(values[0])[place]
    call.hold((size,), "orders it")
    left = tuple(size if index == place % len(axes) else dim for index, dim in enumerate(axes))
    return [left] * len(values)


def _diff(call: Call) -> Value:
    axes, new = call.axes("self"), call.fresh()
    call.hold((axes[call["dim"]], new[call["dim"]]), "compares neighbors")
    return tuple(new[place] if place == call["dim"] % len(axes) else dim for place, dim in enumerate(axes))


def _layer_norm(call: Call) -> Value:
    axes = call.axes("input")
    count = len(call["normalized_shape"])
    call.hold(axes[-count:], "normalizes over it")
    for name in ("weight", "bias"):
        for left, right in zip(call.axes(name), axes[-count:], strict=False):
            call.same(left, right)
    return axes


def _batch_norm(call: Call) -> Value:
    axes = call.axes("input")
    for name in ("weight", "bias", "running_mean", "running_var"):
        for dim in call.axes(name):
            call.same(dim, axes[1])
    if "use_input_stats" in call.arguments:
        call.hold(axes[2:], "normalizes over it")
    return axes


def _group_norm(call: Call) -> Value:
    axes = call.axes("input")
    groups, inside = Dim(call["num_groups"]), Dim(axes[1].size // call["num_groups"])
    call.same(axes[1], product((groups, inside)))
    call.hold((inside, *axes[2:]), "normalizes over it")
    for name in ("weight", "bias"):
        for dim in call.axes(name):
            call.same(dim, axes[1])
    return axes


def _pool(call: Call) -> Value:
    """Windows over the last axes; channels stay apart."""
    axes = call.axes("self") or call.axes("input")
    fakes = call.fx.meta["val"]
    first = fakes[0] if isinstance(fakes, list | tuple) else fakes
    new = call.trace.fresh(first)
    space = len(axes) - 2
    call.hold((*axes[-space:], *new[-space:]), "slides over it")
    result = (*axes[:-space], *new[-space:])
    return [result] * len(fakes) if isinstance(fakes, list | tuple) else result


def _embedding(call: Call) -> Value:
    rows, *features = call.axes("weight")
    call.hold((rows,), "looks rows up by their number")
    return (*call.axes("indices"), *features)


def _index_select(call: Call) -> Value:
    axes, place = call.axes("self"), call["dim"]
    call.hold((axes[place],), "looks it up by number")
    return tuple(call.axes("index")[0] if at == place % len(axes) else dim for at, dim in enumerate(axes))


def _index(call: Call) -> Value:
    axes, tables = call.axes("self"), list(call["indices"])
    if any(node is not None and node.meta["val"].dtype is torch.bool for node in tables):
        return call.trace.unknown(call)
    places = [place for place, node in enumerate(tables) if node is not None]
    call.hold([axes[place] for place in places], "looks it up by number")
    new = joined(call, [call.trace.axes(tables[place]) for place in places])
    rest = [dim for place, dim in enumerate(axes) if place not in places]
    together = places == list(range(places[0], places[-1] + 1))
    start = places[0] if together else 0
    return (*rest[:start], *new, *rest[start:])


def _gather(call: Call) -> Value:
    axes, index = call.axes("self"), call.axes("index")
    _elsewhere(call, [axes, index], call["dim"])
    return index


def _scatter(call: Call) -> Value:
    axes = call.axes("self")
    _elsewhere(call, [each for each in (axes, call.axes("index"), call.axes("src")) if each], call["dim"])
    return axes


def _index_add(call: Call) -> Value:
    axes, source = call.axes("self"), call.axes("source")
    _elsewhere(call, [axes, source], call["dim"])
    call.hold(call.axes("index"), "looks it up by number")
    return axes


def _elsewhere(call: Call, operands: list[Axes], place: int) -> None:
    """One axis is looked up by number; along the others the operands are read side by side."""
    place %= len(operands[0])
    for index, dims in enumerate(zip(*operands, strict=True)):
        if index == place or len({dim.size for dim in dims}) > 1:
            call.hold(dims, "looks it up by number")
            continue
        for other in dims[1:]:
            call.same(dims[0], other)


def _corner(call: Call) -> Value:
    axes = call.axes("self")
    call.hold(axes[-2:], "numbers it")
    return axes


def _cast(call: Call) -> Value:
    """Numbers that share a scale stay or go together; where the scale is computed on the fly, they all stay."""
    axes, form = call.axes("x"), Format.parse(call["format"])
    if not form.levels or not axes:
        return axes
    if call["seed"] is not None:
        call.hold(axes, "rounds by place")
    shape = tuple(dim.size for dim in axes)
    layout = [(1, size) for size in shape] if form.block is None or form.block.is_tensor else form.block.layout(shape)
    stored = [call.trace.axes(node) for node in call["parameters"]]
    for place, (dim, (count, size)) in enumerate(zip(axes, layout, strict=True)):
        scales = [each[place] for each in stored if len(each) == len(axes) and each[place].size == count > 1]
        if form.is_dynamic and size > 1 and count == 1:
            call.hold((dim,), "finds one scale for all of it")
        elif count > 1 and dim.size != count * size:
            call.hold((dim, *scales), "has blocks that do not divide it")
        elif count > 1:
            blocks, inside = Dim(count), Dim(size)
            call.same(dim, product((blocks, inside)))
            call.hold((inside,), "has one scale for several")
            for scale in scales:
                call.same(scale, blocks)
    if any(each and len(each) != len(axes) and max(dim.size for dim in each) > 1 for each in stored):
        call.hold((*axes, *(dim for each in stored for dim in each)), "has parameters of another rank")
    return axes


RULES: dict[str, Rule] = {
    "sum": _sum,
    **dict.fromkeys(
        ("mean", "amax", "amin", "max", "min", "argmax", "argmin", "prod", "var", "std", "logsumexp", "any", "all",
         "linalg_vector_norm", "norm", "var_mean", "median"),
        _reduce,
    ),
    **dict.fromkeys(("softmax", "log_softmax", "cumsum", "cumprod", "flip", "roll", "logcumsumexp"), _along),
    **dict.fromkeys(("topk", "sort"), _sorted),
    "diff": _diff,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "instance_norm": _batch_norm,
    "group_norm": _group_norm,
    **dict.fromkeys(
        [f"{kind}{space}d" for space in (1, 2, 3) for kind in (
            "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "upsample_nearest", "_adaptive_avg_pool")]
        + ["max_pool2d_with_indices", "upsample_bilinear2d", "upsample_linear1d", "upsample_trilinear3d",
           "upsample_bicubic2d", "_upsample_nearest_exact2d"],
        _pool,
    ),
    "embedding": _embedding,
    "index_select": _index_select,
    "index": _index,
    "gather": _gather,
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce"), _scatter),
    "index_add": _index_add,
    **dict.fromkeys(("tril", "triu"), _corner),
    "cast": _cast,
}  # fmt: skip
