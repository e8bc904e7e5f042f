"""The fitted constants of the step-time model, frozen in `constants.toml`.

`benchmarks/training/steptime.py --fit` writes that file from published rows that say `fit = true`, and those of this
machine `benchmarks/training/ranking.py --fit` from steps that it measures; nothing else may.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).parent / "constants.toml"


@dataclass(frozen=True)
class Constants:
    """How near to its peaks a device comes.

    Attributes:
        product: Share of the arithmetic peak that a large product reaches, in 16 or 32 bits.
        product8: Likewise in 8 bits, with the casts to them.
        side: A product whose harmonic mean side is this reaches half of that.
        memory: Share of the memory bandwidth that elementwise work reaches.
        fused: Traffic of compiled elementwise work, as a part of that of fused kernels written by hand.
        eager: Traffic of elementwise work operation by operation, likewise.
        node: Share of the bandwidth of the link within a node that collectives reach.
        network: Likewise of the network.
        sharding: Share of that which gathering and reducing shards reaches; NCCL does both alike, gloo does not.
        copied: How often FSDP2 passes what it gathers and reduces through memory beside the link, where computing does
            not hide that (a CPU).
        latency: What a message between nodes takes, as a part of what the hardware says.
        hidden: Share of the compute beside which gathers and reductions of shards are hidden.
        start: Seconds that PyTorch takes to start an operation, where a device does not work ahead of it (a CPU).
        start_distributed: Likewise, of an operation on distributed tensors.
        asynchronous: Share of tensor parallel traffic that pipelined products hide.
    """

    product: float = 0.7
    product8: float = 0.6
    side: float = 200.0
    memory: float = 0.8
    fused: float = 1.0
    eager: float = 2.0
    node: float = 0.75
    network: float = 0.8
    sharding: float = 1.0
    copied: float = 0.0
    latency: float = 1.0
    hidden: float = 0.8
    start: float = 0.0
    start_distributed: float = 0.0
    asynchronous: float = 0.5


@cache
def constants(hardware: str) -> Constants:
    """Those of that hardware; hardware without rows of its own has the default's, fitted on the A100."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return Constants(**tables.get(hardware, tables["default"]))
