"""`plan="auto"`: the planner's choice for the devices that there are."""

from __future__ import annotations

import os

import torch

from planish.errors import OptionError, UnknownName
from planish.graph import Graph
from planish.training.parallel.plan import Plan
from planish.training.parallel.world import is_member
from planish.training.planning.hardware import CPU, Cluster, known
from planish.training.planning.planner import plan


def automatic(graph: Graph, batch: int, devices: int | None = None, hardware: str | None = None) -> Plan:
    """The fastest plan for a graph, as modeled.

    Args:
        graph: The model.
        batch: Samples of a step, over all devices.
        devices: How many; None takes the processes that were started, or the GPUs of this machine, or its cores.
        hardware: Its name; None takes what this machine has.

    Raises:
        UnknownName: The GPU of this machine is not described.
        OptionError: No plan fits; or each of several processes would have to measure the CPU for itself.
    """
    name = hardware or here()
    if name == CPU and is_member():
        what = "each process would measure the CPU for itself, and find a plan of its own"
        raise OptionError(what, 'plan="auto"', "planish plan MODEL --devices N --hardware cpu, and its plan.toml")
    started = int(os.environ.get("WORLD_SIZE", "0"))
    count = devices or started or torch.cuda.device_count() or os.cpu_count() or 1
    return plan(graph, Cluster.of(name, count), batch).plan


def here() -> str:
    """The name of this machine's hardware.

    Raises:
        UnknownName: It has a GPU of which no file tells.
    """
    if not torch.cuda.is_available():
        return CPU
    device = torch.cuda.get_device_name()
    found = [name for name in known() if name.partition("-")[0] in device.lower()]
    if not found:
        raise UnknownName("hardware", device, known(), "hardware")
    return next((name for name in found if "sxm" in name), found[0])  # without a word on its power
