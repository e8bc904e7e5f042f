from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from planish.compress import MergeTokens, PruneTokens, Quantize
from planish.errors import OptionError
from planish.frontends import capture
from planish.graph import Graph
from planish.models.vit import Attention, Block, ViT
from planish.recipe import Recipe
from tests.compress import contract
from tests.support import require

pytestmark = pytest.mark.long  # each captures a transformer


class Stream(nn.Module):
    """Attention added to its tokens, `blocks` times."""

    def __init__(self, blocks: int = 1, width: int = 12, heads: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Attention(width, heads) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x * 1.0


def captured(model: nn.Module, *shape: int) -> Graph:
    name = "image" if isinstance(model, ViT) else "x"
    return capture(model.eval(), (torch.randn(*shape),), dynamic={name: {0: "batch"}})


def merge_by_loops(x: Tensor, key: Tensor, size: list[float], remove: int, protect: int) -> tuple[Tensor, list[float]]:
    """Bipartite soft matching of arXiv 2210.09461, appendix D, for one image: plain loops over float64 tokens."""
    tokens = range(len(x))
    even = [t for t in tokens if t % 2 == 0 and t >= protect]
    odd = [t for t in tokens if t % 2 == 1 and t >= protect]

    def cosine(a: int, b: int) -> float:
        return float(key[a] @ key[b] / key[a].norm() / key[b].norm())

    edges = []
    for a in even:
        scores = [cosine(a, b) for b in odd]
        best = max(range(len(odd)), key=scores.__getitem__)
        edges.append((scores[best], a, odd[best]))
    edges.sort(key=lambda edge: -edge[0])
    total = {t: x[t] * size[t] for t in tokens}
    count = dict(enumerate(size))
    for _, a, b in edges[:remove]:
        total[b] = total[b] + x[a] * size[a]
        count[b] += size[a]
    order = [*range(protect), *(a for _, a, _ in edges[remove:]), *odd]
    return torch.stack([total[t] / count[t] for t in order]), [count[t] for t in order]


@torch.no_grad()
def by_loops(model: Stream, x: Tensor, remove: int, protect: int) -> Tensor:
    """The model with merging, one image at a time, in float64; attention as the paper's equation 1."""
    images = []
    for image in x.double():
        size = [1.0] * len(image)
        for block in model.blocks:
            heads, width = block.heads, image.shape[1]
            qkv = image @ block.qkv.weight.double().T + block.qkv.bias.double()
            query, key, value = (part.unflatten(1, (heads, -1)).transpose(0, 1) for part in qkv.split(width, 1))
            scores = query @ key.mT / math.sqrt(width // heads) + torch.tensor(size).double().log()
            mixed = (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)
            image = image + mixed @ block.proj.weight.double().T + block.proj.bias.double()
            image, size = merge_by_loops(image, key.mean(0), size, remove, protect)
        images.append(image)
    return torch.stack(images)


@pytest.mark.parametrize(
    ("tokens", "protect", "remove", "blocks"), [(10, 1, 3, 2), (9, 0, 2, 2), (12, 2, 3, 1), (7, 1, 1, 1), (13, 3, 4, 1)]
)
def test_merging_is_the_papers(tokens, protect, remove, blocks):
    torch.manual_seed(tokens)
    model = Stream(blocks).eval()
    x = torch.randn(3, tokens, 12)
    small = MergeTokens(remove, protect)(captured(model, 2, tokens, 12))
    torch.testing.assert_close(small(x).double(), by_loops(model, x, remove, protect), atol=2e-5, rtol=2e-5)


def test_no_more_than_all_pairs_are_merged():
    model = Stream()
    graph = captured(model, 2, 7, 12)
    assert MergeTokens(100, 1).plan(graph)[0].action == "7 tokens merged into 4"
    x = torch.randn(2, 7, 12)
    torch.testing.assert_close(MergeTokens(100, 1)(graph)(x).double(), by_loops(model, x, 3, 1), atol=2e-5, rtol=2e-5)


def test_shares_are_of_the_blocks_own_tokens():
    plan = MergeTokens(0.25).plan(captured(Stream(2), 2, 16, 12))
    assert [step.action for step in plan] == ["16 tokens merged into 12", "12 tokens merged into 9"]
    assert [step.path for step in plan] == ["blocks.0", "blocks.1"]


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.attention(x)).mean(1)


def test_a_mean_over_tokens_counts_what_was_merged():
    graph = captured(Pooled(), 2, 10, 12)
    torch.testing.assert_close(MergeTokens(3, 0)(graph)(x := torch.randn(2, 10, 12)), graph(x))


def tiny_vit() -> Graph:
    torch.manual_seed(0)
    return captured(ViT(num_classes=5, image=24, patch=4, dim=24, depth=3, heads=2), 2, 3, 24, 24)


MERGE, PRUNE, BOTH = MergeTokens(8), PruneTokens(0.3, by="norm", protect=0), Quantize("int8", "uint8")


@pytest.mark.long
@pytest.mark.parametrize("steps", [(MERGE, BOTH), (BOTH, MERGE), (PruneTokens(8),), (PRUNE, BOTH)])
def test_fewer_tokens_hold_the_contract(steps, tmp_path):
    graph = tiny_vit()
    data = [((torch.randn(4, 3, 24, 24),), {})]
    small = contract.applied(graph, steps, data, tmp_path)
    assert Recipe.from_data(Recipe(*steps).to_data()) == Recipe(*steps)
    require("onnxruntime")
    contract.builds(small)
    torch.testing.assert_close(small.recapture()(*data[0][0]), small(*data[0][0]))
    torch.testing.assert_close(small.module(hierarchical=True)(*data[0][0]), small(*data[0][0]))


def test_openvino_merges_alike():
    require("openvino")
    contract.builds(MergeTokens(6)(tiny_vit()), "openvino")


def test_transformers_models_merge():
    transformers = require("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=24, patch_size=4
    )
    model = transformers.ViTForImageClassification(config).eval()
    graph = capture(model, {"pixel_values": torch.randn(2, 3, 24, 24)}, dynamic={"pixel_values": {0: "batch"}})
    small = MergeTokens(10)(graph)
    assert small(pixel_values=torch.randn(3, 3, 24, 24)).logits.shape == (3, 2)
    assert small.select("attention")[1].args[1].shape[2] == 27


def test_pruning_by_class_keeps_what_the_class_token_sees():
    torch.manual_seed(0)
    model = Stream().eval()
    x = torch.randn(2, 9, 12)
    got = PruneTokens(3)(captured(model, 2, 9, 12))(x)
    for image, kept in zip(x, got, strict=True):
        qkv = model.blocks[0].qkv(image)
        query, key, _ = (part.unflatten(1, (2, -1)) for part in qkv.split(12, 1))
        seen = sum((key[:, head] @ query[0, head] / math.sqrt(6)).softmax(0) for head in range(2))[1:]
        best = [0, *(1 + t for t in seen.argsort(descending=True)[:5].tolist())]
        torch.testing.assert_close(kept, (image + model.blocks[0](image[None])[0])[best])


def test_pruning_by_norm_keeps_the_longest():
    graph = captured(Stream(), 2, 9, 12)
    x = torch.randn(2, 9, 12)
    lengths = graph(x).norm(dim=2).sort(descending=True).values[:, :4]
    torch.testing.assert_close(PruneTokens(5, "norm", protect=0)(graph)(x).norm(dim=2), lengths)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q = self.proj(x).unsqueeze(1)
        return x + nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).squeeze(1)


class Positions(nn.Module):
    """Something after the attention needs every token."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.places = Block(12, 2, 24), nn.Parameter(torch.randn(1, 10, 12))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + self.places


@pytest.mark.parametrize(
    ("model", "shape", "reason"),
    [
        (Masked(), (2, 6, 8), "mask"),
        (Positions(), (2, 10, 12), "needs all 10 tokens"),
        (nn.Sequential(nn.Linear(4, 4)), (2, 4), "matches nothing"),
    ],
)
def test_what_cannot_merge_is_refused(model, shape, reason):
    graph = capture(model.eval(), (torch.randn(*shape),), dynamic=None)
    with pytest.raises(OptionError, match=reason):
        MergeTokens(2)(graph)
    with pytest.raises(OptionError, match=reason):
        PruneTokens(2)(graph)


def test_tokens_that_get_fewer_already_are_refused():
    graph = tiny_vit()
    with pytest.raises(OptionError, match="37, 26, 18"):
        MERGE.plan(PRUNE(graph))
    with pytest.raises(OptionError, match="mask"):
        PRUNE.plan(MergeTokens(8)(graph))


def test_a_varying_number_of_tokens_is_refused():
    graph = capture(Stream().eval(), (torch.randn(2, 6, 12),), dynamic={"x": {1: "tokens"}})
    with pytest.raises(OptionError, match="varies"):
        MergeTokens(2).plan(graph)


@pytest.mark.parametrize("remove", [0, -1, 1.5, float("nan")])
def test_bad_counts_are_refused(remove):
    for kind in (MergeTokens, PruneTokens):
        with pytest.raises(OptionError):
            kind(remove)
    with pytest.raises(OptionError):
        MergeTokens(protect=-1)
    with pytest.raises(OptionError):
        PruneTokens(by="class", protect=0)
    with pytest.raises(OptionError):
        PruneTokens(by="color")
