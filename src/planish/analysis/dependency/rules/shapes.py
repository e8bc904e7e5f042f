"""Operations that only move numbers: views, cuts, joins, copies."""

from __future__ import annotations

from typing import Any

from planish.analysis.dependency.dims import Dim, concatenation, product
from planish.analysis.dependency.trace import Axes, Call, Rule, Value, is_fixed


def _same(call: Call) -> Value:
    return call.axes("self") or call.axes("input") or call.axes("a")


def _view(call: Call) -> Value:
    source, result = call.axes("self"), call.fresh()
    call.same(product(source), product(result))
    return result


def _expand(call: Call) -> Value:
    source, fresh = call.axes("self"), call.fresh()
    new = len(fresh) - len(source)
    kept = zip(fresh[new:], source, strict=True)
    result = (*fresh[:new], *(old if old.size == dim.size else dim for dim, old in kept))
    if "other" in call.arguments:
        for dim, other in zip(result, call.axes("other"), strict=True):
            call.same(dim, other)
    return result


def _transpose(call: Call) -> Value:
    axes = list(call.axes("self"))
    first, second = call["dim0"], call["dim1"]
    axes[first], axes[second] = axes[second], axes[first]
    return tuple(axes)


def _permute(call: Call) -> Value:
    axes = call.axes("self")
    return tuple(axes[place] for place in call["dims"])


def _movedim(call: Call) -> Value:
    axes = call.axes("self")
    moved = [[place % len(axes) for place in _listed(call[name])] for name in ("source", "destination")]
    order = [place for place in range(len(axes)) if place not in moved[0]]
    for source, target in sorted(zip(*moved, strict=True), key=lambda pair: pair[1]):
        order.insert(target, source)
    return tuple(axes[place] for place in order)


def _unsqueeze(call: Call) -> Value:
    axes = list(call.axes("self"))
    axes.insert(call["dim"] % (len(axes) + 1), Dim(1))
    return tuple(axes)


def _squeeze(call: Call) -> Value:
    axes = call.axes("self")
    chosen = range(len(axes)) if call.arguments.get("dim") is None else _listed(call["dim"])
    gone = {place % len(axes) for place in chosen if axes[place].size == 1}
    return tuple(dim for place, dim in enumerate(axes) if place not in gone)


def _cut(call: Call, sizes: list[int]) -> Value:
    axes, place = call.axes("self"), call["dim"]
    parts = [Dim(size) for size in sizes]
    call.same(axes[place], concatenation(parts))
    return [_put(axes, place, part) for part in parts]


def _split(call: Call) -> Value:
    """`chunk`, `split` and `split_with_sizes`: the sizes are read off the results."""
    results = [call.trace.shape(fake) for fake in call.fx.meta["val"]]
    if not all(is_fixed(fake.shape[call["dim"]]) for fake in call.fx.meta["val"]):
        return call.trace.unknown(call)
    return _cut(call, [shape[call["dim"]] for shape in results])


def _slice(call: Call) -> Value:
    axes, place = call.axes("self"), call["dim"]
    size, step = axes[place].size, call["step"]
    start, end = call["start"], call["end"]
    start = 0 if start is None else start
    end = size if end is None else end
    if not all(isinstance(each, int) for each in (start, end, step)):
        return _held_axis(call, place)
    start, end = (max(0, min(size, each + size if each < 0 else each)) for each in (start, end))
    dynamic = not is_fixed(call.fx.args[0].meta["val"].shape[place])  # type: ignore[union-attr]
    if (start, step) == (0, 1) and (end == size or (dynamic and call["end"] in (None, 2**63 - 1))):
        return axes
    if dynamic:
        return _held_axis(call, place)
    if step == 1:
        before, inside, after = Dim(start), Dim(end - start), Dim(size - end)
        call.same(axes[place], concatenation((before, inside, after)))
        return _put(axes, place, inside)
    if end == size and size % step == 0 and start < step:
        outer, inner = Dim(size // step), Dim(step)
        call.same(axes[place], product((outer, inner)))
        call.hold((inner,), "takes every few indices")
        return _put(axes, place, outer)
    return _held_axis(call, place)


def _held_axis(call: Call, place: int) -> Value:
    """Axes as they are, but one that is held and new."""
    axes = call.axes("self")
    call.hold((axes[place],), "takes indices by their number")
    new = call.fresh()[place]
    call.hold((new,), "takes indices by their number")
    return _put(axes, place, new)


def _select(call: Call) -> Value:
    axes, place = call.axes("self"), call["dim"]
    call.hold((axes[place],), "takes an index by its number")
    return _put(axes, place)


def _unbind(call: Call) -> Value:
    axes, place = call.axes("self"), call["dim"]
    call.hold((axes[place],), "takes indices by their number")
    return [_put(axes, place)] * axes[place].size


def _cat(call: Call) -> Value:
    sources = [axes for node in call["tensors"] if len(axes := call.trace.axes(node)) == len(call.shape)]
    place = call["dim"]
    first = sources[0]
    for other in sources[1:]:
        for index, (left, right) in enumerate(zip(first, other, strict=True)):
            if index != place % len(first):
                call.same(left, right)
    return _put(first, place, concatenation([axes[place] for axes in sources]))


def _stack(call: Call) -> Value:
    sources = [call.trace.axes(node) for node in call["tensors"]]
    for other in sources[1:]:
        for left, right in zip(sources[0], other, strict=True):
            call.same(left, right)
    axes = list(sources[0])
    new = Dim(len(sources))
    call.hold((new,), "stacks tensors along it")
    axes.insert(call["dim"] % (len(axes) + 1), new)
    return tuple(axes)


def _repeat(call: Call) -> Value:
    source, shape = call.axes("self"), call.fresh()
    repeats = call["repeats"]
    source = (*(Dim(1) for _ in range(len(repeats) - len(source))), *source)
    result: list[Dim] = []
    for times, old, new in zip(repeats, source, shape, strict=True):
        if not isinstance(times, int):
            call.hold((old, new), "repeats it a dynamic number of times")
            result.append(new)
            continue
        copies = Dim(times)
        call.hold((copies,), "repeats it")
        result.append(product((copies, old)))
    return tuple(result)


def _repeat_interleave(call: Call) -> Value:
    axes, place, times = call.axes("self"), call["dim"], call["repeats"]
    if place is None or not isinstance(times, int):
        return call.trace.unknown(call)
    copies = Dim(times)
    call.hold((copies,), "repeats it")
    return _put(axes, place, product((axes[place], copies)))


def _pad(call: Call) -> Value:
    axes, new = list(call.axes("self")), call.fresh()
    for place, amounts in enumerate(zip(call["pad"][::2], call["pad"][1::2], strict=True), 1):
        if amounts != (0, 0):
            call.hold((axes[-place], new[-place]), "pads it")
            axes[-place] = new[-place]
    return tuple(axes)


def _pixel_shuffle(call: Call) -> Value:
    *batch, channels, _, _ = call.axes("self")
    *_, kept, height, width = call.fresh()
    ratio = Dim(call["upscale_factor"] ** 2)
    call.same(channels, product((kept, ratio)))
    call.hold((ratio, height, width), "moves it into space")
    return (*batch, kept, height, width)


def _getitem(call: Call) -> Value:
    value = call.trace.values[call["0"]]
    return value[call["1"]] if isinstance(value, list) else None


def _filled(call: Call) -> Value:
    """A new tensor, all of whose numbers are alike."""
    return call.fresh()


def _numbered(call: Call) -> Value:
    new = call.fresh()
    call.hold(new, "numbers it")
    return new


def _listed(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


def _put(axes: Axes, place: int, *new: Dim) -> Axes:
    place %= len(axes)
    return (*axes[:place], *new, *axes[place + 1 :])


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("alias", "clone", "contiguous", "detach", "to", "type_as", "dropout", "zeros_like", "ones_like", "full_like",
         "empty_like", "rand_like", "randn_like", "lift_fresh_copy", "feature_dropout", "alpha_dropout", "hardswish",
         "_to_copy", "log_sigmoid"),
        _same,
    ),
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "_unsafe_view", "view_as", "reshape_as"), _view),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    **dict.fromkeys(("zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "scalar_tensor"), _filled),
    **dict.fromkeys(("arange", "linspace", "eye"), _numbered),
    "t": lambda call: call.axes("self")[::-1],
    "numpy_T": lambda call: call.axes("self")[::-1],
    "transpose": _transpose,
    "permute": _permute,
    "movedim": _movedim,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "slice": _slice,
    "select": _select,
    "unbind": _unbind,
    "cat": _cat,
    "stack": _stack,
    "repeat": _repeat,
    "repeat_interleave": _repeat_interleave,
    "pad": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "getitem": _getitem,
}  # fmt: skip
