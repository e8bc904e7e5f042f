"""What every engine offers: say what it cannot take, compile, run, and tell which precision really ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from planish.graph import Graph
from planish.record import cpu_features
from planish.registry import Registry
from planish.targets.base import Unsupported


@dataclass(frozen=True)
class Options:
    """How an engine runs.

    Attributes:
        threads: Cores that it may use.
        fixed: Sizes that will not vary, by name.
        exact: Sum products of integers without saturation. Without VNNI, x86 adds two products of 8-bit numbers in 16
            bits: fast, and exact unless both are large. The exact way is slower.
        bfloat16: Compute in bfloat16 what no cast rounds.
    """

    threads: int = 1
    fixed: Mapping[str, int] = field(default_factory=dict)
    exact: bool = False
    bfloat16: bool = False


class Compiled(Protocol):
    """A model that an engine has compiled."""

    files: Mapping[str, bytes]

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run once; tensors in the order of the signature."""
        ...

    def executed_precisions(self, inputs: Sequence[Tensor]) -> dict[str, float]:
        """Share of the run time spent in operations of each precision ("int8", "f32"), as the engine reports it."""
        ...


class Engine(Protocol):
    """A module of this package."""

    has_exact: bool
    """Whether `Options.exact` makes a difference on this machine."""
    has_bfloat16: bool
    """Whether it multiplies in bfloat16 on this machine."""

    def unsupported(self, graph: Graph) -> list[Unsupported]:
        """What of the graph the engine cannot take."""
        ...

    def compile(self, graph: Graph, options: Options) -> Compiled:
        """Compile a graph."""
        ...

    def load(self, files: Mapping[str, bytes], names: Sequence[str], options: Options) -> Compiled:
        """Compile what `Compiled.files` held."""
        ...


ENGINES = Registry(
    "engine",
    {
        "openvino": "planish.targets.cpu.openvino:OpenVino",
        "onnxruntime": "planish.targets.cpu.onnxruntime:OnnxRuntime",
        "inductor": "planish.targets.cpu.inductor:Inductor",
    },
)


def may_saturate() -> bool:
    """Whether this processor's 8-bit products can saturate: x86 without VNNI."""
    features = cpu_features()
    return "avx2" in features and not {"avx_vnni", "avx512_vnni", "amx_int8"} & set(features)


def has_bfloat16() -> bool:
    """Whether this processor has products of bfloat16."""
    return bool({"avx512_bf16", "amx_bf16"} & set(cpu_features()))


def shares(times: Mapping[str, float]) -> dict[str, float]:
    """Times as shares of their sum, the largest first."""
    total = sum(times.values()) or 1.0
    return {name: time / total for name, time in sorted(times.items(), key=lambda item: -item[1])}
