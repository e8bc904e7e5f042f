"""The peak memory of real steps of the training loop, as PyTorch's allocator counts it.

The allocator tells torch's profiler of every block that it hands out and takes back: their running sum is exact, where
the resident set of a process also has code, freed pages and what other libraries keep. Buffers that kernels ask of
libraries of their own (oneDNN's scratchpads) are in neither count.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._C._autograd import _disable_profiler_legacy, _enable_profiler_legacy
from torch._C._profiler import ProfilerConfig, ProfilerState, _ExperimentalConfig
from torch.utils import _pytree as pytree

from planish.graph import Graph
from planish.metrics import read_tensor
from planish.training.engine import Item
from planish.training.loop import Loop
from planish.training.losses import losses
from planish.training.options import Training

STEPS = 2
"""The first step has no optimizer state yet while its gradients are computed; the second is as all that follow."""


def peak_memory(graph: Graph, item: Item, loss: str = "mse", optimizer: str = "adamw") -> int:
    """Bytes at the peak of two steps on the CPU: parameters, batch, activations, gradients and optimizer state.

    Args:
        graph: A graph that was captured for training; it stays as it is.
        item: `(args, kwargs, target)`; a target of None stands for zeros in the shape of the output.
        loss: The loss of `planish train`.
        optimizer: Likewise.

    Raises:
        ModelError: The graph was captured for evaluation only.
        Diverged: The loss became NaN or infinite.
    """
    chosen = losses[loss]

    def of_item(module: nn.Module, given: Item) -> Tensor:
        args, kwargs, target = given
        output = module(*args, **kwargs)
        return chosen(output, zeros_like(output) if target is None else target)

    options = Training(steps=STEPS, optimizer=optimizer, schedule="constant", warmup=0.0)
    # The profiler that is no part of Kineto: it keeps the allocator's events and says nothing on the user's terminal.
    _enable_profiler_legacy(ProfilerConfig(ProfilerState.CPU, False, True, False, False, False, _ExperimentalConfig()))
    try:
        own = pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, item)
        Loop(graph.module().train(), [own], of_item, options).run()
    finally:
        events = _disable_profiler_legacy()
    live = peak = 0
    for event in (event for thread in events for event in thread):
        if event.kind() == "memory_alloc":
            live += event.cpu_memory_usage()
            peak = max(peak, live)
    return peak


def zeros_like(output: object) -> Tensor:
    """A target for a model that has none: zeros in the shape of its output's tensor."""
    return torch.zeros_like(read_tensor(output))
