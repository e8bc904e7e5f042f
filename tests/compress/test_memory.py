"""Compressing takes at most 2.5 times the model's fp32 size above the loaded model, whatever the technique."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys, threading
import torch
from planish import capture
from planish.models import get
from planish.recipe import passes
from planish.config import decode

torch.set_num_threads(1)
name, options = json.loads(sys.argv[1])
task = get("minilm")()
graph = capture(task.model, task.example_inputs, dynamic=task.dynamic)
size = sum(tensor.nbytes for tensor in {id(tensor): tensor for tensor in graph.tensors.values()}.values())
item = next(iter(task.calibration))
data = [(tuple(part[:16] for part in item[0]), item[1])]
step = decode(passes[name], options, name)
graph(*data[0][0], **data[0][1])


def resident():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmRSS"))


peak, done = [start := resident()], threading.Event()


def watch():
    while not done.wait(0.005):
        peak.append(resident())


watcher = threading.Thread(target=watch)
watcher.start()
small = step(graph, data)
done.set()
watcher.join()
print(json.dumps([size, max(peak) - start]))
"""
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
"""Freed tensors go back to the system at once, so that what is resident is what is in use."""

STEPS = {
    "gptq": ("quantize", {"weights": "int4@g32*float16", "where": "linear", "by": "gptq"}),
    "w8a8": (
        "quantize",
        {"weights": "int8", "activations": "uint8", "where": "linear", "by": "gptq", "correct_bias": True},
    ),
    "sparsegpt": ("prune", {"sparsity": "2:4", "where": "linear", "by": "sparsegpt"}),
}


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize("name", STEPS)
def test_layer_by_layer(name):
    words = [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps(STEPS[name])]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | AT_ONCE)
    size, grown = json.loads(done.stdout.splitlines()[-1])
    assert size > 90e6
    assert grown < 2.5 * size, f"{grown / size:.2f} times the model's size"
