from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor, nn

from planish.compress import EarlyExit, Quantize
from planish.compress.adaptive import stages
from planish.compress.adaptive.heads import NEVER, Answers, fit, thresholds
from planish.compress.adaptive.values import values_of
from planish.errors import DataError, OptionError
from planish.frontends import capture
from planish.graph import Graph
from planish.models.vit import ViT
from planish.recipe import Recipe
from tests.compress import contract
from tests.support import require


class Net(nn.Module):
    """Convolutions in a list, pooled into a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(i, 6, 3, padding=1), nn.ReLU()) for i in (1, 6, 6, 6)))
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(x).mean((2, 3)))


def images(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise with a bright third, and which third it is."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(count, 1, 9, 9, generator=generator), torch.randint(3, (count,), generator=generator)
    for image, third in zip(x, y, strict=True):
        image[:, 3 * third : 3 * third + 3] += 0.6
    return x, y


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    return capture(Net().eval(), (torch.randn(2, 1, 9, 9),), dynamic={"x": {0: "batch"}})


@pytest.fixture(scope="module")
def data() -> list:
    x, _ = images(400)
    return [((part,), {}) for part in x.split(100)]


@pytest.fixture(scope="module")
def exiting(graph, data) -> Graph:
    return leaving_by_halves(EarlyExit(at=("blocks.0", "blocks.2"), loss=0.1)(graph, data))


def leaving_by_halves(small: Graph, x: Tensor | None = None) -> Graph:
    """The same with thresholds that about half of the rows pass at each exit."""
    sure = [node for node in small.nodes if node.op == "amax"]
    (seen,) = values_of(small, [((images(400)[0] if x is None else x,), {})], [node.name for node in sure])
    edit = small.edit()
    for node in sure:
        edit.set_tensor(f"{node.path}.threshold", seen[node.name].median().reshape(1))
    return edit.done()


def test_each_row_takes_the_first_answer_that_is_sure(exiting, graph):
    x, _ = images(64, seed=1)
    head = [
        {name: exiting.tensors[f"exits.{i}.{name}"].detach() for name in ("weight", "bias", "threshold")}
        for i in (0, 1)
    ]
    net = Net()
    net.load_state_dict({name: graph.tensors[name] for name in net.state_dict()})
    with torch.no_grad():
        at = [net.blocks[:1](x), net.blocks[:3](x)]
        fields = [nn.functional.avg_pool2d(value, 3, 2).flatten(1) for value in at]
        said = [nn.functional.linear(f, h["weight"], h["bias"]) for f, h in zip(fields, head, strict=True)]
        wanted, left_at = [], set()
        for row in range(len(x)):
            for place, (logits, h) in enumerate(zip(said, head, strict=True)):
                if logits[row].softmax(0).max() >= h["threshold"]:
                    wanted.append(logits[row])
                    left_at.add(place)
                    break
            else:
                wanted.append(net(x)[row])
                left_at.add(2)
    torch.testing.assert_close(exiting(x), torch.stack(wanted))
    assert len(left_at) > 1, "the test sees one way only"


def test_entropy_is_that_of_scipy(graph, data):
    small = EarlyExit(at=("blocks.1",), confidence="entropy", loss=0.1)(graph, data)
    x, _ = images(32, seed=2)
    first, _ = stages(small)
    answer, sure, *_ = first.graph(x)
    share = 1 - entropy(answer.double().softmax(1).numpy(), axis=1) / np.log(3)
    assert (sure.flatten().numpy() == (share >= float(small.tensors["exits.0.threshold"]))).all()


def test_heads_imitate_the_whole_model():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(600, 5), torch.randn(3, 5), torch.randn(3)
    got_weight, got_bias, unseen = fit(x, x @ weight.T + bias)
    for logits in (x @ got_weight.T + got_bias, unseen):
        torch.testing.assert_close(logits.softmax(1), (x @ weight.T + bias).softmax(1), atol=0.05, rtol=0)


def test_what_is_learned_by_heart_does_not_count():
    """More features than rows: a classifier knows its own rows' noise, and nothing of the others'."""
    torch.manual_seed(0)
    x, teacher = torch.randn(100, 300), 5 * torch.randn(100, 2)
    weight, bias, unseen = fit(x, teacher)
    assert float(((x @ weight.T + bias).argmax(1) == teacher.argmax(1)).float().mean()) > 0.9
    assert float((unseen.argmax(1) == teacher.argmax(1)).float().mean()) < 0.65


def test_other_rows_lose_no_more_either():
    """Exits that are right as often as they are sure: thresholds of 500 rows, judged on all."""
    generator, lost = torch.Generator().manual_seed(0), []
    for _ in range(40):
        sure = torch.rand(20_000, generator=generator)
        right, last = (torch.rand(20_000, generator=generator) < share for share in (0.5 + 0.45 * sure, 0.9))
        (limit,) = thresholds([Answers(sure[:500], right[:500])], last[:500], (0.3, 0.7), 0.005)
        leaves = sure >= limit
        lost.append(float((last[leaves].float() - right[leaves].float()).sum()) / len(sure))
    assert sum(one <= 0.005 for one in lost) >= 36


@pytest.mark.parametrize("loss", [0.0, 0.02, 0.1])
def test_thresholds_keep_to_the_loss(loss):
    generator = torch.Generator().manual_seed(3)
    sure = [torch.rand(200, generator=generator) for _ in range(2)]
    exits = [Answers(s, torch.rand(200, generator=generator) < 0.4 + 0.6 * s) for s in sure]
    last = torch.rand(200, generator=generator) < 0.97
    found = thresholds(exits, last, (0.2, 0.3, 0.5), loss)

    def run(limits: tuple[float, ...]) -> tuple[float, float]:
        """Mean cost and lost accuracy with its margin, row by row."""
        cost, changes = 0.0, [[], []]
        for row in range(200):
            cost += 0.2
            for place, (answers, limit) in enumerate(zip(exits, limits, strict=True)):
                if answers.sure[row] >= limit:
                    changes[place].append(int(last[row]) - int(answers.right[row]))
                    break
                cost += (0.3, 0.5)[place]
        return cost / 200, sum(sum(some) + 1.645 * sum(map(abs, some)) ** 0.5 for some in changes) / 200

    cost, lost = run(tuple(found))
    assert lost <= loss + 1e-6
    grid = [*(i / 10 for i in range(11)), NEVER]
    fine = [run(limits)[0] for limits in product(grid, grid) if run(limits)[1] <= loss + 1e-6]
    assert cost <= min(fine) + 0.05, "a coarse grid finds something much cheaper"


def test_exits_hold_the_contract(graph, data, tmp_path):
    step = EarlyExit(at=("blocks.1",), loss=0.1)
    assert Recipe.from_data(Recipe(step).to_data()) == Recipe(step)
    small = contract.applied(graph, [step, Quantize("int8", "uint8", where="conv | linear")], data, tmp_path)
    require("onnxruntime")
    contract.builds(small)
    x, _ = images(8, seed=5)
    torch.testing.assert_close(small.module(hierarchical=True)(x), small(x))


class Named(nn.Module):
    """A list of modules whose operations all belong to modules with names, and one list within another."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(8, 8))}) for _ in range(4))
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer["mlp"](x)
        return self.fc(x)


def test_a_number_of_exits_is_spread_over_the_outermost_list():
    graph = capture(Named().eval(), (torch.randn(2, 8),), dynamic={"x": {0: "batch"}}, training=False)
    assert [step.path for step in EarlyExit(at=2).plan(graph)] == ["layers.0", "layers.2"]


def test_tokens_exit_through_the_models_own_norm_and_class_token():
    torch.manual_seed(0)
    model = ViT(num_classes=3, image=12, patch=4, dim=8, depth=3, heads=2).eval()
    graph = capture(model, (torch.randn(2, 3, 12, 12),), dynamic={"image": {0: "batch"}}, training=False)
    x = torch.randn(40, 3, 12, 12)
    small = EarlyExit(at=1, loss=1 / 3)(graph, [((x,), {})])
    (head,) = [node for node in small.nodes if node.op == "linear" and node.path == "exits.0"]
    first = stages(small)[0].graph
    assert head.input.shape == ("batch", 8)
    with torch.no_grad():
        tokens = model.patch_embed(x)
        tokens = torch.cat([model.cls_token.expand(40, -1, -1), tokens], 1) + model.pos_embed
        wanted = model.norm(model.blocks[:1](tokens))[:, 0]
    weight, bias = small.tensors["exits.0.weight"], small.tensors["exits.0.bias"]
    torch.testing.assert_close(first(x)[0], wanted @ weight.detach().T + bias.detach())


def test_targets_decide_what_is_lost(graph):
    x, y = images(400)
    labeled = EarlyExit(at=("blocks.0",), loss=0.0)(graph, [((x,), {}, y)])
    assert float((labeled(x).argmax(1) == y).float().mean()) >= float((graph(x).argmax(1) == y).float().mean()) - 0.05


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (EarlyExit(at=("nothing",)), "no module 'nothing'"),
        (EarlyExit(at=9), "no 9"),
    ],
)
def test_places_that_are_not_there_are_refused(graph, step, reason):
    with pytest.raises(OptionError, match=reason):
        step.plan(graph)


def test_what_is_no_classifier_is_refused(exiting, graph, data):
    with pytest.raises(OptionError, match="exits already"):
        EarlyExit(at=("blocks.0",)).plan(exiting)
    assert stages(graph) == []
    with pytest.raises(DataError, match="too few"):
        EarlyExit(at=("blocks.0",))(graph, [((torch.randn(2, 1, 9, 9),), {})])
    with pytest.raises(DataError, match="targets"):
        EarlyExit(at=("blocks.0",))(graph, [((torch.randn(20, 1, 9, 9),), {}, torch.zeros(3, dtype=torch.int64))])
    fixed = capture(Net().eval(), (torch.randn(20, 1, 9, 9),), training=False)
    with pytest.raises(OptionError, match="fixed size"):
        stages(EarlyExit(at=("blocks.0",), loss=0.5)(fixed, [((torch.randn(20, 1, 9, 9),), {})]))


@pytest.mark.parametrize("options", [{"at": 0}, {"at": ()}, {"confidence": "luck"}, {"loss": 1.0}, {"loss": -0.1}])
def test_bad_options_are_refused(options):
    with pytest.raises(OptionError):
        EarlyExit(**options)
