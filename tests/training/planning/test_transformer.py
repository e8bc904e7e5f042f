"""Against the formulas of the papers."""

from __future__ import annotations

import pytest

from planish.training.planning.memory import kept
from planish.training.planning.setting import Setting
from planish.training.planning.transformer import Transformer
from planish.training.planning.work import even, total_parameters

GPT3 = Transformer(96, 12288, 96, 2048, 51200)


def test_parameters_are_those_of_the_table() -> None:
    assert total_parameters(GPT3.work()) / 1e9 == pytest.approx(174.6, rel=0.002)  # arXiv 2104.04473, table 2
    llama = Transformer(32, 4096, 32, 8192, 128256, 14336, 8, True, True, False, False)
    assert total_parameters(llama.work()) / 1e9 == pytest.approx(8.03, rel=0.002)


def test_products_are_those_of_equation_3() -> None:
    s, layers, h, vocabulary = 2048, 96, 12288, 51200
    whole = (
        96 * s * layers * h**2 * (1 + s / (6 * h) + vocabulary / (16 * layers * h))
    )  # arXiv 2104.04473: forward four times
    blocks = sum(layer.flops for layer in GPT3.work()[1:-1])
    head = GPT3.work()[-1].flops
    assert 4 * blocks + 3 * head == pytest.approx(whole, rel=1e-6)  # the head is not computed again


@pytest.mark.parametrize(
    ("tp", "sequence", "formula"),
    [
        (1, False, lambda s, h, a, t: s * h * (34 + 5 * a * s / h)),  # arXiv 2205.05198, table 2
        (8, False, lambda s, h, a, t: s * h * (10 + 24 / t + 5 * a * s / (h * t))),
        (8, True, lambda s, h, a, t: s * h / t * (34 + 5 * a * s / h)),
    ],
)
def test_activations_are_those_of_the_paper(tp: int, sequence: bool, formula) -> None:
    block = GPT3.work()[1]
    setting = Setting(tp=tp, precision="fp16", sequence=sequence)
    assert kept(block, setting, 1) == pytest.approx(formula(2048, 12288, 96, tp), rel=0.02)


def test_even_stages_have_the_embedding_first_and_the_head_last() -> None:
    stages = even(GPT3.work(), 8)
    assert [len(stage) for stage in stages] == [13, 12, 12, 12, 12, 12, 12, 13]
    assert stages[0][0].path == "embedding"
    assert stages[-1][-1].path == "head"
