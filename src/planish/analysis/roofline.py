"""The least time an operation can take on this machine, from its work and the machine's peaks.

It is a model: it ranks layers well and predicts times badly (kernels differ in how near they come to a peak, and caches
hide traffic). Use it to see what to look at first, and `profile` to know.
"""

from __future__ import annotations

from planish.analysis.peaks import Peaks
from planish.analysis.work import NodeCost


def roofline_time(cost: NodeCost, peaks: Peaks) -> float:
    """Seconds: the longer of computing at the arithmetic peak and moving at the memory peak, plus starting it.

    An operation that moves nothing takes no time: an engine has no step for it.
    """
    work = cost.work
    if not work.flops and not work.bytes:
        return 0.0
    return max(work.flops / peaks.gemm[cost.compute].rate, work.bytes / peaks.memory.rate) + peaks.overhead
