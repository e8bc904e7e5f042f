"""`planish formats [show | compare]`: the number formats, their codes, and what they lose."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planish.cli.console import console, escape, suggest, table
from planish.errors import DataError, OptionError, UnknownName

if TYPE_CHECKING:
    from torch import Tensor

    from planish.formats import Format

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None, add_completion=False)
Name = Annotated[str, typer.Argument(metavar="FORMAT", help="A name, or a text form such as int4@g32*float16.")]

BARS = " ▁▂▃▄▅▆▇█"
BINS = 48
LISTED = 10
"""Bits up to which every code is shown."""
COUNT = 1 << 18
"""Numbers drawn of a distribution."""
SHAPES = ("normal", "laplace", "uniform", "student")


@app.callback()
def formats(context: typer.Context) -> None:
    """List the number formats that have a name; any text form works as well.

    \b
    planish formats show e4m3
    planish formats compare mxfp4 nvfp4 --on normal
    """
    if context.invoked_subcommand is None:
        _list()


def _list() -> None:
    from planish.formats import FORMATS, Lut
    from planish.formats.facts import facts

    rows = []
    for name in FORMATS:
        known = facts(name)
        error = "" if known.relative_error is None else f"{known.relative_error:.2%}"
        reach, step = f"{known.lowest:.5g} to {known.highest:.5g}", f"{known.step:.3g}"
        if isinstance(FORMATS[name].element, Lut):
            reach, step = f"{FORMATS[name].element.count} learned numbers", ""
        rows.append([name, f"{known.bits_per_value:.4g}", reach, step, error, known.source])
    heads = ["format", "bits", "range", "step", "error", "defined by"]
    console.print(table(heads, rows, right=(1, 3, 4)))
    console.print(
        "\nbits a value with its share of the scales; range and smallest step in units of the scale; largest relative "
        "error of numbers above half the range",
        style="dim",
    )
    suggest("planish formats show mxfp4")


@app.command()
def show(name: Name) -> None:
    """Show a format: its figures, and every code with the number it stands for.

    \b
    planish formats show e4m3
    planish formats show 'e2m1@g16*e4m3'
    """
    from planish.formats import Lut, get
    from planish.formats.facts import facts

    form, known = get(name), facts(name)
    unit, learned = " × scale" if known.scaled else "", isinstance(form.element, Lut)
    console.print(f"[bold]{escape(name)}[/]" + ("" if known.text == name else f"  {escape(known.text)}"))
    rows = [
        ["bits of a code", str(known.bits)],
        ["bits a value", f"{known.bits_per_value:.6g}"],
        ["numbers", f"{2**form.element.bits}, learned from the tensor" if learned else ""],
        ["range", "" if learned else f"{known.lowest:.9g} to {known.highest:.9g}{unit}"],
        ["smallest positive", "" if learned else f"{known.smallest:.9g}{unit}"],
        ["smallest step", "" if learned else f"{known.step:.9g}{unit}"],
        ["largest relative error", "" if known.relative_error is None else f"{known.relative_error:.4%}"],
        ["parameters", ", ".join(f"{level} {element}" for level, element in _levels(form)) or "none"],
        ["defined by", known.source],
    ]
    console.print(table(["", ""], [row for row in rows if row[1]]))
    if form.element.bits > LISTED:
        console.print(f"\n2^{form.element.bits} codes, too many to list", style="dim")
        return
    if not learned:
        console.print()
        console.print(_codes(form))
    suggest(f"planish formats compare {name} int8 --on normal")


def _levels(form: Format) -> list[tuple[str, str]]:
    from planish.formats.text import write_element

    return [(level, write_element(element)) for level, element in form.levels]


def _codes(form: Format) -> Any:
    """All codes, a few columns of them, in the order of their bit patterns."""
    import torch

    element, bits = form.element, form.element.bits
    values = element.grid.tolist()
    patterns = element.to_codes(torch.tensor(values, dtype=torch.float64)).long().tolist()
    if len(values) == 2**bits and element.code_dtype == torch.uint8:
        patterns = list(range(2**bits))  # NaN and the zeros each have a pattern of their own
    listed = sorted((pattern & (2**bits - 1), value) for pattern, value in zip(patterns, values, strict=True))
    columns = min(3, max(1, len(listed) // 8))
    high = math.ceil(len(listed) / columns)
    rows = []
    for place in range(high):
        row: list[str] = []
        for pattern, value in listed[place::high]:
            row += [_pattern(form, pattern), f"{value:.9g}"]
        rows.append(row)
    return table(["code", "number"] * columns, rows, right=range(1, 2 * columns, 2), whole=range(2 * columns))


def _pattern(form: Format, code: int) -> str:
    """The bits of a code, parted into sign, exponent and mantissa where it has them."""
    from planish.formats import Float, Pow2

    bits = f"{code:0{form.element.bits}b}"
    if isinstance(form.element, Float):
        cut = 1 + form.element.exponent
        return f"{bits[0]} {bits[1:cut]} {bits[cut:]}"
    return f"{bits[0]} {bits[1:]}" if isinstance(form.element, Pow2) and form.element.signed else bits


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(metavar="FORMAT...", help="Two formats or more; or one.")],
    on: Annotated[
        str, typer.Option("--on", metavar="NUMBERS", help="normal, laplace, uniform, student, a file, or MODEL:TENSOR.")
    ] = "normal",
    seed: Annotated[int, typer.Option(help="Of the distribution.")] = 0,
) -> None:
    """Compare what formats lose on the same numbers, with a histogram of their errors.

    \b
    planish formats compare mxfp4 nvfp4 nf4 --on normal
    planish formats compare int8 e4m3 --on minilm:encoder.encoder.layer.0.attention.self.query.weight
    planish formats compare int4@g32 int4@channel0 --on weights.safetensors:fc.weight
    planish formats compare int8 'int8@g32*float16' --on activations.npy
    """
    from planish.formats import get
    from planish.formats.facts import bits_per_value
    from planish.formats.loss import loss

    forms = {name: get(name) for name in names}
    x, told = _numbers(on, seed)
    losses = {name: loss(x, form) for name, form in forms.items()}
    rows = []
    for name, found in losses.items():
        sqnr = f"{found.sqnr:.2f}" if math.isfinite(found.sqnr) else "exact"
        ulps = "" if found.mean_ulps is None else f"{found.mean_ulps:.3f}"
        shares = [f"{share:.2%}" if share else "" for share in (found.saturated, found.vanished)]
        figures = [f"{bits_per_value(forms[name]):.4g}", sqnr, f"{found.rms:.3g}", f"{found.largest:.3g}", ulps]
        rows.append([name, *figures, *shares])
    console.print(escape(told), style="dim", whole=True)
    heads = ["format", "bits", "SQNR dB", "rms", "largest", "ulps", "beyond", "to zero"]
    console.print(table(heads, rows, right=range(1, 8)))
    console.print()
    for line in _histograms(losses):
        console.print(line)


def _numbers(on: str, seed: int) -> tuple[Tensor, str]:
    """The numbers that `--on` means, and a line that says what they are.

    Raises:
        OptionError: It is neither a distribution nor a file nor MODEL:TENSOR.
    """
    import torch

    if on in SHAPES:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(COUNT // 256, 256, generator=generator)
        if on == "laplace":
            x *= (-2 * torch.rand(x.shape, generator=generator).clamp_min(1e-30).log()).sqrt()
        elif on == "uniform":
            x = torch.rand(x.shape, generator=generator) * 2 - 1
        elif on == "student":  # 4 degrees of freedom: the tails of an activation
            x /= (torch.randn(4, *x.shape, generator=generator).square().mean(0)).sqrt()
        return x, f"{COUNT:,} numbers, {on}, seed {seed}"
    path, _, tensor = on.partition(":")
    ending = Path(path).suffix
    if ending in (".npy", ".safetensors"):
        x = _file(Path(path), tensor)
    elif tensor:
        x = _of_model(path, tensor)
    else:
        raise OptionError(
            f"there are no numbers {on!r}", "--on", f"{', '.join(SHAPES)}, FILE.npy, FILE.safetensors:NAME, MODEL:NAME"
        )
    shape = " × ".join(map(str, x.shape))
    return x.float() if x.dtype != torch.float64 else x, f"{x.numel():,} numbers of {on} ({shape})"


def _file(path: Path, name: str) -> Tensor:
    import torch

    if not path.is_file():
        raise DataError(f"there is no file {path}", "--on")
    try:
        if path.suffix == ".npy":
            import numpy as np

            return torch.from_numpy(np.load(path, allow_pickle=False))
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            known = list(file.keys())
            if name in known:
                return file.get_tensor(name)
    except Exception as error:  # those of numpy and safetensors share no base but Exception
        raise DataError(f"{path} cannot be read: {error}", "--on") from error
    raise UnknownName("tensor", name, known, "--on")


def _of_model(model: str, name: str) -> Tensor:
    from planish import flow

    tensors = flow.resolve(model).graph.tensors
    for wanted in (name, f"{name}.weight"):
        if wanted in tensors and tensors[wanted].is_floating_point():
            return tensors[wanted].detach()
    raise UnknownName("tensor", name, [key for key, held in tensors.items() if held.is_floating_point()], "--on")


def _histograms(losses: dict[str, Any]) -> list[str]:
    """The errors of all formats on one axis, which ends at the 99.5th percentile of the widest."""
    import torch

    reach = max(float(found.errors.abs().flatten().float()[: 1 << 23].quantile(0.995)) for found in losses.values())
    if not reach:
        return []
    width, lines = max(map(len, losses)), []
    counts = {name: torch.histc(found.errors, BINS, -reach, reach) for name, found in losses.items()}
    for name, count in counts.items():
        heights = (count / count.max().clamp_min(1) * (len(BARS) - 1)).ceil().int().tolist()
        lines.append(f"{escape(name):<{width}}  {''.join(BARS[height] for height in heights)}")
    ends = f"{-reach:.2g}", "error", f"{reach:.2g}"
    gap = BINS - sum(map(len, ends))
    return [*lines, f"[dim]{'':<{width}}  {ends[0]}{' ' * (gap // 2)}{ends[1]}{' ' * (gap - gap // 2)}{ends[2]}[/]"]
