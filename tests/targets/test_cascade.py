from __future__ import annotations

import json

import pytest
import torch

from planish.compress import EarlyExit, Quantize
from planish.errors import OptionError, UntrustedFile
from planish.frontends import capture
from planish.targets.cpu import Cpu
from tests.compress.adaptive.test_exits import Net, images, leaving_by_halves
from tests.support import require

require("onnxruntime")
from planish.targets.cpu.cascade import build_cascade, load_cascade  # noqa: E402

CPU = Cpu(engine="onnxruntime", seconds=0.02)


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    whole = capture(Net().eval(), (torch.randn(2, 1, 9, 9),), dynamic={"x": {0: "batch"}}, training=False)
    return leaving_by_halves(EarlyExit(at=("blocks.0", "blocks.2"), loss=0.1)(whole, [((images(400)[0],), {})]))


@pytest.fixture(scope="module")
def cascade(graph):
    return build_cascade(graph, CPU)


def test_a_batch_is_regrouped_to_what_the_graph_and_single_rows_give(graph, cascade):
    x, _ = images(60, seed=1)
    cascade.reached[:] = [0, 0, 0]
    batch = cascade(x)
    assert 60 == cascade.reached[0] > cascade.reached[1] > cascade.reached[2] > 0
    reached, cascade.reached[:] = list(cascade.reached), [0, 0, 0]
    single = torch.cat([cascade(row[None]) for row in x])
    assert cascade.reached == reached
    torch.testing.assert_close(batch, graph(x))
    torch.testing.assert_close(single, graph(x))


@pytest.mark.parametrize(("limit", "stages"), [(0.0, 1), (2.0, 3)])
def test_all_rows_may_leave_at_once_or_none(graph, limit, stages):
    edit = graph.edit()
    for place in range(2):
        edit.set_tensor(f"exits.{place}.threshold", torch.tensor([limit]))
    cascade, (x, _) = build_cascade(edit.done(), CPU), images(5)
    torch.testing.assert_close(cascade(x), edit.done()(x))
    assert sum(rows > 0 for rows in cascade.reached) == stages


def test_a_cascade_is_kept(cascade, tmp_path):
    x, _ = images(20, seed=4)
    cascade.save(tmp_path / "small")
    again = load_cascade(tmp_path / "small")
    assert torch.equal(again(x), cascade(x))
    assert again.nbytes == cascade.nbytes > 0
    assert cascade.measure(0.01)[0].name == "latency"
    with pytest.raises(OptionError):
        again.measure()
    note = json.loads((tmp_path / "small" / "cascade.json").read_text())
    (tmp_path / "small" / "cascade.json").write_text(json.dumps({**note, "wiring": 3}))
    with pytest.raises(UntrustedFile):
        load_cascade(tmp_path / "small")


def test_a_quantized_cascade(graph):
    data = [((images(64)[0],), {})]
    small = Quantize("int8", "uint8", where="conv | linear")(graph, data)
    x, _ = images(30, seed=6)
    close = (build_cascade(small, CPU)(x).argmax(1) == small(x).argmax(1)).float().mean()
    assert close > 0.9


def test_fixed_sizes_are_refused(graph):
    with pytest.raises(OptionError, match="smaller"):
        build_cascade(graph, Cpu(dynamic=False))
