"""`Setting`: what a step-time depends on, of our plans and of other systems' runs alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planish.training.parallel.plan import LOOPED, Plan, Schedule

Kernels = Literal["fused", "compiled", "eager"]
WIDTH = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 2}
"""Bytes of an activation by the precision of the products; those in fp8 read and write 16 bits."""


@dataclass(frozen=True)
class Setting:
    """How a training runs.

    Attributes:
        dp: Replicas that share gradients.
        fsdp: Devices over which each replica is sharded.
        tp: Devices that share each operation.
        pp: Devices in a pipeline.
        chunks: Stages that each of them has.
        schedule: Of the pipeline.
        microbatches: Parts of a batch.
        precision: Of the products.
        kernels: How elementwise work is done: written by hand, compiled, or operation by operation.
        sequence: Between its products tensor parallelism divides the sequence (arXiv 2205.05198).
        scattered: Pipelines send a tp-th of an activation, from each device of a tensor parallel group.
        asynchronous: Products are pipelined with the tensor parallel traffic around them.
        overlapped: Gradients of replicas are shared while the backward pass goes on.
        gathered_once: Gathered parameters are kept for all microbatches.
        messages: That the shards of a layer are gathered in.
        gradient: Bytes of a gradient that is shared.
        layered: Gradients of replicas are reduced layer by layer.
    """

    dp: int = 1
    fsdp: int = 1
    tp: int = 1
    pp: int = 1
    chunks: int = 1
    schedule: Schedule = "1f1b"
    microbatches: int = 1
    precision: str = "fp32"
    kernels: Kernels = "eager"
    sequence: bool = False
    scattered: bool = False
    asynchronous: bool = False
    overlapped: bool = True
    gathered_once: bool = False
    messages: int = 1
    gradient: int = 4
    layered: bool = False

    @classmethod
    def of(cls, plan: Plan) -> Setting:
        """As Planish executes a plan: eager operations, DDP, FSDP2 and DTensor, whole activations between stages."""
        chunks = 2 if plan.pp > 1 and plan.schedule in LOOPED else 1
        axes = plan.dp, plan.fsdp, plan.tp, plan.pp
        layered = plan.dp > 1 and plan.dp < plan.devices  # FSDP2 joins replicas of what is divided in any way
        return cls(*axes, chunks, plan.schedule, plan.microbatches, plan.precision, layered=layered)

    def own(self, device: int) -> list[int]:
        """The stages of one device of the pipeline: dealt out in turn, or there and back ("zero-bubble", ZB-V)."""
        if self.schedule == "zero-bubble" and self.chunks == 2:
            return [device, 2 * self.pp - 1 - device]
        return [device + chunk * self.pp for chunk in range(self.chunks)]

    @property
    def devices(self) -> int:
        """How many."""
        return self.dp * self.fsdp * self.tp * self.pp

    @property
    def width(self) -> int:
        """Bytes of an activation."""
        return WIDTH[self.precision]
