"""How much an operation does, as a value that adds up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal

Kind = Literal["arithmetic", "free", "relayout", "gather", "constant", "unruled"]


@dataclass(frozen=True, slots=True)
class Work:
    """How much there is to do.

    Attributes:
        macs: Multiply-accumulates.
        flops: All floating-point operations, two for each multiply-accumulate included.
        parameters: The model's parameters first used here; a tied one counts where it is used first.
        weight_bytes: Bytes that constant tensors first used here take up in their formats, packed, with their scales.
        weight_traffic: Bytes of constant tensors read when this runs; a tied weight is read at each use.
        activation_bytes: Bytes of activations read and written, in their formats.
    """

    macs: float = 0
    flops: float = 0
    parameters: float = 0
    weight_bytes: float = 0
    weight_traffic: float = 0
    activation_bytes: float = 0

    @property
    def bytes(self) -> float:
        """All bytes moved."""
        return self.weight_traffic + self.activation_bytes

    @property
    def intensity(self) -> float:
        """FLOPs for each byte moved."""
        return self.flops / self.bytes if self.bytes else 0.0

    @classmethod
    def sum(cls, works: Iterable[Work]) -> Work:
        """The sum, field by field."""
        works = list(works)
        return cls(*(sum(getattr(work, field.name) for work in works) for field in fields(cls)))


@dataclass(frozen=True, slots=True)
class NodeCost:
    """What one operation costs.

    Attributes:
        node: Its name; inside a branch of `torch.cond`, "cond.branch.node".
        op: Base name of the operation.
        path: Module path.
        type: Class name of that module.
        kind: How its work was found. A "constant" depends on no input and is computed before the graph runs; of an
            "unruled" operation only the bytes are known.
        compute: What its arithmetic runs on: "f32", "bf16" or "int8".
        work: How much there is.
    """

    node: str
    op: str
    path: str
    type: str
    kind: Kind
    compute: str
    work: Work
