"""Each pass on each family: legal shapes, its own promise, and how it relaxes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from planish.analysis import analyze
from planish.compress import Attention, Depth, Heads, KernelSize, PruneStructured, Quantize, Replace, Width
from planish.compress.structured.layers import branches
from planish.errors import OptionError
from planish.frontends import capture
from planish.graph import Pass
from planish.models.lstm import LSTMClassifier
from planish.recipe import Recipe
from tests.compress import contract
from tests.compress.architecture.models import example, graph
from tests.compress.architecture.relaxed import relaxed
from tests.compress.models import attention, items

STAGE = "conv & path('layer*.conv*')"
CASES: dict[str, tuple[str, Pass]] = {
    "mlp-width": ("mlp", Width(0.5)),
    "mlp-width-number": ("mlp", Width(48, round_to=16)),
    "mlp-linear": ("mlp", Replace("linear", "path('layers.1')")),
    "mlp-none": ("mlp", Replace("relu6", "relu")),
    "convnet-width": ("convnet", Width(0.25, sort=True)),
    "convnet-kernel": ("convnet", KernelSize(1)),
    "convnet-wider-kernel": ("convnet", KernelSize((5, 3), "path('conv2')")),
    "convnet-depthwise": ("convnet", Replace("depthwise3x3", "path('conv2')")),
    "convnet-none": ("convnet", Replace("none", "path('conv3')")),
    "resnet-width": ("resnet", Width(0.5)),
    "resnet-depth": ("resnet", Depth(0.5)),
    "resnet-none": ("resnet", Depth(0, "path('layer3.*')")),
    "resnet-wider-kernel": ("resnet", KernelSize(5, STAGE)),
    "resnet-conv": ("resnet", Replace("conv5x5", STAGE)),
    "resnet-blocks": ("resnet", Replace("conv3x3-bn-relu", "path('layer2.*')", "modules")),
    "resnet-skip": ("resnet", Replace("skip", "path('layer?.1')", "modules")),
    "resnet-pool": ("resnet", Replace("average-pool", "max_pool2d")),
    "resnet-strided": ("resnet", Replace("max-pool", "path('layer4.1')", "modules")),
    "vit-heads": ("vit", Heads(3)),
    "vit-width": ("vit", Width(0.5, "path('blocks.0.*')")),
    "vit-features": ("vit", Width(0.5, units=("features",))),
    "vit-depth": ("vit", Depth(3)),
    "vit-linear": ("vit", Attention("linear")),
    "vit-average": ("vit", Attention("average", "path('blocks.1.*')")),
    "vit-local": ("vit", Attention("local", window=3)),
    "vit-identity": ("vit", Attention("identity")),
    "vit-no-attention": ("vit", Replace("zero", "path('blocks.1.attn')", "modules")),
    "vit-silu": ("vit", Replace("silu", "gelu")),
    "vit-mixer": ("vit", Replace("linear", "path('blocks.*.attn')", "modules")),
}


QUICK = (
    *("mlp-width", "convnet-kernel", "convnet-none", "resnet-blocks", "resnet-depth"),
    *("vit-heads", "vit-linear", "vit-local", "vit-mixer"),
)


def quick(case: str) -> object:
    return pytest.param(case, marks=() if case in QUICK else pytest.mark.long)


@pytest.mark.parametrize("case", [quick(case) for case in CASES])
def test_contract(case, tmp_path):
    family, step = CASES[case]
    whole = graph(family)
    small = contract.applied(whole, [step], [((example(family),), {})], tmp_path)
    assert small(example(family, 5)).shape == (5, 10)
    assert Recipe.from_data(Recipe(step).to_data()) == Recipe(step)
    planned = {node.name: node.shape for node in step.draft(whole).nodes}
    assert planned == {node.name: node.shape for node in small.nodes}


@pytest.mark.parametrize("case", CASES)
def test_candidates_compute_what_the_pass_makes(case):
    family, step = CASES[case]
    whole, x = graph(family), example(family, 3)
    found = step.candidates(whole)
    assert found
    (mixed,) = relaxed(whole, found, x)
    torch.testing.assert_close(mixed, step(whole)(x), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("case", [quick(case) for case in CASES if case.split("-")[0] in ("resnet", "vit")])
def test_builds(case):
    family, step = CASES[case]
    contract.builds(step(graph(family)))


@pytest.mark.parametrize(
    ("family", "step"),
    [
        ("mlp", Width(1.0)),
        ("vit", Heads(4)),
        ("resnet", Depth(1.0)),
        ("convnet", KernelSize(3)),
        ("vit", Attention("softmax")),
        ("convnet", Replace("keep")),
    ],
)
def test_neutral_options_change_nothing(family, step):
    whole, x = graph(family), example(family)
    assert step.plan(whole)
    assert torch.equal(step(whole)(x), whole(x))
    assert torch.equal(relaxed(whole, step.candidates(whole), x)[0], whole(x))


@pytest.mark.parametrize(
    ("family", "step", "says"),
    [
        ("resnet", Replace("skip", "path('layer2.0')", "modules"), "(?s)'skip' cannot stand.*layer2.0"),
        ("resnet", Replace("relu", "path('layer2.0.conv1')"), "layer2.0.conv1"),
        ("resnet", Replace("linear", "path('layer1.0')", "modules"), None),
        ("resnet", Replace("skip", "path('nowhere')", "modules"), "matches no module"),
        ("resnet", Replace("skip", "path('nowhere')"), "matches nothing"),
        ("resnet", Replace("relu", "add"), "(?s)reads 2 values.*layer1.0"),
        ("vit", Replace("identity", "attention"), r"Attention\(\.\.\.\)"),
        ("vit", Replace("conv3x3", "path('blocks.0.mlp.fc1')"), "(?s)makes images.*blocks.0.mlp.fc1"),
        ("vit", KernelSize(3), "(?s)outputs would grow|no center"),
        ("convnet", KernelSize(2), "(?s)no center.*conv1"),
        ("mlp", KernelSize(3), "selects no convolution|matches nothing"),
        ("mlp", Depth(0.5), "no residual branch"),
        ("mlp", Heads(2), "heads that can go"),
        ("mlp", Attention("linear"), "matches nothing"),
    ],
)
def test_refusals_name_the_place(family, step, says):
    if says is None:
        assert step.plan(graph(family))
        return
    with pytest.raises(OptionError, match=says):
        step.plan(graph(family))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Replace("conv33"),
        lambda: Replace("relu", of="layers"),
        lambda: Width(0.0),
        lambda: Width(1.5),
        lambda: Width(True),
        lambda: Width(0.5, units=("rows",)),
        lambda: Width(0.5, units=()),
        lambda: Width(0.5, round_to=0),
        lambda: Heads(-1),
        lambda: Depth(-1),
        lambda: Depth(0.0),
        lambda: KernelSize(0),
        lambda: KernelSize(()),
        lambda: Attention("sparse"),
        lambda: Attention("local", window=-1),
    ],
)
def test_bad_options(wrong):
    with pytest.raises(OptionError):
        wrong()


def test_an_unknown_operator_names_the_nearest():
    with pytest.raises(OptionError, match="conv3x3"):
        Replace("conv3")


def test_new_parameters_stand_where_the_old_ones_did():
    small = Replace("conv3x3", STAGE)(graph("resnet"))
    assert small.tensors["layer1.0.conv1.weight"].shape == (4, 4, 3, 3)
    assert "layer1.0.conv1.bias" in small.parameter_names
    assert small.tensors.keys() >= graph("resnet").parameter_names
    again = Replace("conv3x3", "path('layer1.0.conv1')")(graph("resnet"))
    assert torch.equal(small.tensors["layer1.0.conv1.weight"], again.tensors["layer1.0.conv1.weight"])
    other = Replace("conv3x3", "path('layer1.0.conv1')", seed=1)(graph("resnet"))
    assert not torch.equal(other.tensors["layer1.0.conv1.weight"], again.tensors["layer1.0.conv1.weight"])


def test_a_module_goes_as_a_whole_and_can_train_afterwards():
    small = Replace("conv3x3-bn-relu", "path('layer2.*')", "modules")(graph("resnet"))
    assert "layer2.0.conv1.weight" not in small.tensors
    net = small.module().train()
    before = net.state_dict()["layer2.1.1.running_mean"].clone()
    net(example("resnet", 4)).sum().backward()
    assert not torch.equal(net.state_dict()["layer2.1.1.running_mean"], before)
    assert int(net.state_dict()["layer2.1.1.num_batches_tracked"]) == 1
    assert str(small.module(hierarchical=True).get_submodule("layer2.0"))
    assert Replace("conv3x3", "path('layer2.0.0')")(small)(example("resnet")).shape == (2, 10)


def test_a_norm_that_is_replaced_counts_its_batches_anew():
    small = Replace("conv3x3-bn-relu", "path('layer2.*')", "modules")(graph("resnet"))
    again = Replace("conv1x1-bn-relu", "path('layer2.1')", "modules")(small)
    assert int(again.tensors["layer2.1.1.num_batches_tracked"]) == 0
    assert again.module().train()(example("resnet", 4)).shape == (4, 10)


def test_prefixes_are_shared():
    """Slimmable networks: the weights of the narrower are the beginning of the wider's (arXiv 1812.08928)."""
    wide, narrow = Width(0.5)(graph("mlp")), Width(0.25)(graph("mlp"))
    weight = graph("mlp").tensors["layers.1.weight"]
    assert torch.equal(wide.tensors["layers.1.weight"], weight[:32, :64])
    assert torch.equal(narrow.tensors["layers.1.weight"], weight[:16, :32])
    assert torch.equal(Width(0.5)(wide).tensors["layers.1.weight"], narrow.tensors["layers.1.weight"])


def test_sorted_width_keeps_the_largest():
    whole = graph("mlp")
    kept = Width(64, "path('layers.0')", sort=True)(whole).tensors["layers.0.weight"]
    norms = whole.tensors["layers.0.weight"].norm(dim=1)
    rows = {tuple(row.tolist()) for row in whole.tensors["layers.0.weight"][norms.argsort(descending=True)[:24]]}
    assert len(rows & {tuple(row.tolist()) for row in kept}) > 16  # the columns of what reads it count too
    assert len(kept) == 64


def test_width_saves_work_and_depth_takes_the_last_branches():
    whole = graph("resnet")
    assert analyze(Width(0.5)(whole)).total.macs < 0.4 * analyze(whole).total.macs
    left = [branch.path for branch in branches(Depth(2)(whole))]
    assert left == [branch.path for branch in branches(whole)][:2]


def test_kernels_keep_their_center():
    whole = graph("convnet")
    weight = whole.tensors["conv2.weight"].detach()
    small, large = KernelSize(1, "path('conv2')")(whole), KernelSize(5, "path('conv2')")(whole)
    assert torch.equal(small.tensors["conv2.weight"], weight[:, :, 1:2, 1:2])
    assert torch.equal(large.tensors["conv2.weight"], functional.pad(weight, (1, 1, 1, 1)))
    torch.testing.assert_close(large(example("convnet")), whole(example("convnet")))
    quantized = Recipe(Quantize("int8", where="conv"), KernelSize(1, "conv"))(whole)
    assert quantized(example("convnet")).isfinite().all()


class _Oracle:
    """Equations 4 to 7 of arXiv 2006.16236 (linear), and the definitions of the rest, for one query at a time."""

    @staticmethod
    def value(kind: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, place: int, window: int) -> torch.Tensor:
        if kind == "linear":
            weights = torch.tensor([float((functional.elu(q) + 1) @ (functional.elu(key) + 1)) for key in k])
        elif kind == "average":
            weights = torch.ones(len(k))
        elif kind == "local":
            weights = ((k @ q) / len(q) ** 0.5).exp()
            weights = torch.tensor([w if abs(place - j) <= window else 0.0 for j, w in enumerate(weights)])
        else:
            weights = torch.eye(len(k))[place]
        return (weights[:, None] * v).sum(0) / weights.sum()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["linear", "average", "local", "identity"])
def test_attention_kinds(kind, causal):
    class Plain(torch.nn.Module):
        def forward(self, q, k, v):
            return functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 4) for _ in range(3))
    small = Attention(kind, window=2)(capture(Plain(), (q, k, v)))
    got = small(q, k, v)
    for place in range(7):
        seen = slice(0, place + 1 if causal else 7)
        args = q[1, 2, place], k[1, 2, seen], v[1, 2, seen], place, 2
        torch.testing.assert_close(got[1, 2, place], _Oracle.value(kind, *args), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "average", "local"])
@pytest.mark.parametrize("floating", [False, True])
def test_attention_heeds_masks_and_shared_heads(kind, floating):
    class Masked(torch.nn.Module):
        def forward(self, q, k, v, mask):
            return functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)

    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 5, 4), torch.randn(2, 2, 5, 4), torch.randn(2, 2, 5, 4)
    hidden = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    hidden[..., 3:] = False
    mask = torch.zeros(hidden.shape).masked_fill(~hidden, -torch.inf) if floating else hidden
    small = Attention(kind, window=4)(
        capture(Masked(), (q, k, v, mask), dynamic={"q": {0: "b"}, "k": {0: "b"}, "v": {0: "b"}, "mask": {0: "b"}})
    )
    got = small(q, k, v, mask)
    changed = v.clone()
    changed[..., 3:, :] += 1
    torch.testing.assert_close(small(q, k, changed, mask), got)
    want = _Oracle.value(kind, q[0, 3, 1], k[0, 1, :3], v[0, 1, :3], 1, 4)
    torch.testing.assert_close(got[0, 3, 1], want, atol=1e-5, rtol=1e-4)


def test_rounding_relaxes_as_it_is_applied():
    whole = graph("mlp")
    step, x = Quantize("int4@channel0", "uint8~dynamic"), example("mlp")
    (mixed,) = relaxed(whole, step.candidates(whole), x)
    torch.testing.assert_close(mixed, step(whole)(x))
    static = Quantize("int8", "uint8")
    (mixed,) = relaxed(whole, static.candidates(whole), x)
    torch.testing.assert_close(mixed, static(whole, [((x,), {})])(x), atol=1e-4, rtol=1e-4)
    assert Quantize(max_drop=0.1).candidates(whole) == []


def test_rounding_lets_gradients_through():
    (candidate, *_) = Quantize("int4").candidates(graph("mlp"))
    weight = torch.randn(3, 4, requires_grad=True)
    candidate.module(weight).sum().backward()
    assert torch.equal(weight.grad, torch.ones(3, 4))


def test_pruning_follows_a_change_of_architecture():
    whole = attention()
    steps = Recipe(Attention("linear"), PruneStructured(0.5, by="magnitude", compensate=False), Quantize("int8"))
    assert steps(whole, items(whole, 2))(torch.randn(3, 6, 32)).shape == (3, 6, 32)


def test_a_recurrent_layer_cannot_be_masked():
    from planish.frontends import capture

    torch.manual_seed(0)
    lstm = capture(LSTMClassifier().eval(), (torch.randn(2, 8, 8),), {"x": {0: "batch"}})
    step = Width(0.5)
    assert step(lstm)(torch.randn(3, 8, 8)).shape[0] == 3
    assert step.candidates(lstm) == []
