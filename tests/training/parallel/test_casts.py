"""Rounding a divided tensor gives what rounding the whole one gives, there and back, and moves little."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.experimental import implicit_replication

from planish.formats import Format, get
from planish.formats.learning import Gradient
from planish.graph.cast import cast
from planish.training.parallel import operators
from tests.training.parallel.pool import Pool

pytestmark = pytest.mark.xdist_group("processes")
AXES = [0, 1, None]


def read(name: str) -> Format:
    """A name, and what is done with it: "int8 per_tensor dynamic"."""
    first, *rest = name.split()
    format = get(first)  # noqa: A001  # its own word
    for word in rest:
        format = getattr(format, word)()  # noqa: A001
    return format


def numbers(special: float | None = None) -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(4, 64)
    if special is not None:
        x[3, 40] = special
    return x


def divided(x: Tensor, axis: int | None) -> DTensor:
    operators.register()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return distribute_tensor(x, mesh, [Replicate() if axis is None else Shard(axis)])


def rounded(name: str, axis: int | None, special: float | None, seed: int | None) -> tuple[bool, dict[str, int]]:
    x, format = numbers(special), read(name)  # noqa: A001
    if seed is not None:
        format = replace(format, rounding="stochastic")  # noqa: A001
    parameters = format.parameters(x)
    wanted = cast(x, format, parameters, seed=seed)
    spread = divided(x, axis)
    with implicit_replication(), CommDebugMode() as talk:
        found = cast(spread, format, parameters, seed=seed)
    moved = {str(operator): count for operator, count in talk.get_comm_counts().items()}
    return torch.equal(found.full_tensor().nan_to_num(7.0), wanted.nan_to_num(7.0)), moved  # type: ignore[attr-defined]


FORMATS = [
    *("mxfp4", "nvfp4", "nvfp4 dynamic", "q3.4", "e4m3fn", "nf4", "nf4 dynamic"),
    *(f"int8 {block}{how}" for block in ("per_tensor", "per_channel", "per_token") for how in ("", " dynamic")),
    *(f"int8 affine per_{block} dynamic" for block in ("tensor", "channel")),
]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("name", FORMATS)
def test_a_divided_tensor(pool: Pool, name: str, axis: int | None) -> None:
    for equal, _ in pool.run(rounded, name, axis, None, None, processes=2):
        assert equal


@pytest.mark.parametrize("special", [torch.inf, -torch.inf, torch.nan])
def test_what_is_no_number_on_one_device(pool: Pool, special: float) -> None:
    for equal, _ in pool.run(rounded, "int8 per_tensor dynamic", 1, special, None, processes=2):
        assert equal


def test_noise_is_that_of_the_whole(pool: Pool) -> None:
    for equal, _ in pool.run(rounded, "int4 per_channel", 0, None, 3, processes=2):
        assert equal


@pytest.mark.parametrize(
    ("name", "axis", "moved"),
    [
        ("int8 per_tensor", 0, {}),
        ("int8 per_channel", 0, {}),
        ("int8 per_channel", 1, {}),
        ("q3.4", 1, {}),
        ("mxfp4 dynamic", 1, {}),
        ("int8 per_token dynamic", 0, {}),
        ("int8 per_tensor dynamic", 0, {"all_reduce": 2}),
        ("int8 per_token dynamic", 1, {"all_reduce": 2}),
        ("nvfp4 dynamic", 1, {"all_gather_into_tensor": 2}),
    ],
)
def test_only_the_ends_of_ranges_are_told(pool: Pool, name: str, axis: int, moved: dict[str, int]) -> None:
    for equal, counts in pool.run(rounded, name, axis, None, None, processes=2):
        assert equal
        assert {each.rpartition(".")[2]: count for each, count in counts.items()} == moved


def returned(name: str, axis: int | None, gradient: Gradient) -> list[tuple[Tensor | None, Tensor | None]]:
    """Gradients to the tensor and to each parameter: of the whole, and of the divided one."""
    format = read(name)  # noqa: A001
    x = numbers()
    parameters = [each * 0.5 if each.is_floating_point() else each for each in format.parameters(x)]
    to_y = torch.randn(4, 64)
    pairs: list[list[Tensor]] = []
    for spread in (False, True):
        place: Any = (lambda each: divided(each, axis)) if spread else (lambda each: each)
        inputs = [place(x.clone()).requires_grad_()]
        for each in parameters:
            whole: Any = divided(each.clone(), None) if spread else each.clone()
            inputs.append(whole.requires_grad_() if each.is_floating_point() else whole)
        with implicit_replication():
            (cast(inputs[0], format, inputs[1:], gradient) * place(to_y)).sum().backward()
        pairs.append(inputs)

    def own(tensor: Tensor) -> Tensor | None:
        grad = tensor.grad
        return grad.full_tensor() if isinstance(grad, DTensor) else grad

    return [(own(whole), own(part)) for whole, part in zip(*pairs, strict=True)]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("gradient", ["clipped", "lsq", "pact"])
@pytest.mark.parametrize("name", ["int4 per_tensor", "int4 per_channel", "int4 affine per_channel", "nvfp4", "nf4"])
def test_gradients_of_a_divided_tensor(pool: Pool, name: str, gradient: Gradient, axis: int | None) -> None:
    for pairs in pool.run(returned, name, axis, gradient, processes=2):
        for wanted, found in pairs:
            assert (wanted is None) == (found is None)
            if wanted is not None and found is not None:
                torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)
