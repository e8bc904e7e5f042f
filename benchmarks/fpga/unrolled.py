"""Claim: an unrolled network takes fewer LUTs than alkaid's, and a faster clock with no more flip-flops.

    python -m benchmarks.fpga.unrolled --work FOLDER

Networks, trained on the digits with their casts, become integer weights; from these Planish and alkaid 0.8
(LGPL-3, in an environment of its own) each make Verilog, which goes through one flow: yosys, then nextpnr with the same
seeds. alkaid cuts its pipeline at two delays, with adders of two or of three operands, whichever takes fewer LUTs here;
Planish cuts its own for the fastest clock that takes no more flip-flops. Both are simulated on the same vectors and
compared with the integer program. Seconds are a processor's, which a busy machine does not change. A run that is killed
goes on where it was; the result goes to benchmarks/results/fpga/unrolled.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import planish
from planish.compress import Quantize
from planish.formats import fixed
from planish.models import digits
from planish.models.mlp import MLP
from planish.record import environment
from planish.targets.fpga.lower import lower
from planish.targets.fpga.prepare import Prepare
from planish.targets.fpga.program import Integers, Linear, Program, Requantize
from planish.targets.fpga.toolchain import tools
from planish.targets.fpga.toolchain.route import route
from planish.targets.fpga.toolchain.simulate import simulate
from planish.targets.fpga.toolchain.synthesize import Synthesis, synthesize
from planish.targets.fpga.unrolled.circuit import Circuit
from planish.targets.fpga.unrolled.emit import design
from planish.targets.fpga.unrolled.pipeline import pipeline
from planish.targets.fpga.unrolled.unroll import unroll
from planish.training import Training

RESULTS = Path(__file__).parents[1] / "results" / "fpga"
BARS = {"lut": 0.95, "ff": 1.0, "fmax": 1.2, "seconds": 5.0}  # ratios, the third at least; seconds of our generation
CLOCK = 150.0  # MHz that both are mapped and placed for
VECTORS = 10_000
CUTOFFS = (2, 5)
PEER = ("alkaid==0.8.2", "numpy<2.6")
PERIODS = [period / 100 for period in range(420, 2001, 20)]  # ns

_PEER = """
import json, sys, time
import numpy as np
from alkaid.codegen import RTLModel
from alkaid.trace import FVArrayInput, trace

spec, cutoff, ternary, folder = json.load(open(sys.argv[1])), float(sys.argv[2]), sys.argv[3] == "3", sys.argv[4]
begin = time.process_time()
inputs = FVArrayInput(spec["inputs"])
numbers = inputs.quantize(0, spec["bits"], 0)
for layer in spec["layers"]:
    numbers = numbers @ np.array(layer["weight"], float).T + np.array(layer["bias"], float)
    signed, bits, scale = layer["signed"], layer["bits"], 2.0 ** -layer["shift"]
    numbers = (numbers * scale).quantize(signed, bits - signed, 0, "SAT", "RND")
model = RTLModel(trace(inputs, numbers), folder, "net", latency_cutoff=cutoff, ternary_fuse=ternary)
model.write()
seconds = time.process_time() - begin
model.compile(openmp=False, nproc=1)
np.save(folder + "/outputs.npy", model.predict(np.load(spec["vectors"]).astype(float), n_threads=1))
json.dump({"seconds": seconds, "latency": model.latency}, open(folder + "/told.json", "w"))
"""


@dataclass(frozen=True)
class Network:
    """What is unrolled.

    Attributes:
        widths: Of the layers.
        bits: Of weights and activations.
        seeds: Of the placements; the larger networks take minutes for each.
        adders: Operands of alkaid's adders; those of three took 9 to 18 % more LUTs wherever they were tried.
        inputs: Bits of the inputs.
    """

    widths: tuple[int, ...]
    bits: int
    seeds: tuple[int, ...]
    adders: tuple[int, ...] = (2, 3)
    inputs: int = 4

    @property
    def name(self) -> str:
        """For people."""
        return f"{'-'.join(map(str, self.widths))} in {self.bits} bits"

    @property
    def folder(self) -> str:
        """Of what is done with it."""
        return self.name.replace(" ", "-")

    def data(self, split: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Digits: the pixels that vary most, and as many classes as there are outputs."""
        x, y = digits.digits(split)
        pixels = digits.digits("train")[0].var(0).topk(self.widths[0]).indices.sort().values
        return x[y < self.widths[-1]][:, pixels], y[y < self.widths[-1]]


NETWORKS = (
    Network((64, 16, 10), 4, (1, 2, 3)),
    Network((13, 29, 17, 6), 6, (1,), (2,)),
    Network((64, 32, 32, 10), 4, (1,), (2,)),
    Network((64, 32, 32, 10), 6, (1,), (2,)),
)


def main() -> None:
    """Build both, measure both, write the result, print it."""
    parser = argparse.ArgumentParser(prog="benchmarks.fpga.unrolled")
    parser.add_argument("--work", type=Path, help="where to keep what was done; left out, nothing is kept")
    parser.add_argument("--alkaid", help="a Python that has alkaid; left out, an environment is made")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", type=int, nargs="*", default=range(len(NETWORKS)), help="which networks, from 0 on")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        python = options.alkaid or _environment(work / "alkaid")
        networks = [NETWORKS[index] for index in options.only]
        for network in networks:
            found = synthesized(network, work / network.folder, python)
            _keep(options.results, network, found)
        for network in networks:
            found = _kept(options.results)[network.name]
            for each in found["comparisons"]:
                routed(each, work / network.folder, network.seeds)
                _keep(options.results, network, found)
    _print(_kept(options.results))


def synthesized(network: Network, place: Path, python: str) -> dict[str, Any]:
    """What the result holds of a network, without clocks."""
    place.mkdir(exist_ok=True)
    program, accuracy = _program(network)
    codes = np.random.default_rng(0).integers(0, 1 << network.inputs, (VECTORS, network.widths[0]))
    expected = program.run(codes)[0]
    begin = time.process_time()
    circuit = unroll(program)
    sharing = time.process_time() - begin
    comparisons = []
    for cutoff in CUTOFFS:
        sides = [_theirs(place, network, program, python, cutoff, adder, codes, expected) for adder in network.adders]
        theirs, *others = sorted(sides, key=lambda each: each["lut"])
        ours = _ours(place, program, circuit, sharing, theirs["ff"], codes, expected)
        ratios = {name: ours[name] / theirs[name] for name in ("lut", "ff")}
        other = [{name: each[name] for name in ("adders", "lut", "ff")} for each in others]
        comparisons.append(
            {"cutoff": cutoff, "ours": ours, "alkaid": theirs, "alkaid otherwise": other, "ratios": ratios}
        )
    nonzero = sum(int(np.count_nonzero(each.weight)) for each in program.operations if isinstance(each, Linear))
    counts = {"accuracy": accuracy, "weights that are not zero": nonzero}
    return {**counts, "seeds": network.seeds, "comparisons": comparisons}


def routed(comparison: dict[str, Any], place: Path, seeds: tuple[int, ...]) -> None:
    """Add the clocks to a comparison, and whether all bars are met."""
    ours, ratios = comparison["ours"], comparison["ratios"]
    for side in ("alkaid", "ours"):
        folder = place / comparison[side]["folder"]
        placed = route(Synthesis.load(folder / "synthesis"), folder / "route", clock=CLOCK, seeds=seeds)
        clocks = {"fmax": placed.median, "fmax of each seed": placed.fmax, "comb": placed.used["TRELLIS_COMB"]}
        comparison[side] |= {**clocks, "behind shift registers": placed.shifted}
    ratios["fmax"] = ours["fmax"] / comparison["alkaid"]["fmax"]
    met = ratios["lut"] <= BARS["lut"] and ratios["ff"] <= BARS["ff"] and ratios["fmax"] >= BARS["fmax"]
    comparison["met"] = met and ours["seconds"] <= BARS["seconds"]


def _kept(results: Path) -> dict[str, Any]:
    """The networks of the result file."""
    file = results / "unrolled.json"
    return json.loads(file.read_text(encoding="utf-8"))["networks"] if file.exists() else {}


def _keep(results: Path, network: Network, found: Mapping[str, Any]) -> None:
    """Put a network into the result file."""
    result = {
        "problem": {"device": "ecp5-85k", "speed": 6, "clock": CLOCK, "vectors": VECTORS},
        "environment": {
            **environment(seed=0, command="python -m benchmarks.fpga.unrolled"),
            "tools": tools.versions(*tools.PIP),
            "peer": PEER[0],
        },
        "bars": BARS,
        "networks": {**_kept(results), network.name: found},
    }
    results.mkdir(parents=True, exist_ok=True)
    (results / "unrolled.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _program(network: Network) -> tuple[Program, float]:
    """The network as integers, trained in floats and then with its casts, and its accuracy."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x, y = network.data("train")
    items = [((a,), {}, b) for a, b in zip(x.split(50), y.split(50), strict=True)]
    model = MLP(network.widths)
    planish.train(model, items, Training(epochs=30, learning_rate=3e-3))
    model.eval()
    casts = [_weights(layer, network.bits, index) for index, layer in enumerate(model.layers)]
    inputs = Quantize(None, f"uint{network.inputs}", where="path('layers.0')")
    graph = planish.capture(model, (x[:2],), dynamic={"x": {0: "batch"}}, training=True)
    recipe = planish.Recipe(
        *casts, inputs, Quantize(None, f"uint{network.bits}"), Prepare(network.bits, rounding="halfup")
    )
    prepared = recipe(graph, data=[((a,), {}) for a in network.data("calibration")[0].split(50)])
    trained = planish.train(prepared, items, Training(epochs=30, learning_rate=1e-3))
    program = lower(trained)
    images, labels = network.data("evaluation")
    scores = program.decode(*program.run(*program.encode(images.numpy())))[0]
    return program, float((torch.as_tensor(scores).argmax(1) == labels).float().mean())


def _weights(layer: nn.Module, bits: int, index: int) -> Quantize:
    """Signed fixed point that holds all but the rarest weights of a layer."""
    weight = layer.get_parameter("weight").detach().abs().flatten()
    whole = math.ceil(math.log2(float(torch.quantile(weight, 0.995))))
    return Quantize(fixed(whole, bits - 1 - whole), None, where=f"path('layers.{index}')")


def _ours(
    place: Path, program: Program, circuit: Circuit, sharing: float, registers: int, codes: Integers, expected: Integers
) -> dict[str, Any]:
    """Planish's circuit, cut for the fastest clock with no more flip-flops than those."""
    for period in PERIODS:
        try:
            begin = time.process_time()
            cut = pipeline(circuit, period)
        except planish.PlanishError:  # faster than one addition
            continue
        if cut.registers + cut.stages + 1 <= registers:
            break
    else:
        raise planish.PlanishError(f"no clock needs only {registers} flip-flops")
    made = design(program, circuit, cut)
    seconds = sharing + time.process_time() - begin
    simulations = [simulate(made, [codes], stall=stall) for stall in (0, 30)]
    for each in simulations:
        assert np.array_equal(each.outputs[0].reshape(expected.shape), expected), "the hardware computes something else"
    folder = place / f"ours-{period:g}"
    for name, text in made.files.items():
        (folder / "design" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "design" / name).write_text(text)
    details = {"seconds": seconds, "period": period, "stages": cut.stages, "interval": simulations[0].interval}
    return {**details, "latency": simulations[0].latency, **_measured(folder, "top")}


def _theirs(
    place: Path,
    network: Network,
    program: Program,
    python: str,
    cutoff: int,
    adders: int,
    codes: Integers,
    expected: Integers,
) -> dict[str, Any]:
    """alkaid's circuit of the same weights."""
    folder = place / f"alkaid-{cutoff}-{adders}"
    if not (folder / "told.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        np.save(place / "vectors.npy", codes)
        spec = {"inputs": network.widths[0], "bits": network.inputs, "layers": _layers(program)}
        (place / "spec.json").write_text(json.dumps({**spec, "vectors": str(place.resolve() / "vectors.npy")}))
        path = tools.verilator_on_path(place / "tools")
        command = [python, "-c", _PEER, str(place / "spec.json"), str(cutoff), str(adders), str(folder)]
        subprocess.run(command, check=True, env={**os.environ, **path}, stdout=subprocess.DEVNULL)
    outputs = np.load(folder / "outputs.npy").reshape(expected.shape)
    assert np.array_equal(outputs, expected), "alkaid computes something else"
    (folder / "design").mkdir(exist_ok=True)
    for file in (folder / "src").rglob("*.v"):
        if file.name != "net_wrapper.v":
            shutil.copy(file, folder / "design" / f"{file.stem}.sv")
    told = json.loads((folder / "told.json").read_text())
    return {**told, "adders": adders, **_measured(folder, "net")}


def _layers(program: Program) -> list[Mapping[str, Any]]:
    """Sums and their rounding, in turn."""
    found = []
    for linear, rounded in zip(program.operations[::2], program.operations[1::2], strict=True):
        assert isinstance(linear, Linear)
        assert isinstance(rounded, Requantize)
        assert linear.bias is not None
        assert rounded.rounding == "up"
        assert np.all(rounded.multiplier == 1)
        codes = rounded.output.codes
        bias = np.broadcast_to(linear.bias, len(linear.weight))
        numbers = {"weight": linear.weight.tolist(), "bias": bias.tolist()}
        found.append({**numbers, "shift": rounded.shift, "bits": codes.bits, "signed": int(codes.signed)})
    return found


def _measured(folder: Path, top: str) -> dict[str, Any]:
    """What a folder's design takes of an ECP5."""
    used = synthesize(folder / "design", folder / "synthesis", top=top, clock=CLOCK).total
    return {"folder": folder.name, "lut": used.lut, "lut4": used.lut4, "ccu2c": used.ccu2c, "ff": used.ff}


def _environment(folder: Path) -> str:
    """A Python of its own with alkaid."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEER], check=True)
    return str(python)


def _print(found: Mapping[str, Any]) -> None:
    for name, network in found.items():
        print(f"{name}, {network['accuracy']:.1%} right")
        for each in network["comparisons"]:
            ours, theirs, ratios = each["ours"], each["alkaid"], each["ratios"]
            clock = "not placed"
            if "met" in each:
                clock = f"MHz {ours['fmax']:.0f} / {theirs['fmax']:.0f} = {ratios['fmax']:.2f}"
                clock += ": met" if each["met"] else ": NOT met"
            print(
                f"  cutoff {each['cutoff']}, adders of {theirs['adders']}: LUT {ours['lut']} / {theirs['lut']} = "
                f"{ratios['lut']:.2f}, FF {ours['ff']} / {theirs['ff']} = {ratios['ff']:.2f}, "
                f"made in {ours['seconds']:.1f} / {theirs['seconds']:.1f} s, {clock}"
            )


if __name__ == "__main__":
    main()
