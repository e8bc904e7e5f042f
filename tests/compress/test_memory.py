"""Compressing takes at most 2.5 times the model's fp32 size above the loaded model, whatever the technique."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys, threading, time
import torch
from torch import nn
from planish.frontends import capture
from planish.recipe import Recipe, passes
from planish.config import decode

torch.set_num_threads(1)
name, options = json.loads(sys.argv[1])
torch.manual_seed(0)
blocks = [nn.Sequential(nn.LayerNorm(384), nn.Linear(384, 1536), nn.GELU(), nn.Linear(1536, 384)) for _ in range(8)]
graph = capture(nn.Sequential(*blocks).eval(), (torch.randn(2, 384),), dynamic={"input": {0: "batch"}})
size = sum(tensor.numel() * tensor.element_size() for tensor in graph.tensors.values())
data = [((torch.randn(64, 384),), {}) for _ in range(4)]
step = decode(passes[name], options, name)
warm = capture(nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)).eval(), (torch.randn(2, 64),))
step(warm, [((torch.randn(64, 64),), {})])


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

STEPS = {
    "gptq": ("quantize", {"weights": "int4@g32*float16", "by": "gptq"}),
    "w8a8": ("quantize", {"weights": "int8", "activations": "uint8", "by": "gptq", "correct_bias": True}),
    "sparsegpt": ("prune", {"sparsity": "2:4", "by": "sparsegpt"}),
}


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize("name", STEPS)
def test_layer_by_layer(name):
    words = [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps(STEPS[name])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    size, grown = json.loads(done.stdout.splitlines()[-1])
    assert size > 37e6
    assert grown < 2.5 * size, f"{grown / size:.2f} times the model's size"
