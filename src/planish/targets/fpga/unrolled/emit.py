"""A pipelined circuit as SystemVerilog: a module for each layer, and a top with the streams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from planish.targets.fpga.design import Design, Part
from planish.targets.fpga.operations.base import Value
from planish.targets.fpga.program import Program
from planish.targets.fpga.streams import Stream
from planish.targets.fpga.unrolled.circuit import Bit, Circuit, Clamp, Input, Node, Sum, Table, Word
from planish.targets.fpga.unrolled.pipeline import Pipeline
from planish.targets.fpga.unrolled.share import TABLE_BITS

RTL = Path(__file__).parent.parent / "rtl"
CHAIN = "carry_sum"
UNREAD = "// Synthesis drops the bits of a number that nobody reads.\n// verilator lint_off UNUSEDSIGNAL"


def design(program: Program, circuit: Circuit, cut: Pipeline, title: str = "A model") -> Design:
    """The text of an unrolled program; the same one gives the same text."""
    text = _Text(program, circuit, cut, title)
    files = {"top.sv": text.top()}
    files |= {f"rtl/{name}.sv": text.module(layer) for layer, name in text.names.items()}
    files[f"rtl/{CHAIN}.sv"] = (RTL / f"{CHAIN}.sv").read_text(encoding="utf-8")
    parts = tuple(
        Part(f"u_{name}", name, program.values[layer].path, text.described(layer), 1)
        for layer, name in text.names.items()
    )
    return Design(text.inputs, text.outputs, files, parts, 1, 1000 + 2 * cut.stages)


def streams(values: Iterable[Value]) -> tuple[Stream, ...]:
    """A stream for each value that brings all its numbers at once."""
    return tuple(Stream(each.name, Value(each.name, (each.size,), each.codes, each.path), each.size) for each in values)


@dataclass
class _Text:
    program: Program
    circuit: Circuit
    cut: Pipeline
    title: str

    def __post_init__(self) -> None:
        self.inputs = streams(self.program.inputs)
        self.outputs = streams(self.program.values[name] for name in self.program.outputs)
        self.outside = len(self.circuit.nodes)
        layers = dict.fromkeys(node.layer for node in self.circuit.nodes if not isinstance(node, Input))
        self.names = {layer: f"layer_{layer}" for layer in layers}
        kinds = {Input: "x", Sum: "s", Table: "t", Clamp: "y"}
        self.signals = [f"{kinds[type(node)]}{index}" for index, node in enumerate(self.circuit.nodes)]
        self.readers: list[set[int]] = [set() for _ in self.circuit.nodes]
        for (node, _), readers in self.circuit.readers.items():
            self.readers[node].update(readers)

    def described(self, layer: str) -> str:
        """What a layer is, in a line."""
        own = [node for node in self.circuit.nodes if node.layer == layer]
        counts = {"sums": Sum, "tables": Table, "clamps": Clamp}
        found = [f"{sum(isinstance(node, kind) for node in own)} {name}" for name, kind in counts.items()]
        stages = [self.cut.stage[index] for index, node in enumerate(self.circuit.nodes) if node.layer == layer]
        return f"{', '.join(found)}; stages {min(stages)} to {max(stages)}"

    def module(self, layer: str) -> str:
        """The text of a layer's module."""
        nodes = self.circuit.nodes
        own = [index for index, node in enumerate(nodes) if node.layer == layer and not isinstance(node, Input)]
        taken = self._taken(own)
        given = self._given(layer, own)
        value = self.program.values[layer]
        ports = ["input  logic clk", "input  logic enable"]
        ports += [f"input  {_vector(nodes[index].width)} {self.signals[index]}" for index in taken]
        ports += [f"output {_vector(nodes[index].width)} {self.signals[index]}" for index in given]
        lines = [f"// {layer}{f' of {value.path}' if value.path else ''}: {self.described(layer)}.", "//"]
        lines += ["// A number's comment tells what it is; _q1, _q2, ... is it one, two, ... stages later."]
        lines += [UNREAD, f"module {self.names[layer]} (", ",\n".join(f"    {port}" for port in ports), ");"]
        shown = set(given)
        lines += [f"  {_vector(nodes[index].width)} {self.signals[index]};" for index in own if index not in shown]
        lines += self._registers({index: self._delays(index, own) for index in (*taken, *own)})
        stage = -1
        for index in sorted(own, key=lambda index: (self.cut.stage[index], index)):
            if self.cut.stage[index] != stage:
                stage = self.cut.stage[index]
                lines += ["", f"  // stage {stage}"]
            lines += self._made(index, nodes[index])
        return "\n".join([*lines, "endmodule", ""])

    def _taken(self, own: Sequence[int]) -> list[int]:
        reads = {bit.node for index in own for bit in self.circuit.nodes[index].reads if not bit.constant}
        return sorted(reads - set(own))

    def _given(self, layer: str, own: Sequence[int]) -> list[int]:
        nodes = self.circuit.nodes
        return [
            index
            for index in own
            if any(reader == self.outside or nodes[reader].layer != layer for reader in self.readers[index])
        ]

    def _delays(self, index: int, readers: Iterable[int]) -> int:
        """Stages for which a node's bits are kept for some readers."""
        stages = [self.cut.stage[reader] for reader in set(readers) & self.readers[index]]
        return max(stages, default=self.cut.stage[index]) - self.cut.stage[index]

    def _registers(self, delays: dict[int, int]) -> list[str]:
        lines, moves = [], []
        for index, count in delays.items():
            signal = self.signals[index]
            if count:
                kept = ", ".join(f"{signal}_q{k}" for k in range(1, count + 1))
                lines.append(f"  {_vector(self.circuit.nodes[index].width)} {kept};")
                moves += [
                    f"      {signal}_q{k} <= {signal}{f'_q{k - 1}' if k > 1 else ''};" for k in range(1, count + 1)
                ]
        if moves:
            lines += ["  always_ff @(posedge clk) begin", "    if (enable) begin", *moves, "    end", "  end"]
        return lines

    def _made(self, index: int, node: Node) -> list[str]:
        signal, stage = self.signals[index], self.cut.stage[index]
        note = f"  // {node.note}" if node.note else ""
        match node:
            case Sum():
                inverted = [
                    sum((bit.inverted and not bit.constant) << place for place, bit in enumerate(bits))
                    for bits in (node.a, node.b)
                ]
                carry = node.carry.inverted + (0 if node.carry.constant else 2)
                parameters = [f".N({node.width})"]
                parameters += [
                    f".NOT_{name}({node.width}'h{mask:x})" for name, mask in zip("AB", inverted, strict=True) if mask
                ]
                parameters += [f".CARRY({carry})"] if carry else []
                a, b, c = (
                    self._joined([bit._replace(inverted=False) if not bit.constant else bit for bit in bits], stage)
                    for bits in (node.a, node.b, (node.carry,))
                )
                made = f"  {CHAIN} #({', '.join(parameters)}) u_{signal} (.a({a}), .b({b}), .c({c}), .s({signal}));"
                return [made + note]
            case Table():
                return self._looked_up(node, signal, stage, note)
            case Clamp():
                return self._clamped(node, signal, stage, note)
        raise TypeError(type(node).__name__)

    def _looked_up(self, node: Table, signal: str, stage: int, note: str) -> list[str]:
        """A table as logic: of a case statement or an index yosys would make a memory with registers of its own."""
        low = min(len(node.index), TABLE_BITS)
        lines = [f"  logic [{len(node.index) - 1}:0] {signal}_at;{note}"]
        lines += [f"  assign {signal}_at = {self._joined(node.index, stage)};"]
        names: dict[int, str] = {}

        def chosen(column: int, size: int) -> str:
            """The entry of a column of bits, by the lowest inputs; halves that are the same are made once."""
            if size == low:
                return names.setdefault(column, f"{signal}_{len(names)}")
            half = 1 << size - 1
            ends = chosen(column & (1 << half) - 1, size - 1), chosen(column >> half, size - 1)
            return ends[0] if ends[0] == ends[1] else f"({signal}_at[{size - 1}] ? {ends[1]} : {ends[0]})"

        columns = [sum((entry >> k & 1) << code for code, entry in enumerate(node.entries)) for k in range(node.width)]
        found = [chosen(column, len(node.index)) for column in columns]
        lines += [
            f"  wire {name} = 1'({1 << low}'h{column:x} >> {signal}_at[{low - 1}:0]);" for column, name in names.items()
        ]
        return [*lines, f"  assign {signal} = {{{', '.join(reversed(found))}}};"]

    def _clamped(self, node: Clamp, signal: str, stage: int, note: str) -> list[str]:
        # a bit more holds the bounds too, whatever the word's sign is
        size = len(node.word.bits) + 1
        bits = _extended(node.word, size)
        text = self._joined(bits, stage)
        if node.ties:
            low = f"{self._joined(bits[:1], stage)} & ({self._joined(node.ties, stage)} != {len(node.ties)}'d0)"
            text = f"{{{self._joined(bits[1:], stage)}, {low}}}"
        lines = [f"  logic signed [{size - 1}:0] {signal}_in;", f"  assign {signal}_in = {text};"]
        least = node.word.low & ~1 if node.ties else node.word.low
        kept = f"{signal}_in[{node.width - 1}:0]"
        # by gates, not by choices: of these yosys would make resets of registers, which are few and slow to reach
        for name, beyond, test, bound in (
            ("over", node.word.high > node.high, _over(f"{signal}_in", size, node.high), node.high),
            ("under", least < node.low, _under(f"{signal}_in", size, node.low), node.low),
        ):
            if beyond:
                lines.append(f"  wire {signal}_{name} = {test};")
                mask, full = f"{{{node.width}{{{signal}_{name}}}}}", (1 << node.width) - 1
                ones, zeros = (
                    f"({mask} & {_unsigned(part, node.width)})" if part & full != full else mask
                    for part in (bound, ~bound)
                )
                kept = f"({kept} | {ones})" if bound & full else kept
                kept = f"({kept} & ~{zeros})" if ~bound & full else kept
        return [*lines, f"  assign {signal} = {kept};{note}"]

    def _joined(self, bits: Sequence[Bit], stage: int) -> str:
        """Some bits, lowest first, as an expression, as they are in a stage."""
        parts = []
        runs: list[list[Bit]] = []
        for bit in bits:
            last = runs[-1][-1] if runs else None
            follows = (
                last is not None
                and last.node == bit.node
                and (bit.constant or (last.inverted == bit.inverted and last.place + 1 == bit.place))
            )
            if follows:
                runs[-1].append(bit)
            else:
                runs.append([bit])
        for run in reversed(runs):
            if run[0].constant:
                parts.append(f"{len(run)}'b{''.join(str(int(bit.inverted)) for bit in reversed(run))}")
                continue
            node, start, end = run[0].node, run[0].place, run[-1].place
            late = stage - self.cut.stage[node]
            text = self.signals[node] + (f"_q{late}" if late else "")
            if end - start + 1 < self.circuit.nodes[node].width:
                text += f"[{end}:{start}]" if end > start else f"[{start}]"
            parts.append(f"~{text}" if run[0].inverted else text)
        return parts[0] if len(parts) == 1 else f"{{{', '.join(parts)}}}"

    def top(self) -> str:
        """The text of top.sv."""
        ports = ["input  logic clk", "input  logic rst"]
        for stream in self.inputs:
            ports += [f"input  logic {stream.name}_valid", f"output logic {stream.name}_ready"]
            ports += [f"input  {_vector(stream.width)} {stream.name}_data"]
        for stream in self.outputs:
            ports += [f"output logic {stream.name}_valid", f"input  logic {stream.name}_ready"]
            ports += [f"output {_vector(stream.width)} {stream.name}_data"]
        stages = self.cut.stages
        lines = [f"// {self.title}, unrolled by Planish: a sample goes in and one comes out each cycle.", "//"]
        lines += [f"// Latency {stages + 1} cycles, {self.cut.registers} bits of registers."]
        lines += [UNREAD, "module top (", ",\n".join(f"    {port}" for port in ports), ");"]
        lines += [f"  logic [{stages}:0] valid;  // which stages hold a sample"]
        lines += self._doors()
        nodes = self.circuit.nodes
        for index, node in enumerate(nodes):
            if isinstance(node, Input) or any(
                reader == self.outside or nodes[reader].layer != node.layer for reader in self.readers[index]
            ):
                lines.append(f"  {_vector(node.width)} {self.signals[index]};")
        lines += ["", "  always_ff @(posedge clk) begin", "    if (enable) begin"]
        for index, node in enumerate(nodes):
            if isinstance(node, Input):
                codes = self.program.values[node.name].codes
                data = f"{node.name}_data[{node.lane * codes.bits}+:{codes.bits}]"
                lines.append(f"      {self.signals[index]} <= {data};")
        lines += ["    end", "  end"]
        for layer, name in self.names.items():
            own = [index for index, node in enumerate(nodes) if node.layer == layer and not isinstance(node, Input)]
            wires = ["clk", "enable", *(self.signals[index] for index in (*self._taken(own), *self._given(layer, own)))]
            lines += ["", f"  // {self.described(layer)}", f"  {name} u_{name} (.{', .'.join(wires)});"]
        lines += ["", *self._results()]
        return "\n".join([*lines, "endmodule", ""])

    def _doors(self) -> list[str]:
        """The handshake: everything moves unless a result waits."""
        ins, outs = [each.name for each in self.inputs], [each.name for each in self.outputs]
        last = f"valid[{self.cut.stages}]"
        lines = []
        if len(outs) == 1:
            lines += [f"  wire enable = !{last} || {outs[0]}_ready;", f"  assign {outs[0]}_valid = {last};"]
        else:
            gone = ", ".join(f"{name}_gone" for name in outs)
            free = " && ".join(f"({name}_ready || {name}_gone)" for name in outs)
            lines += [f"  logic {gone};  // results that were taken before the others"]
            lines += [f"  wire enable = !{last} || ({free});"]
            lines += [f"  assign {name}_valid = {last} && !{name}_gone;" for name in outs]
            lines += ["  always_ff @(posedge clk) begin"]
            lines += [
                f"    {name}_gone <= !rst && !enable && ({name}_gone || ({name}_valid && {name}_ready));"
                for name in outs
            ]
            lines += ["  end"]
        for name in ins:
            others = "".join(f" && {other}_valid" for other in ins if other != name)
            lines.append(f"  assign {name}_ready = enable{others};")
        taken = " && ".join(f"{name}_valid" for name in ins) or "1'b1"
        lines += ["  always_ff @(posedge clk) begin", "    if (rst) valid <= '0;"]
        lines += [f"    else if (enable) valid <= {{valid[{self.cut.stages - 1}:0], {taken}}};", "  end"]
        return lines

    def _results(self) -> list[str]:
        words = [(stream, self.circuit.outputs[stream.name]) for stream in self.outputs]
        read = dict.fromkeys(bit.node for _, each in words for word in each for bit in word.bits if not bit.constant)
        delays = {index: self.cut.stages - 1 - self.cut.stage[index] for index in read}
        lines = self._registers(delays)
        lines += ["  always_ff @(posedge clk) begin", "    if (enable) begin"]
        for stream, each in words:
            bits = [bit for word in each for bit in _extended(word, stream.value.codes.bits)]
            step = stream.value.codes.bits
            for lane in range(len(each)):
                text = self._joined(bits[lane * step : (lane + 1) * step], self.cut.stages - 1)
                lines.append(f"      {stream.name}_data[{lane * step}+:{step}] <= {text};")
        return [*lines, "    end", "  end"]


def _extended(word: Word, size: int) -> tuple[Bit, ...]:
    top = word.bits[-1] if word.signed else Bit(-1, 0)
    return (*word.bits, *((top,) * (size - len(word.bits))))


def _over(text: str, size: int, high: int) -> str:
    """Whether a signed word is above a bound."""
    if high >= 0 and high & high + 1 == 0:
        return f"!{text}[{size - 1}] && |{text}[{size - 2}:{high.bit_length()}]"
    return f"{text} > {_signed(high, size)}"


def _under(text: str, size: int, low: int) -> str:
    """Whether a signed word is below a bound."""
    if low == 0:
        return f"{text}[{size - 1}]"
    if low < 0 and -low & -low - 1 == 0:
        return f"{text}[{size - 1}] && !(&{text}[{size - 2}:{(-low).bit_length() - 1}])"
    return f"{text} < {_signed(low, size)}"


def _vector(width: int) -> str:
    return f"logic [{width - 1}:0]"


def _signed(number: int, width: int) -> str:
    return f"-{width}'sd{-number}" if number < 0 else f"{width}'sd{number}"


def _unsigned(number: int, width: int) -> str:
    return f"{width}'d{number & (1 << width) - 1}"
