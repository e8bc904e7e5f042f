from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planish.errors import DataError, OptionError
from planish.training.federated import Update

WAYS = ["float32", "int8", "int4@g32*float16", "mxfp4", "topk:1%", "topk:5%,int4@g32*float16", "topk:40%,float16"]


def tensors(seed: int, sizes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"t{place}": torch.randn(size, generator=generator) for place, size in enumerate(sizes)} | {
        "matrix": torch.randn(40, 13, generator=generator),
        "scalar": torch.randn((), generator=generator),
    }


@settings(max_examples=20)
@given(
    seed=st.integers(0, 1000),
    sizes=st.tuples(st.integers(1, 700), st.integers(1, 3000)),
    way=st.sampled_from(WAYS),
)
def test_the_server_reads_what_the_client_thinks_it_reads(seed: int, sizes: tuple[int, ...], way: str) -> None:
    given_, update = tensors(seed, sizes), Update.parse(way)
    data, read = update.encode(given_)
    assert len(data) == update.nbytes(given_)
    found = update.decode(data, given_)
    assert all(torch.equal(found[name], read[name]) for name in given_)
    assert {name: each.shape for name, each in found.items()} == {name: each.shape for name, each in given_.items()}


def test_exact_updates_are_exact() -> None:
    given_ = tensors(0, (10, 300))
    _, read = Update().encode(given_)
    assert all(torch.equal(read[name], given_[name]) for name in given_)


@pytest.mark.parametrize(
    ("way", "times"),
    [("int8", 3.9), ("int4@g32*float16", 7.0), ("topk:10%", 16.0), ("topk:25%,int4@g32*float16", 14.0)],
)
def test_bytes_are_as_many_times_fewer(way: str, times: float) -> None:
    given_ = {"w": torch.randn(256, 256)}
    assert 4 * 256 * 256 / len(Update.parse(way).encode(given_)[0]) >= times


def test_the_largest_are_kept() -> None:
    x = torch.arange(1000.0) - 500
    _, read = Update.parse("topk:10%,float32").encode({"x": x})
    kept = read["x"].nonzero().reshape(-1)
    assert len(kept) == 100
    assert torch.equal(read["x"][kept], x[kept])
    assert x[kept].abs().min() >= x[read["x"] == 0].abs().max()


@pytest.mark.parametrize("way", ["int8", "topk:2%", "topk:10%,int4@g32*float16"])
def test_error_feedback_sends_everything_in_the_end(way: str) -> None:
    """What is left out stays bounded: the mean of what is sent nears the mean of what was wanted."""
    torch.manual_seed(0)
    update, wanted = Update.parse(way), torch.randn(2000)
    left, total, rounds = torch.zeros(2000), torch.zeros(2000), 300
    for _ in range(rounds):
        _, read = update.encode({"x": wanted + left})
        left = wanted + left - read["x"]
        total += read["x"]
    assert (total / rounds - wanted).norm() / wanted.norm() < 0.2


@pytest.mark.parametrize("way", WAYS)
def test_text_form(way: str) -> None:
    assert Update.parse(str(Update.parse(way))) == Update.parse(way)


@pytest.mark.parametrize("way", ["topk:x", "topk:0%", "topk:200%", "int99", "int8@channel0~dynamic", "topk:1%,what"])
def test_bad_text(way: str) -> None:
    with pytest.raises(OptionError):
        Update.parse(way)


def test_damaged_updates_are_refused() -> None:
    given_, update = tensors(0, (300, 500)), Update.parse("topk:10%,float32")
    data, _ = update.encode(given_)
    with pytest.raises(DataError, match="bytes"):
        update.decode(data[:-1], given_)
    with pytest.raises(DataError, match="NaN"):
        update.encode({**given_, "t0": torch.full((300,), torch.nan)})
    with pytest.raises(DataError, match="damaged"):
        update.decode(b"\xff" * len(data), given_)
    with pytest.raises(DataError, match="NaN"):
        Update().decode(b"\xff" * Update().nbytes(given_), given_)
