"""What a training step costs, rolled up by module, and what would make it cost less."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from rich.table import Table

from planish.analysis.cost import scaled
from planish.graph import Graph
from planish.record import Measurement
from planish.training.backward.trace import Kept, Trace, trace
from planish.training.engine import Item
from planish.training.planning.fold import block_of


@dataclass(frozen=True)
class Part:
    """A module's part of a step, with everything below it.

    Attributes:
        forward: FLOPs of matrix products, convolutions and attention.
        backward: Likewise; an input that asks for no gradient costs none.
        kept: Bytes that wait for the backward pass; what two modules need counts where it is needed first.
        recompute: Bytes fewer that wait if the module keeps its inputs only and is computed again (which costs its
            `forward` once more); None for the whole model, which gains nothing: all of it would come back at once.
        bf16: Bytes fewer if what is kept were kept in 16 bits.
        fp8: Likewise, in 8.
    """

    forward: int
    backward: int
    kept: int
    recompute: int | None
    bf16: int
    fp8: int


@dataclass(frozen=True)
class StepCost:
    """The cost of one training step.

    Attributes:
        trace: What the step did.
        paths: Operation -> module path.
        inputs_of: Operation -> the operations and inputs whose values it reads.
        blocks: Paths of the modules that repeat.
        batch: Rows.
        loss: Its name.
    """

    trace: Trace
    paths: Mapping[str, str]
    inputs_of: Mapping[str, tuple[str, ...]]
    blocks: tuple[str, ...]
    batch: int
    loss: str

    @property
    def activations(self) -> int:
        """Bytes that wait for the backward pass once the forward pass is done; the batch itself not counted."""
        return sum(kept.bytes for kept in self.trace.kept if kept.maker)

    @cached_property
    def peak_recomputed(self) -> int | None:
        """The peak, roughly, if each repeated block were computed again; None where that saves nothing."""
        saved = [self._recompute(path) for path in self.blocks]
        if sum(saved) == max(saved, default=0) or self.trace.peak_at[0] == "update":
            return None
        return self.trace.peak - sum(saved) + max(saved)

    def by_path(self, depth: int | None = None) -> dict[str, Part]:
        """The part of each module, parents first; "" is the whole model with its loss.

        Args:
            depth: How many components of a path are kept; None keeps all.
        """
        paths = {"": None}
        for path in self.paths.values():
            parts = path.split(".")[:depth] if path else []
            paths |= dict.fromkeys(".".join(parts[: length + 1]) for length in range(len(parts)))
        place = {path: index for index, path in enumerate(paths)}

        def below(path: str) -> list[int]:  # a module stands under its parent, though others may run in between
            parts = path.split(".")
            return [place[".".join(parts[: length + 1])] for length in range(len(parts))]

        return {path: self._part(path) for path in sorted(paths, key=below)}

    def _inside(self, operation: str, path: str) -> bool:
        return not path or f"{self.paths.get(operation, '')}.".startswith(f"{path}.")

    def _part(self, path: str) -> Part:
        here = [kept for kept in self.trace.kept if kept.maker and self._inside(kept.savers[0], path)]
        return Part(
            sum(count for name, count in self.trace.forward.items() if self._inside(name, path)),
            sum(count for name, count in self.trace.backward.items() if self._inside(name, path)),
            sum(kept.bytes for kept in here),
            self._recompute(path) if path else None,
            sum(_narrower(kept, 16) for kept in here),
            sum(_narrower(kept, 8) for kept in here),
        )

    def _recompute(self, path: str) -> int:
        """What only the module makes and needs need not wait; what it reads must, though nobody else may keep it."""
        inner = sum(
            kept.bytes
            for kept in self.trace.kept
            if self._inside(kept.maker, path) and all(self._inside(saver, path) for saver in kept.savers)
        )
        read = {
            storage
            for name, sources in self.inputs_of.items()
            if self._inside(name, path)
            for source in sources
            if source in self.paths and not self._inside(source, path)
            for storage in self.trace.values.get(source, ())
        }
        more = sum(size for number, size in read if number not in self.trace.kept_numbers)
        return max(0, inner - more)

    def measurements(self, measured: int | None = None) -> Iterator[Measurement]:
        """Rows of a run folder: `training_*` of the step and of each module, and the peak as modeled and measured."""
        about = {"batch": self.batch, "loss": self.loss, "optimizer": "adamw"}
        totals = {
            "parameters": self.trace.parameters,
            "inputs": self.trace.inputs,
            "gradients": self.trace.gradients,
            "optimizer": self.trace.optimizer,
            "activations": self.activations,
        }
        for name, value in totals.items():
            yield Measurement(f"training_{name}", value, "B", "exact", details=about)
        phase, place = self.trace.peak_at
        at = {**about, "pass": phase, "operation": place}
        yield Measurement("training_peak_memory", self.trace.peak, "B", "modeled", details=at)
        if measured is not None:
            yield Measurement("training_peak_memory", measured, "B", "measured", details=about)
        if self.peak_recomputed is not None:
            details = {**about, "recomputed": list(self.blocks)}
            yield Measurement(
                "training_peak_memory", self.peak_recomputed, "B", "modeled", subject="recomputed", details=details
            )
        for path, part in self.by_path().items():
            if not part.forward and not part.kept:
                continue
            yield Measurement("training_forward", part.forward, "FLOP", "exact", where=path)
            yield Measurement("training_backward", part.backward, "FLOP", "exact", where=path)
            saves = {"recompute": part.recompute, "bf16": part.bf16, "fp8": part.fp8}
            yield Measurement("training_kept", part.kept, "B", "exact", where=path, details={"saved_by": saves})

    def table(self, depth: int = 2) -> Table:
        """The module tree down to `depth`, for a terminal."""
        title = f"a training step of {self.batch} rows; loss {self.loss}, AdamW"
        table = Table("module", title=title, title_justify="left")
        for name in ("forward", "backward", "kept", "recompute", "bf16", "fp8"):
            table.add_column(name, justify="right", no_wrap=True)
        for path, part in self.by_path(depth).items():
            if not part.forward and not part.kept:
                continue
            shown = "  " * path.count(".") + path.rpartition(".")[2] if path else "(model)"
            saved = "" if part.recompute is None else scaled(part.recompute, "B")
            rest = (scaled(value, "B") for value in (part.bf16, part.fp8))
            table.add_row(shown, scaled(part.forward), scaled(part.backward), scaled(part.kept, "B"), saved, *rest)
        table.caption = "kept: for the backward pass; then how much less if computed again, or kept in bf16 or fp8"
        return table


def _narrower(kept: Kept, bits: int) -> int:
    return kept.bytes * (kept.bits - bits) // kept.bits if kept.bits > bits else 0


def step_cost(graph: Graph, item: Item, batch: int, loss: str = "mse") -> StepCost:
    """What a step of `planish train` with AdamW costs, without doing it.

    Args:
        graph: A graph that was captured for training.
        item: `(args, kwargs, target)`; a target of None stands for zeros in the shape of the output.
        batch: Rows of the item.
        loss: "cross_entropy" or "mse".

    Raises:
        ModelError: The graph was captured for evaluation only, or the sizes of its values depend on data.
    """
    found = trace(graph, item, loss)
    steps = {node.name: node for node in graph.fx.nodes if node.op in ("call_function", "placeholder")}
    stacks = {name: node.meta.get("nn_module_stack") for name, node in steps.items()}
    paths = {name: next(reversed(stack.values()))[0] if stack else "" for name, stack in stacks.items()}
    inputs_of = {name: tuple(source.name for source in node.all_input_nodes) for name, node in steps.items()}
    blocks = dict.fromkeys(block for node in steps.values() if (block := block_of(node)))
    return StepCost(found, paths, inputs_of, tuple(blocks), batch, loss)
