"""What this machine can do at best: arithmetic and memory bandwidth, measured, not looked up.

Each peak is the fastest of several honest ways to do the work with what PyTorch ships, and the kernel that won is
recorded beside it. A peak is a maximum by nature, so the best repeat counts, not the median. A busy machine hides it:
so the work is done in bursts, seconds apart, measuring again never lowers what was seen before, and a run that sees an
operation go faster raises the peak it shows.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from planish.errors import OptionError
from planish.record import Measurement, cpu_name

_SIDES = (64, 128, 256, 512, 1024)  # square products, grown until one of them takes long enough to time well
_LONG = 0.005
_BURST = 0.06  # seconds of one kernel, or one way through memory, in a row
_BURSTS = 3  # of each, with all the others between
_MEMORY_ELEMENTS = 2**24
MEMORY_BYTES = 4 * _MEMORY_ELEMENTS
"""64 MiB of float32 per vector: beyond the last-level cache of one socket's share."""


@dataclass(frozen=True)
class Peak:
    """The best rate seen, in FLOP/s or B/s, and the kernel that reached it."""

    rate: float
    kernel: str


@dataclass(frozen=True)
class Peaks:
    """The measured limits of this machine.

    Attributes:
        cpu: The processor's name.
        threads: How many threads worked.
        gemm: Arithmetic peak by number format ("f32", "bf16", "int8"), in FLOP/s; one multiply-accumulate is two.
        memory: Memory bandwidth in B/s, reads and writes together.
        overhead: Seconds that PyTorch takes to start one operation on a tensor too small to matter.
    """

    cpu: str
    threads: int
    gemm: Mapping[str, Peak]
    memory: Peak
    overhead: float

    def measurements(self) -> list[Measurement]:
        """Rows named `peak` ("gemm f32", ..., "memory") and `op_overhead`, as a run folder keeps them."""
        details = {"threads": self.threads, "cpu": self.cpu}
        rates = {
            **{f"gemm {name}": (peak, "FLOP/s") for name, peak in self.gemm.items()},
            "memory": (self.memory, "B/s"),
        }
        rows = [
            Measurement(
                "peak", peak.rate, unit, "measured", subject=subject, details={**details, "kernel": peak.kernel}
            )
            for subject, (peak, unit) in rates.items()
        ]
        return [*rows, Measurement("op_overhead", self.overhead, "s", "measured", details=details)]

    def raised(self, seen: Mapping[str, Peak]) -> Peaks:
        """These peaks, or the rates seen elsewhere ("f32", "bf16", "int8", "memory") where those are higher.

        The kernel of a peak that was raised says where the higher rate was seen.
        """

        def higher(name: str, peak: Peak) -> Peak:
            other = seen.get(name)
            return other if other and other.rate > peak.rate else peak

        gemm = {name: higher(name, peak) for name, peak in self.gemm.items()}
        return replace(self, gemm=gemm, memory=higher("memory", self.memory))

    def to_json(self) -> str:
        """The text kept in the cache."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Peaks:
        """The inverse of `to_json`."""
        fields = json.loads(text)
        gemm = {name: Peak(**peak) for name, peak in fields.pop("gemm").items()}
        return cls(gemm=gemm, memory=Peak(**fields.pop("memory")), **fields)


def peaks(threads: int = 1, refresh: bool = False) -> Peaks:
    """The peaks of this machine, from the user's cache when they were measured before.

    Args:
        threads: How many threads work, from 1 to the number of cores.
        refresh: Measure again even where the cache has an answer (some three seconds), and keep the better of both.

    Raises:
        OptionError: More threads than cores, or fewer than one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not 1 <= threads <= cores:
        raise OptionError(f"peaks cannot be measured with {threads} threads", hint=f"threads=1 to {cores}")
    file = _cache_file(threads)
    known = _read(file)
    if known is not None and not refresh:
        return known
    with torch_threads(threads):
        found = _measure(threads)
        for _ in range(_BURSTS - 1):
            found = _better(found, _measure(threads))
    found = _better(known, found) if known else found
    _write(file, found.to_json())
    return found


def _measure(threads: int) -> Peaks:
    """One burst of everything."""
    gemm = {name: _best_gemm(kernels) for name, kernels in _GEMMS.items()}
    return Peaks(cpu_name(), threads, gemm, _memory(), _overhead())


def _better(one: Peaks, other: Peaks) -> Peaks:
    """The higher rates and the lower overhead of two measurements of one machine."""
    raised = one.raised({**other.gemm, "memory": other.memory})
    return replace(raised, overhead=min(one.overhead, other.overhead))


def _cache_file(threads: int) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    machine = hashlib.sha256(f"{cpu_name()}|{threads}|{torch.__version__}".encode()).hexdigest()[:16]
    return base / "planish" / f"peaks-{machine}.json"


def _read(file: Path) -> Peaks | None:
    try:
        return Peaks.from_json(file.read_text())
    except (OSError, ValueError, KeyError, TypeError):  # absent, torn, or written by another version: measure again
        return None


def _write(file: Path, text: str) -> None:
    draft = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text)
        draft.replace(file)
    except OSError:  # a read-only home costs a measurement next time, nothing else
        draft.unlink(missing_ok=True)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch use `count` threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _best(work: Callable[[], object], budget: float = _BURST) -> float:
    """Seconds of the fastest repeat."""
    work()
    fastest, start = float("inf"), time.perf_counter()
    while (begin := time.perf_counter()) - start < budget:
        work()
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest


Kernel = Callable[[int], Callable[[], object]]  # side of a square product -> the work to time


def _f32_mm(n: int) -> Callable[[], object]:
    a, b, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
    return lambda: torch.mm(a, b, out=out)


def _f32_onednn(n: int) -> Callable[[], object]:
    a, weight = torch.randn(n, n), torch.ops.mkldnn._reorder_linear_weight(torch.randn(n, n), n)
    return lambda: torch.ops.mkldnn._linear_pointwise(a, weight, None, "none", [], "")


def _bf16_mm(n: int) -> Callable[[], object]:
    a, b = torch.randn(n, n).bfloat16(), torch.randn(n, n).bfloat16()
    return lambda: torch.mm(a, b)


def _bf16_through_f32(n: int) -> Callable[[], object]:
    # Without bf16 instructions the quickest product widens its operands first; the conversions are timed too.
    a, b = torch.randn(n, n).bfloat16(), torch.randn(n, n).bfloat16()
    return lambda: torch.mm(a.float(), b.float()).bfloat16()


def _int8_mm(n: int) -> Callable[[], object]:
    a, b = (torch.randint(-128, 128, (n, n), dtype=torch.int8) for _ in range(2))
    return lambda: torch.ops.aten._int_mm(a, b)


def _int8_onednn(n: int) -> Callable[[], object]:
    a = torch.randint(0, 256, (n, n), dtype=torch.uint8)
    weight = torch.ops.onednn.qlinear_prepack(torch.randint(-128, 128, (n, n), dtype=torch.int8), [n, n])
    scales, zeros = torch.ones(n), torch.zeros(n, dtype=torch.int32)
    run = torch.ops.onednn.qlinear_pointwise
    return lambda: run(a, 0.1, 128, weight, scales, zeros, None, 0.1, 128, torch.uint8, "none", [], "")


_GEMMS: Mapping[str, Mapping[str, Kernel]] = {
    "f32": {"torch.mm": _f32_mm, "oneDNN linear, packed weight": _f32_onednn},
    "bf16": {"torch.mm": _bf16_mm, "torch.mm in f32 with conversions": _bf16_through_f32},
    "int8": {"torch._int_mm": _int8_mm, "oneDNN u8s8 linear": _int8_onednn},
}


def _best_gemm(kernels: Mapping[str, Kernel]) -> Peak:
    found = [Peak(rate, name) for name, kernel in kernels.items() if (rate := _gemm_rate(kernel)) is not None]
    return max(found, key=lambda peak: peak.rate)


def _gemm_rate(kernel: Kernel) -> float | None:
    """FLOP/s of one kernel at the best size tried, or None where this build of PyTorch does not have it."""
    best = 0.0
    for side in _SIDES:
        try:
            work = kernel(side)
            seconds = _best(work, budget=_BURST / len(_SIDES))
        except (RuntimeError, AttributeError):
            return None
        best = max(best, 2 * side**3 / seconds)
        if seconds > _LONG:
            break
    return best


def _memory() -> Peak:
    a, b, out = (torch.ones(_MEMORY_ELEMENTS) for _ in range(3))
    ways = {"copy": (2, lambda: out.copy_(a)), "triad": (3, lambda: torch.add(a, b, alpha=2.0, out=out))}
    found = [Peak(count * MEMORY_BYTES / _best(work), name) for name, (count, work) in ways.items()]
    return max(found, key=lambda peak: peak.rate)


def _overhead() -> float:
    a, b = torch.ones(1), torch.ones(1)

    def many() -> None:
        for _ in range(100):
            torch.add(a, b)

    return _best(many, budget=0.02) / 100
