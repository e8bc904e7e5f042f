"""Calls of a model: one with a batch of the user's choice, and those that data holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planish.errors import DataError, OptionError, PlanishError
from planish.graph import Graph


@dataclass(frozen=True)
class Call:
    """Inputs for one call, and the sizes that they give the graph.

    Attributes:
        args: By position.
        kwargs: By keyword.
        sizes: The batch, under the name that the graph has for it; empty where its batch does not vary.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    sizes: dict[str, int]

    @property
    def tensors(self) -> tuple[tuple[Tensor, ...], dict[str, Tensor]] | None:
        """The inputs, if all of them are plain tensors: such a call can be handed to another process."""
        if all(isinstance(value, Tensor) for value in (*self.args, *self.kwargs.values())):
            return self.args, self.kwargs
        return None


def call_of(graph: Graph, batch: int | None = None) -> Call:
    """The example inputs with `batch` rows: those of the example, repeated or cut.

    Args:
        graph: The graph.
        batch: Rows; None takes 1 where the batch varies, and the example's own where it does not.

    Raises:
        OptionError: A batch is asked of a model whose batch is fixed.
    """
    axes = [node.shape[0] if isinstance(node.value, Tensor) and node.shape else None for node in graph.inputs]
    names = {str(axis) for axis in axes if isinstance(axis, str)} & set(graph.symbols.values())
    if batch is not None and not names:
        raise OptionError(
            "the model's batch is fixed: no first axis of its inputs varies",
            "--batch",
            'Task(..., dynamic={"input": {0: "batch"}})',
        )
    rows, remaining = batch or 1, iter(axes)

    def resized(leaf: object) -> object:
        varies = next(remaining) in names
        return leaf[torch.arange(rows) % leaf.shape[0]] if varies and isinstance(leaf, Tensor) else leaf

    args, kwargs = pytree.tree_map(resized, graph.example)
    return Call(args, kwargs, dict.fromkeys(sorted(names), rows))


def checked(data: Iterable[Any], graph: Graph, where: str) -> Iterator[Any]:
    """The items of data, each compared with what the graph takes.

    Raises:
        DataError: An item has another size where the graph's is fixed, or the user's own code raised; names the item.
    """
    sizes = [node.shape if isinstance(node.value, Tensor) else None for node in graph.inputs]
    place, items = 0, iter(data)
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except PlanishError:
            raise
        except Exception as error:  # the user's data may raise anything
            raise DataError(
                f"the data raised {type(error).__name__}: {error}", f"{where}[{place}]", "iterate over it with python"
            ) from error
        for leaf, wanted in zip(pytree.tree_leaves((tuple(item[0]), item[1])), sizes, strict=False):
            if isinstance(leaf, Tensor) and wanted is not None and not _fits(leaf.shape, wanted):
                shown = "×".join(map(str, wanted))
                raise DataError(
                    f"a tensor has shape {tuple(leaf.shape)}, and the model takes {shown}",
                    f"{where}[{place}]",
                    "example inputs and data of one shape, or Task(..., dynamic={...})",
                )
        yield item
        place += 1


def _fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(size, str) or have == size for have, size in zip(shape, wanted, strict=True)
    )
