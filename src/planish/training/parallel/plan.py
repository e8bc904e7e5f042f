"""`Plan`: how a training is spread over devices, as a value.

    Plan(fsdp=4, tp=2)                                        # eight devices
    Plan(dp=2, pp=4, schedule="1f1b", microbatches=8)
    Plan(fsdp=8, precision="bf16", recompute="blocks.*")

A plan changes where things are computed, never what: the losses and parameters are those of one process.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import tomli_w

from planish import config
from planish.errors import OptionError
from planish.holes import Fillable

Schedule = Literal["gpipe", "1f1b", "interleaved", "interleaved-zero-bubble", "zero-bubble"]
Precision = Literal["fp32", "bf16"]
AXES = ("pp", "dp", "fsdp", "tp")
"""The axes of the mesh, the one whose neighbors talk least first."""
LOOPED = ("interleaved", "interleaved-zero-bubble", "zero-bubble")
"""Schedules by which each device has two stages."""


@dataclass(frozen=True)
class Plan(Fillable):
    """How a training is spread over `dp * fsdp * tp * pp` devices.

    Each item of data is a step's batch: data parallel devices share its rows, microbatches are parts of those, and the
    mean loss over the item counts.

    Attributes:
        dp: Replicas that only share gradients; with `fsdp` above 1 each replica is sharded (HSDP).
        fsdp: Devices over which parameters, gradients and optimizer are sharded (FSDP2).
        tp: Devices that share each operation (DTensor).
        pp: Devices in a pipeline.
        schedule: Of the pipeline: "gpipe" (arXiv 1811.06965), "1f1b" (1806.03377), "interleaved" (2104.04473),
            "interleaved-zero-bubble" and "zero-bubble" (2401.10241; the latter is ZB-V). By the last three each device
            has two stages.
        microbatches: Parts that a batch is computed in. In a pipeline they follow each other; without one their
            gradients add up, which saves memory.
        precision: What products are computed in; parameters and their updates stay as they are. Sharded parameters
            are gathered in it.
        recompute: Selector of module paths ("blocks.*"), whose activations are computed again instead of kept.
        shards: Parameter name (or pattern, "blocks.*.fc1.weight") -> the axis that `tp` divides; None lets the graph
            decide, as Megatron does (arXiv 1909.08053).
        stages: Paths of the modules at which the second and later stages begin; empty balances their costs.
    """

    dp: int = 1
    fsdp: int = 1
    tp: int = 1
    pp: int = 1
    schedule: Schedule = "1f1b"
    microbatches: int = 1
    precision: Precision = "fp32"
    recompute: str = ""
    shards: Mapping[str, int] | None = field(default=None, hash=False)
    stages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (*AXES, "microbatches"):
            count = getattr(self, name)
            if type(count) is not int or count < 1:
                raise OptionError(f"{name} is a count of 1 or more, not {count!r}", f"Plan.{name}", f"{name}=2")
        for name, known in (("schedule", get_args(Schedule)), ("precision", get_args(Precision))):
            if getattr(self, name) not in known:
                hint = f"one of {', '.join(known)}"
                raise OptionError(f"unknown {name} {getattr(self, name)!r}", f"Plan.{name}", hint)
        if self.pp > 1 and self.microbatches < self.pp:
            what = f"{self.microbatches} microbatches leave some of {self.pp} stages idle all the time"
            raise OptionError(what, "Plan.microbatches", f"microbatches={2 * self.pp}")
        if self.pp > 1 and self.schedule in LOOPED and self.microbatches % self.pp:
            what = f"{self.schedule} takes a multiple of {self.pp} microbatches, not {self.microbatches}"
            raise OptionError(what, "Plan.microbatches", f"microbatches={2 * self.pp}")
        if self.stages and len(self.stages) != self.count_stages - 1:
            what = f"{len(self.stages)} borders make {len(self.stages) + 1} stages, not {self.count_stages}"
            raise OptionError(what, "Plan.stages", f"{self.count_stages - 1} module paths, or none")

    @property
    def devices(self) -> int:
        """How many devices it takes."""
        return self.dp * self.fsdp * self.tp * self.pp

    @property
    def shares(self) -> int:
        """Parts that the rows of a batch are dealt out in."""
        return self.dp * self.fsdp

    @property
    def count_stages(self) -> int:
        """Stages of the pipeline, two a device for looped schedules."""
        return self.pp * (2 if self.pp > 1 and self.schedule in LOOPED else 1)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Plan:
        """A plan from the TOML file that `write` makes; an option that is not there has its default.

        Raises:
            OptionError: It is no TOML, or has an option that a plan has not.
        """
        try:
            table = tomllib.loads(Path(path).read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise OptionError(f"cannot read the plan: {error}", str(path), "planish plan MODEL --devices 8") from error
        return config.decode(cls, table, str(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it as TOML."""
        Path(path).write_text(tomli_w.dumps(self.to_data()))

    def to_data(self) -> dict[str, Any]:
        """The options that differ from their defaults, as TOML and JSON can hold them."""
        return config.encode(self)

    def __str__(self) -> str:
        axes = [f"{name} {getattr(self, name)}" for name in ("dp", "fsdp", "tp", "pp") if getattr(self, name) > 1]
        parts = [" × ".join(axes) or "one device"]
        parts += [f"{self.schedule} of {self.microbatches}"] if self.pp > 1 else []
        parts += [f"{self.microbatches} microbatches"] if self.pp == 1 and self.microbatches > 1 else []
        parts += [self.precision] if self.precision != "fp32" else []
        parts += [f"recompute {self.recompute}"] if self.recompute else []
        return ", ".join(parts)
