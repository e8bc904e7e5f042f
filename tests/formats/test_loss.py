"""What rounding loses, against the definitions and torch's own rounding."""

from __future__ import annotations

import math

import pytest
import torch

from planish.errors import DataError
from planish.formats.loss import loss


def test_sqnr_rms_and_largest_are_their_definitions():
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    scale = (x.abs().amax() / 127).item()
    y = torch.fake_quantize_per_tensor_affine(x, scale, 0, -128, 127)
    found = loss(x, "int8")
    error = (y - x).double()
    assert found.sqnr == pytest.approx(10 * math.log10(x.double().square().sum() / error.square().sum()), abs=1e-3)
    assert found.rms == pytest.approx(error.square().mean().sqrt().item(), rel=1e-3)
    assert found.largest == pytest.approx(error.abs().amax().item(), rel=1e-3)


def test_an_error_to_nearest_is_half_an_ulp_at_most():
    x = torch.randn(4096, generator=torch.Generator().manual_seed(1))
    for name in ("bfloat16", "float16", "e4m3", "int8", "mxfp8"):
        found = loss(x, name)
        assert found.largest_ulps == pytest.approx(0.5, abs=0.01)
        assert 0.2 < found.mean_ulps < 0.3


def test_the_ulp_of_bfloat16_is_torch_nextafter():
    x = torch.tensor([1.0 + 2**-9, 3.0 + 2**-8])
    found = loss(x, "bfloat16")
    one = torch.nextafter(torch.tensor(1.0, dtype=torch.bfloat16), torch.tensor(2.0, dtype=torch.bfloat16)) - 1.0
    three = torch.nextafter(torch.tensor(3.0, dtype=torch.bfloat16), torch.tensor(4.0, dtype=torch.bfloat16)) - 3.0
    assert found.mean_ulps == pytest.approx((2**-9 / float(one) + 2**-8 / float(three)) / 2)


def test_what_is_beyond_and_what_becomes_zero():
    found = loss(torch.tensor([1000.0, 1e-5, 1.0, 0.0]), "e4m3")
    assert found.saturated == 0.25
    assert found.vanished == 0.25


def test_nothing_is_lost_on_the_grid():
    found = loss(torch.tensor([-2.0, 0.5, 1.0]), "e4m3")
    assert found.sqnr == math.inf
    assert found.largest == 0
    assert found.largest_ulps == 0


def test_formats_that_do_not_round_up_and_down_have_no_ulps():
    assert loss(torch.randn(64), "posit8").mean_ulps is None
    assert loss(torch.randn(64), "binary2").mean_ulps is None


@pytest.mark.parametrize("x", [torch.zeros(4), torch.tensor([1.0, torch.nan]), torch.zeros(0), torch.ones(3).int()])
def test_numbers_without_an_error(x):
    with pytest.raises(DataError, match="finite real numbers"):
        loss(x, "int8")
