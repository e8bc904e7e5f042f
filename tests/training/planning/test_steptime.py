from __future__ import annotations

from dataclasses import replace

import pytest
from benchmarks.training.steptime import judge

from planish.training.planning.hardware import Hardware
from planish.training.planning.setting import Setting
from planish.training.planning.steptime import Estimate, Model, estimate
from planish.training.planning.transformer import Transformer
from planish.training.planning.work import even

GPT = Transformer(32, 4096, 32, 2048, 51200)
A100 = Hardware.named("a100-sxm-80gb")


def step(setting: Setting, batch: float = 64):
    return estimate(even(GPT.work(), setting.pp * setting.chunks), setting, A100, batch)


def test_published_rows_that_were_not_fitted() -> None:
    found = judge()["summary"]
    assert found["held out"]["rows"] >= 30
    assert found["held out"]["mean"] <= 0.10
    assert found["3-D"]["mean"] <= 0.15


def test_bubbles_are_as_the_papers_say() -> None:
    one = step(Setting(pp=4, microbatches=16, precision="bf16"))
    work = one.seconds - one.bubble - one.replicas - one.optimizer
    assert one.bubble / work == pytest.approx(3 / 16, rel=0.1)  # (p - 1) / m; stages are not quite equal
    two = step(Setting(pp=4, chunks=2, schedule="interleaved", microbatches=16, precision="bf16"))
    assert two.bubble == pytest.approx(one.bubble / 2, rel=0.05)
    assert (
        step(Setting(pp=4, chunks=2, schedule="zero-bubble", microbatches=16, precision="bf16")).bubble
        < 0.05 * one.bubble
    )


def test_more_devices_are_quicker_and_need_less_memory() -> None:
    alone = step(Setting(precision="bf16"))
    for axis in ("dp", "fsdp", "tp"):
        found = step(Setting(**{axis: 8}, precision="bf16"))
        assert found.seconds < alone.seconds
        assert found.peak < alone.peak


def test_recomputation_costs_a_third_and_saves_memory() -> None:
    setting = Setting(precision="bf16")
    kept, again = (estimate([GPT.work(how)], setting, A100, 8) for how in ("none", "full"))
    assert again.compute / kept.compute == pytest.approx(4 / 3, rel=0.03)
    assert again.memory[0].activations < 0.2 * kept.memory[0].activations


def test_large_products_come_nearer_to_the_peak() -> None:
    model = Model(A100, Setting(precision="bf16"))
    wide, narrow = (Transformer(1, width, 8, 2048, 1000).work()[1].products[0] for width in (8192, 512))
    assert wide.flops / model.product(wide, 4) > 1.3 * narrow.flops / model.product(narrow, 4)


def test_parts_add_up() -> None:
    found = step(Setting(dp=2, fsdp=2, tp=2, pp=2, microbatches=4, precision="bf16"))
    assert sum(found.parts.values()) == pytest.approx(found.seconds)
    assert found.peak == max(each.total for each in found.memory)


def test_devices_share_the_cores_of_a_machine() -> None:
    def on(cores: int, setting: Setting) -> Estimate:
        return estimate(even(GPT.work(), setting.pp), setting, replace(A100, cores=cores), 64)

    replicas, pipeline = Setting(dp=4, precision="bf16"), Setting(pp=4, microbatches=4, precision="bf16")
    alone, enough, crowded = (on(cores, replicas) for cores in (0, 4, 2))
    assert enough == alone
    assert crowded.seconds == pytest.approx(2 * alone.seconds)
    assert sum(crowded.parts.values()) == pytest.approx(crowded.seconds)
    waiting, busy = on(0, pipeline), on(1, pipeline)
    assert waiting.bubble > 0
    assert busy.bubble == 0  # a core is never without work
    assert busy.seconds < 4 * (waiting.seconds - waiting.bubble) * 1.001
