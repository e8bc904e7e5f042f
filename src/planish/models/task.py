"""A model with all that is needed to judge it: example inputs, data and metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from planish.errors import DataError, ModelError
from planish.metrics import FIDELITY, Metric, Model, WithReference, with_reference
from planish.metrics import get as get_metric
from planish.record import Measurement

Data = Iterable[tuple[Any, ...]]
MetricLike = str | Metric


@dataclass(frozen=True)
class Task:
    """A model, what it eats, and how its answers are judged.

    Attributes:
        model: In evaluation mode (the constructor switches it).
        example_inputs: One call's inputs: a tuple of arguments, a dict of keyword arguments, or `(args, kwargs)`.
        calibration: Re-iterable of `(args, kwargs)` or `(args, kwargs, target)`, for choosing ranges; never judged on.
        evaluation: Re-iterable of `(args, kwargs, target)` that quality is reported on. The target may be left out
            where every metric is a fidelity metric: those compare with the model's own output.
        validation: Like `evaluation`, apart from it, for choosing between options; may be empty.
        training: Like `calibration`, apart from all others, for recovery to learn from; checked as it is read; may be
            empty.
        metric: A name (`planish.metrics`), a callable `metric(callable, data) -> Measurement`, a pair of one and the
            data it reads instead of `evaluation`, or a tuple of these; the first decides, the others are reported.
        name: What reports call it.
        dynamic: Dimensions that vary, by argument: `{"input_ids": {0: "batch", 1: "sequence"}}`.
        family: What kind of model it is ("cnn", "transformer encoder"), for reports.
        description: Where weights and data come from, in a sentence.

    Raises:
        ModelError: The model is no module.
        DataError: Data is empty, can be read only once, or its first item has not the form of `example_inputs`; later
            items are checked as they are read.
        UnknownName: A metric that nobody registered.
    """

    model: nn.Module
    example_inputs: Any
    calibration: Data = ()
    evaluation: Data = ()
    metric: Any = "accuracy"
    name: str = ""
    dynamic: Mapping[str, Any] | None = None
    validation: Data = ()
    training: Data = ()
    family: str = ""
    description: str = ""
    _references: dict[int, WithReference] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise ModelError(
                f"a task's model is a torch.nn.Module, not {type(self.model).__name__}",
                self.name,
                "Task(model, example_inputs, ...)",
            )
        self.model.eval()
        if not self.name:
            object.__setattr__(self, "name", type(self.model).__name__)
        _check_item((self.args, self.kwargs), "example_inputs")
        for role in ("calibration", "evaluation", "validation", "training"):
            data = getattr(self, role)
            if isinstance(data, (tuple, list)) and not data:
                continue  # not given
            checked = CheckedData(data, role, like=(self.args, self.kwargs), now=role != "training")
            object.__setattr__(self, role, checked)
        for metric, _ in self.metrics:
            get_metric(metric)

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional part of `example_inputs`."""
        return split_inputs(self.example_inputs)[0]

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword part of `example_inputs`."""
        return split_inputs(self.example_inputs)[1]

    @property
    def metrics(self) -> tuple[tuple[MetricLike, Data | None], ...]:
        """Each metric with the data it reads instead of the task's own (or None); the first is the headline."""
        single = not isinstance(self.metric, tuple) or _is_pair(self.metric)
        listed: tuple[Any, ...] = (self.metric,) if single else self.metric
        return tuple(entry if _is_pair(entry) else (entry, None) for entry in listed)

    def judge(
        self,
        model: Model | None = None,
        subject: str = "",
        on: Literal["evaluation", "validation"] = "evaluation",
    ) -> tuple[Measurement, ...]:
        """Measure a model's quality: one row for each metric, the headline first.

        Args:
            model: Anything with the task's own signature: an artifact, a graph; by default the task's model.
            subject: Whose numbers these are ("original", "chosen").
            on: The data to read. On "validation" the metrics that bring their own data are left out.

        Raises:
            DataError: There is no data of that role, or it does not fit a metric.
        """
        model = self.model if model is None else model
        rows = []
        for place, (metric, own) in enumerate(self.metrics):
            if own is not None and on == "validation":
                continue
            data = getattr(self, on) if own is None else own
            if isinstance(data, tuple) and not data:
                raise DataError(
                    f"the task has no {on} data", self.name, f"Task(..., {on}=[(args, kwargs, target), ...])"
                )
            if isinstance(metric, str) and metric in FIDELITY:
                data = self._references.setdefault(id(data), with_reference(self.model, data))
                judged = data.recall() if model is self.model else model
            else:
                judged = model
            row = get_metric(metric)(judged, data)
            details = {"data": getattr(data, "description", "") or on, **row.details}
            if place == 0:
                details["headline"] = True
            rows.append(dataclasses.replace(row, subject=subject or row.subject, details=details))
        return tuple(rows)


def split_inputs(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`(args, kwargs)` of example inputs given as a tensor, a tuple, a dict, or `(args, kwargs)`."""
    if isinstance(example, dict):
        return (), dict(example)
    if isinstance(example, Tensor):
        return (example,), {}
    if isinstance(example, (tuple, list)):
        if len(example) == 2 and isinstance(example[0], tuple) and isinstance(example[1], dict):
            return tuple(example[0]), dict(example[1])
        return tuple(example), {}
    raise DataError(
        f"example inputs are a tuple of arguments or a dict of keyword arguments, not {type(example).__name__}",
        hint="(x,) or {'input_ids': ids}",
    )


class CheckedData:
    """Data whose items are checked as they are read.

    Args:
        data: Re-iterable of `(args, kwargs)` or `(args, kwargs, target)`.
        where: What messages call it.
        like: `(args, kwargs)` that every item resembles: as many arguments, the same keywords, dtypes and dimensions.
        now: Look at the first item at once; otherwise when the data is read, which may take long.

    Raises:
        DataError: Here for what the first item shows, and while iterating for the others.
    """

    def __init__(
        self,
        data: Data,
        where: str = "data",
        like: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
        now: bool = True,
    ) -> None:
        if not isinstance(data, Iterable):
            raise DataError(f"data is a re-iterable of (args, kwargs[, target]), not {type(data).__name__}", where)
        if iter(data) is data:
            raise DataError("data is read several times, and an iterator only once", where, "list(data)")
        self._data, self._where, self._like = data, where, like
        self.description: str = getattr(data, "description", "")
        if now:
            next(iter(self))

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        empty = True
        for place, item in enumerate(self._data):
            _check_item(item, f"{self._where}[{place}]", self._like)
            yield tuple(item)
            empty = False
        if empty:
            raise DataError("the data is empty", self._where, "yield at least one (args, kwargs)")


@dataclass(frozen=True)
class Later:
    """Data that is made when it is first read.

    Attributes:
        make: Gives the items.
        description: What reports say was measured on.
    """

    make: Callable[[], Iterable[tuple[Any, ...]]]
    description: str

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        yield from self._items

    @cached_property
    def _items(self) -> tuple[tuple[Any, ...], ...]:
        return tuple(self.make())


def check_data(data: Data, where: str = "data", like: tuple[tuple[Any, ...], dict[str, Any]] | None = None) -> None:
    """Read all of the data once and complain about the first item that is not right (see `CheckedData`)."""
    for _ in CheckedData(data, where, like):
        pass


def _is_pair(entry: Any) -> bool:
    """Whether an entry is `(metric, data)`: its second half is neither a name nor a callable."""
    return (
        isinstance(entry, tuple)
        and len(entry) == 2
        and not isinstance(entry[1], (str, tuple))
        and not callable(entry[1])
    )


def _check_item(item: Any, where: str, like: tuple[tuple[Any, ...], dict[str, Any]] | None = None) -> None:
    whole = isinstance(item, (tuple, list)) and len(item) in (2, 3)
    if not (whole and isinstance(item[0], (tuple, list)) and isinstance(item[1], dict)):
        shown = f"a {type(item).__name__}" + (f" of {len(item)}" if isinstance(item, (tuple, list)) else "")
        raise DataError(
            f"an item of data is (args, kwargs) or (args, kwargs, target), not {shown}", where, "((x,), {}, y)"
        )
    for path, leaf in pytree.tree_leaves_with_path((tuple(item[0]), item[1])):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.isnan().any():
            raise DataError("a tensor holds NaN", where + pytree.keystr(path), "drop or repair the sample")
    if like is not None:
        _check_form(item, where, like)


def _check_form(item: Any, where: str, like: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    args, kwargs = tuple(item[0]), item[1]
    if len(args) != len(like[0]) or kwargs.keys() != like[1].keys():
        raise DataError(
            f"an item has {len(args)} arguments and keywords {sorted(kwargs)}, "
            f"the example inputs have {len(like[0])} and {sorted(like[1])}",
            where,
        )
    named = [*((f"[0][{place}]", args[place], like[0][place]) for place in range(len(args)))]
    named += [(f"[1][{key!r}]", kwargs[key], like[1][key]) for key in kwargs]
    for path, leaf, example in named:
        both = isinstance(leaf, Tensor) and isinstance(example, Tensor)
        if both and (leaf.dtype, leaf.ndim) != (example.dtype, example.ndim):
            raise DataError(
                f"a tensor is {leaf.dtype} with {leaf.ndim} axes, "
                f"and the example input {example.dtype} with {example.ndim}",
                where + path,
            )
