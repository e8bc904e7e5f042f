"""The folder that a stranger takes away: the design, a testbench with vectors, a Makefile and a README."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from planish.targets.fpga.design import Design
from planish.targets.fpga.program import Integers
from planish.targets.fpga.streams import Stream
from planish.targets.fpga.toolchain.stage import stage

TESTBENCH = Path(__file__).parent / "testbench"


def write(
    design: Design, folder: Path, inputs: Sequence[Integers], outputs: Sequence[Integers], title: str = "A model"
) -> Path:
    """Write the folder whole or not at all; the same design gives the same files.

    Args:
        design: The design.
        folder: Where to. A folder that this function wrote is replaced.
        inputs: Codes `(samples, *shape)` of each input, for the testbench.
        outputs: What must come out.
        title: First words of top.sv and the README.

    Raises:
        UserError: The folder is there and is something else.
    """
    texts = dict(design.files)
    beats = {}
    for stream, codes in zip((*design.inputs, *design.outputs), (*inputs, *outputs), strict=True):
        lines = hexadecimal(stream, codes)
        texts[f"testbench/vectors/{stream.name}.hex"] = "".join(lines)
        beats[stream.name] = len(lines)
    for name in ("source", "sink"):
        texts[f"testbench/{name}.sv"] = (TESTBENCH / f"{name}.sv").read_text(encoding="utf-8")
    texts["testbench/top_test.sv"] = testbench(design, beats)
    texts["Makefile"] = _MAKEFILE
    texts["README.md"] = readme(design, title, len(inputs[0]))

    def make(draft: Path) -> None:
        for name, text in texts.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_text(text, encoding="utf-8")

    return stage(folder, hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest(), make)


def hexadecimal(stream: Stream, codes: Integers) -> list[str]:
    """A line for each beat of `(samples, *shape)` codes."""
    words = stream.pack(np.asarray(codes))[:, ::-1].astype(">u4")
    digits = -(-stream.width // 4)
    return [row.tobytes().hex()[-digits:] + "\n" for row in words]


def testbench(design: Design, beats: dict[str, int]) -> str:
    """The text of top_test.sv.

    Args:
        design: The design.
        beats: Of the vectors of each port.
    """
    lines = [
        "// Sends the vectors through the design with random pauses at every port, and compares what comes out.",
        "module top_test;",
        "  logic clk = 1'b0, rst = 1'b1;",
        "  always #5 clk = !clk;",
        "",
    ]
    for kind, streams in (("source", design.inputs), ("sink", design.outputs)):
        side = "out" if kind == "source" else "in"
        for stream in streams:
            name, count = stream.name, beats[stream.name]
            lines += [f"  logic {name}_valid, {name}_ready;", f"  logic [{stream.width - 1}:0] {name}_data;"]
            lines += [f"  int {name}_taken, {name}_wrong;"] if kind == "sink" else []
            lines += [
                f"  {kind} #(",
                f'      .WIDTH({stream.width}), .BEATS({count}), .FILE("testbench/vectors/{name}.hex")',
                f"  ) {name}_{kind} (",
                f"      .clk, .rst, .{side}_valid({name}_valid), .{side}_ready({name}_ready),",
                f"      .{side}_data({name}_data)"
                + (f", .taken({name}_taken), .wrong({name}_wrong)" if kind == "sink" else ""),
                "  );",
                "",
            ]
    taken = " && ".join(f"{each.name}_taken == {beats[each.name]}" for each in design.outputs)
    wrong = " + ".join(f"{each.name}_wrong" for each in design.outputs)
    total = sum(beats[each.name] for each in design.outputs)
    patience = 10 * design.patience
    return "\n".join(
        [
            *lines,
            "  top dut (.*);",
            "",
            "  // Ends with the last beat, or when none has come for long.",
            "  int quiet = 0, seen = 0, now;",
            f"  assign now = {' + '.join(f'{each.name}_taken' for each in design.outputs)};",
            "  initial begin",
            "    repeat (4) @(posedge clk);",
            "    rst <= 1'b0;",
            f"    while (!({taken}) && quiet < {patience}) begin",
            "      @(posedge clk);",
            "      quiet = now == seen ? quiet + 1 : 0;",
            "      seen  = now;",
            "    end",
            f'    if (now < {total}) $fatal(1, "stuck after %0d of {total} beats", now);',
            f'    if ({wrong} != 0) $fatal(1, "%0d of {total} beats are wrong", {wrong});',
            f'    $display("all {total} beats are right");',
            "    $finish;",
            "  end",
            "endmodule",
            "",
        ]
    )


def readme(design: Design, title: str, samples: int) -> str:
    """The text of README.md."""
    rows = []
    for stream in (*design.inputs, *design.outputs):
        codes = stream.value.codes
        kind = f"{'signed' if codes.signed else 'unsigned'} {codes.bits} bits"
        rows.append(
            f"| `{stream.name}` | {'in' if stream in design.inputs else 'out'} | {_sizes(stream)} | {kind} "
            f"| {f'code * 2**{-codes.frac}' if codes.frac else 'code'} | {stream.lanes} | {stream.beats} |"
        )
    parts = [f"| `{part.name}` | `{part.module}` | {part.comment or 'connects'} |" for part in design.parts]
    return _README.format(
        title=title, ports="\n".join(rows), parts="\n".join(parts), samples=samples, interval=design.interval
    )


def _sizes(stream: Stream) -> str:
    return " × ".join(map(str, stream.value.shape)) or "1"


_MAKEFILE = """\
# make simulate     the testbench, in Verilator 5
# make lint         what Verilator says of the design
# make bitstream    yosys (with slang), nextpnr-ecp5 and ecppack; DEVICE, PACKAGE and CLOCK (MHz) as below
VERILATOR ?= verilator
DEVICE ?= 85k
PACKAGE ?= CABGA756
CLOCK ?= 100
CELLS ?= $(shell yosys-config --datdir)/lattice/cells_bb_ecp5.v
SOURCES = $(wildcard rtl/*.sv) top.sv

simulate: build/top_test
\t./build/top_test

build/top_test: $(SOURCES) $(wildcard testbench/*.sv)
\t$(VERILATOR) --binary --timing -CFLAGS -std=c++20 -Wno-fatal --top-module top_test -Mdir build -o top_test $^

lint:
\t$(VERILATOR) --lint-only -Wall --top-module top $(SOURCES)

build/design.json: $(SOURCES) $(wildcard memories/*.hex)
\tmkdir -p build
\tyosys -p "read_slang -D ECP5 --top top -v $(CELLS) $(SOURCES); synth_ecp5 -top top -json $@"

build/top.config: build/design.json
\tnextpnr-ecp5 --$(DEVICE) --package $(PACKAGE) --speed 6 --freq $(CLOCK) --json $< --textcfg $@

bitstream: build/top.config
\tecppack $< build/top.bit

clean:
\trm -rf build

.PHONY: simulate lint bitstream clean
"""

_README = """\
# {title}

SystemVerilog, written by Planish. It computes what the model computes, on integers, bit for bit.

| port | | numbers | each | stands for | in a beat | beats |
|---|---|---|---|---|---|---|
{ports}

One clock `clk`; `rst` is synchronous and active high. A port is a stream of beats: `_valid`, `_ready`, `_data`. A beat
moves at a rising edge at which both `_valid` and `_ready` are high; once valid, it stays as it is until it is taken.
Numbers come in row-major order, channels last, several in a beat along the last axis, the first in the low bits; the
last beat of a row is filled up with zeros. Samples follow each other without a gap.

## Files

- `top.sv`: the blocks and what connects them; `rtl/`: a block a file, its ports and timing in its first lines
- `memories/`: weights and tables, read by `$readmemh`, paths relative to this folder
- `testbench/`: `top_test.sv` sends the {samples} samples of `vectors/` through it and compares

## Use

`make simulate`, `make lint` and `make bitstream` need Verilator, and yosys with nextpnr-ecp5, on the PATH.

In Vivado, from this folder (not tried by Planish, which uses open tools only):

```tcl
read_verilog -sv [glob rtl/*.sv] top.sv
synth_design -top top -part xcku5p-ffvb676-2-e
```

Run it here: the memories are found from the folder in which the tool is started. Without the macro `ECP5`, multipliers
are plain `*` with registers around it, which each vendor's tool maps to its own blocks.

## Blocks

A sample every {interval} cycles.

| instance | module | |
|---|---|---|
{parts}
"""
