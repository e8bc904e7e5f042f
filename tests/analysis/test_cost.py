"""Costs against torch's own counter, against hand counts, and against each other."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import planish.analysis.rules as rules
from planish.analysis.cost import Cost, analyze
from planish.analysis.work import Work
from planish.errors import OptionError
from planish.formats import int8
from planish.frontends import capture
from planish.graph import Graph
from tests.frontends.families import FAMILIES, QUICK

ORACLED = (
    "mlp",
    "resnet18",
    "mobilenet_v2",
    "unet",
    "r3d18",
    "vae",
    "vit_tiny",
    "bert",
    "gpt2",
    "t5",
    "whisper",
    "clip",
    "unet2d",
)


def of(model: nn.Module, *inputs: torch.Tensor, sizes: dict[str, int] | None = None, **options: object) -> Cost:
    return analyze(capture(model.eval(), inputs, training=False, **options), sizes)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in ORACLED])
def test_multiply_accumulates_equal_those_of_torch(name: str) -> None:
    family = FAMILIES[name]()
    graph = capture(family.model.eval(), family.example, training=False)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it does not know the CPU's kernel
        graph(*graph.example[0], **graph.example[1])
    cost = analyze(graph)
    causal = any(node.op == "scaled_dot_product_attention" and node.argument("is_causal") for node in graph.nodes)
    if causal:  # torch counts the pairs that the mask hides, too
        assert 0.8 < 2 * cost.total.macs / counter.get_total_flops() < 1
    else:
        assert 2 * cost.total.macs == counter.get_total_flops()
    assert not cost.unruled
    assert cost.total.parameters == sum(p.numel() for p in set(family.model.parameters()))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # other people's libraries warn as they please
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_has_a_rule_for_every_operation(name: str) -> None:
    family = FAMILIES[name]()
    cost = analyze(capture(family.model.eval(), family.example, family.dynamic, training=False))
    assert not cost.unruled
    assert cost.total.parameters <= sum(p.numel() for p in family.model.parameters())


def test_linear_by_hand() -> None:
    cost = of(nn.Linear(16, 8), torch.zeros(4, 16))
    assert [node.op for node in cost.nodes] == ["linear"]
    assert cost.total == Work(
        macs=4 * 16 * 8,
        flops=2 * 4 * 16 * 8 + 4 * 8,
        parameters=16 * 8 + 8,
        weight_bytes=4 * (16 * 8 + 8),
        weight_traffic=4 * (16 * 8 + 8),
        activation_bytes=4 * (4 * 16 + 4 * 8),
    )


@pytest.mark.parametrize(
    ("model", "shape", "macs"),
    [
        (nn.Conv1d(4, 8, 3), (2, 4, 10), 2 * 8 * 8 * 4 * 3),
        (nn.Conv2d(4, 8, 3, padding=1, groups=2), (2, 4, 6, 6), 2 * 8 * 36 * 2 * 9),
        (nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4), 3 * 27 * 2 * 8),
        (nn.ConvTranspose2d(4, 8, 2, stride=2, groups=2), (2, 4, 5, 5), 2 * 4 * 25 * 4 * 4),
        (nn.Bilinear(3, 4, 5), None, 2 * (5 * 3 * 4 + 5 * 4)),
    ],
)
def test_weighted_operations_by_hand(model: nn.Module, shape: tuple[int, ...] | None, macs: int) -> None:
    inputs = (torch.zeros(2, 3), torch.zeros(2, 4)) if shape is None else (torch.zeros(shape),)
    assert of(model, *inputs).total.macs == macs


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_by_hand(kind: type[nn.Module], gates: int) -> None:
    cost = of(kind(5, 7, num_layers=2, bidirectional=True, batch_first=True), torch.zeros(2, 6, 5))
    per_step = 2 * gates * 7 * (5 + 7) + 2 * gates * 7 * (14 + 7)
    assert cost.total.macs == 2 * 6 * per_step


class Attention(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


@pytest.mark.parametrize(("causal", "pairs"), [(False, 5 * 7), (True, 1 + 2 + 3 + 4 + 5)])
def test_attention_by_hand(causal: bool, pairs: int) -> None:
    q, k, v = torch.zeros(2, 3, 5, 8), torch.zeros(2, 3, 7, 8), torch.zeros(2, 3, 7, 4)
    assert of(Attention(causal), q, k, v).total.macs == 2 * 3 * pairs * (8 + 4)


class Einsum(nn.Module):
    def __init__(self, equation: str) -> None:
        super().__init__()
        self.equation = equation

    def forward(self, *operands: torch.Tensor) -> torch.Tensor:
        return torch.einsum(self.equation, *operands)


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)], 2 * 3 * 4 * 5),
        ("...ij,jk->...ik", [(2, 6, 3, 4), (4, 5)], 2 * 6 * 3 * 4 * 5),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)], 2 * 3 * 4 + 2 * 4 * 5),
    ],
)
def test_einsum_by_hand(equation: str, shapes: list[tuple[int, ...]], macs: int) -> None:
    assert of(Einsum(equation), *map(torch.zeros, shapes)).total.macs == macs


class Pieces(nn.Module):
    """Views, a lookup, a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(100, 8)
        self.out = nn.Linear(8, 100, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.table(ids).transpose(0, 1).unsqueeze(0))


def test_views_are_free_lookups_read_rows_and_tied_weights_count_once() -> None:
    cost = of(Pieces(), torch.zeros(2, 5, dtype=torch.long))
    table, *views, out = cost.nodes
    assert all(view.work == Work() for view in views)
    assert table.work.weight_traffic == 2 * 5 * 8 * 4
    assert table.work.activation_bytes == 2 * 5 * 8 + 2 * 5 * 8 * 4
    assert (table.work.weight_bytes, out.work.weight_bytes) == (3200, 0)
    assert out.work.weight_traffic == 3200
    assert cost.total.parameters == 800


def cast_weight(graph: Graph, form: object) -> Graph:
    edit = graph.edit()
    for node in graph.select("linear"):
        scale = edit.add(f"{node.weight.target}__scale", form.parameters(node.weight.tensor)[0])
        edit.cast(node.weight, node, form, (scale,))
    return edit.done()


def test_a_cast_weight_counts_its_packed_bytes_and_scales() -> None:
    graph = capture(nn.Linear(64, 32, bias=False), (torch.zeros(1, 64),), training=False)
    cost = analyze(cast_weight(graph, int8.per_channel(0)))
    assert cost.total.weight_bytes == cost.total.weight_traffic == 64 * 32 + 4 * 32
    assert cost.total.flops == 2 * 64 * 32
    assert [node.compute for node in cost.nodes] == ["f32", "f32"]  # the activation is not quantized


def test_activations_count_in_their_formats() -> None:
    graph = cast_weight(capture(nn.Linear(64, 32, bias=False), (torch.zeros(3, 64),), training=False), int8)
    edit = graph.edit()
    linear = graph.select("linear")[0]
    edit.cast(linear.input, linear, int8.dynamic(), ())
    cost = analyze(edit.done())
    work = next(node for node in cost.nodes if node.op == "linear")
    assert work.compute == "int8"
    assert work.work.activation_bytes == pytest.approx(int8.dynamic().nbytes((3, 64)) + 4 * 3 * 32)


def test_sizes_are_concrete_and_linear_in_the_batch() -> None:
    dynamic = {"input": {0: "batch"}}
    graph = capture(nn.Sequential(nn.Linear(6, 5), nn.ReLU()), (torch.zeros(2, 6),), dynamic, training=False)
    assert analyze(graph).sizes == {"batch": 2}
    for batch in (1, 2, 9):
        fixed = of(nn.Sequential(nn.Linear(6, 5), nn.ReLU()), torch.zeros(batch, 6))
        assert analyze(graph, {"batch": batch}).total == fixed.total
    with pytest.raises(OptionError, match="no dynamic size 'tokens'"):
        analyze(graph, {"tokens": 3})


def test_roll_up_adds_up() -> None:
    family = FAMILIES["bert"]()
    cost = analyze(capture(family.model.eval(), family.example, training=False))
    tree = cost.by_path()
    assert tree[""] == cost.total
    for depth in (1, 2, 3):
        assert cost.by_path(depth) == {path: tree[path] for path in cost.by_path(depth)}
    layers = [work for path, work in tree.items() if path.count(".") == 2 and path.startswith("encoder.layer.")]
    assert Work.sum(layers).macs == tree["encoder.layer"].macs


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 50), nn.Linear(50, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.small(x), lambda x: self.large(x), (x,))


def test_the_costlier_branch_of_a_condition_counts_and_both_are_stored() -> None:
    model = Branches()
    cost = of(model, torch.zeros(3, 4))
    assert cost.total.macs == 3 * 2 * 4 * 50
    assert cost.total.parameters == sum(p.numel() for p in model.parameters())
    assert not cost.unruled


class Strange(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.airy_ai(x) + torch.special.bessel_y0(x)


def test_an_operation_without_a_rule_gets_its_bytes_and_is_listed() -> None:
    cost = of(Strange(), torch.ones(8))
    assert set(cost.unruled) == {"special_airy_ai", "special_bessel_y0"}
    assert cost.nodes[0].work == Work(activation_bytes=64)
    assert "no rule for" in str(cost)


def test_every_core_operation_of_torch_has_a_rule() -> None:
    packets = {name: getattr(torch.ops.aten, name) for name in dir(torch.ops.aten)}
    core = {
        name
        for name, packet in packets.items()
        if isinstance(packet, torch._ops.OpOverloadPacket)
        and any(torch.Tag.core in getattr(packet, overload).tags for overload in packet.overloads())
    }
    assert len(core) > 100
    assert {name for name in core if not rules.is_ruled(name) and "backward" not in name} == set()


def test_rows_of_a_run_folder() -> None:
    rows = of(nn.Linear(16, 8), torch.zeros(4, 16)).measurements()
    assert {row.name for row in rows} == {"macs", "flops", "weight_bytes", "activation_bytes", "intensity"}
    assert {(row.source, row.subject) for row in rows} == {("exact", "original")}
    assert rows[0].details == {"node": "linear", "op": "linear", "type": "Linear"}
