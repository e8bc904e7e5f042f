"""What a recipe would do, before anything is done."""

from __future__ import annotations

from dataclasses import dataclass

from planish.analysis import Weight
from planish.graph import Step


@dataclass(frozen=True)
class Plan:
    """What each pass of a recipe would touch, and what the weights would be in the end; prints as tables.

    Attributes:
        steps: For each pass its name and its steps.
        weights: Each weight afterwards: format, zeros, rank, bytes.
        before: Bytes of all weights, and multiply-accumulates at the example's sizes, now.
        after: The same afterwards.
    """

    steps: tuple[tuple[str, tuple[Step, ...]], ...]
    weights: tuple[Weight, ...] = ()
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        lines = []
        for place, (name, steps) in enumerate(self.steps, 1):
            lines.append(f"{place}. {name}")
            rows = [(step.path or step.node, step.action, _sizes(step)) for step in steps]
            widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
            lines += [f"   {path:{widths[0]}}  {action:{widths[1]}}  {size}".rstrip() for path, action, size in rows]
        if self.weights:
            lines.append("afterwards")
            rows = [(weight.name, " × ".join(map(str, weight.shape)), str(weight)) for weight in self.weights]
            widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
            lines += [f"   {name:{widths[0]}}  {shape:{widths[1]}}  {what}" for name, shape, what in rows]
            (bytes_, macs), (fewer, left) = self.before, self.after
            lines.append(f"in total {bytes_:,} B -> {fewer:,} B of weights, {macs:,} -> {left:,} MACs")
        return "\n".join(lines)


def _sizes(step: Step) -> str:
    return f"{step.bytes_before:,} B -> {step.bytes_after:,} B" if step.bytes_before else ""
