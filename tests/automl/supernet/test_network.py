"""A supernet is each of its points: equal to the graph that the passes make, with its own share of the work."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from planish.automl.supernet import Slot, Supernet
from planish.automl.supernet.rank import rank
from planish.automl.supernet.run import Memory
from planish.automl.supernet.slots import all_points
from planish.compress import Attention, Prune, Replace, Width
from planish.errors import ModelError, OptionError, UnknownName
from planish.frontends import capture
from tests.automl.supernet.spaces import SPACES, cell, data, loss, supernet


@pytest.mark.parametrize("name", SPACES)
def test_each_point_is_what_the_passes_make(name):
    graph, slots = SPACES[name]()
    net, x = supernet(name), torch.cat([graph.example[0][0], graph.example[0][0] + 1])
    for point in random.Random(0).sample(all_points(slots), 4):
        # without attention there are no heads to be found
        order = sorted(slots, key=lambda slot: isinstance(slot.variants[-1], Attention))
        small = graph
        for slot in order:
            variant = slot.variants[slot.index(point[slot.name])]
            small = small if variant is None else variant(small)
        if name == "slim" and point["bits"] != "float":
            continue
        torch.testing.assert_close(net.choose(point)(x), small(x), atol=1e-5, rtol=1e-4)


def test_bits_round_what_the_other_decisions_read():
    graph, slots = SPACES["slim"]()
    net, x = supernet("slim"), graph.example[0][0]
    small = slots[0].variants[0](graph)
    torch.testing.assert_close(net.choose({"bits": 2, "kernel": 5, "width": 1.0})(x), small(x), atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        answers = [net.choose({"bits": bits, "kernel": 3, "width": 1.0})(x) for bits in (2, 8, "float")]
    coarse, fine, exact = answers
    assert float((fine - exact).norm()) < 0.05 * float((coarse - exact).norm())


def test_weights_start_as_the_graph_s_and_do_not_move_it():
    graph, _ = cell()
    net, before = supernet(), {name: tensor.clone() for name, tensor in graph.tensors.items()}
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    loss(net.choose({"edge0": "conv3x3", "edge1": "skip"}), data("train")[0]).backward()
    optimizer.step()
    assert all(torch.equal(graph.tensors[name], tensor) for name, tensor in before.items())
    assert not torch.equal(net.trained().tensors["head.weight"], before["head.weight"])
    assert torch.equal(net.trained().tensors["edges.1.0.weight"], before["edges.1.0.weight"])
    assert not torch.equal(net.trained().tensors["edges.0.1.running_mean"], before["edges.0.1.running_mean"])


def test_only_what_is_chosen_runs():
    net = supernet().train()
    loss(net.choose({"edge0": "none", "edge1": "conv1x1"}), data("train")[0]).backward()
    touched = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert not any("edges" in name for name in touched)
    assert any("mixed" in name for name in touched)
    sizes = [net.parameters_of(net.choice_of({"edge0": label, "edge1": "none"})) for label in net.slots[0].labels]
    assert sizes[0] == sizes[1] < sizes[2] < sizes[3]


def test_shares_mix_options():
    net, x = supernet(), data("validation")[0][0][0]
    with torch.no_grad():
        alone = []
        for option in (1, 3):
            net.choice = [option, 0]
            alone.append(net(x))
        net.choice = [[(1, torch.tensor(1.0)), (3, torch.tensor(0.0))], 0]
        torch.testing.assert_close(net(x), alone[0])
        net.choice = [[(1, torch.tensor(0.0)), (3, torch.tensor(1.0))], 0]
        torch.testing.assert_close(net(x), alone[1])


def test_a_path_is_calibrated_on_its_data_and_remembers():
    """The oracle: the stand-alone network, its batch norms in training mode."""
    graph, slots = cell()
    net, (x,) = supernet(), data("validation")[0][0]
    memory = Memory()
    for point in all_points(slots):
        small = graph
        for slot in slots:
            variant = slot.variants[slot.index(point[slot.name])]
            small = small if variant is None else variant(small)
        expected = small.module().train()(x)
        for given in (None, memory, memory):
            torch.testing.assert_close(net.at(point, given)(x), expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(net.trained().tensors["stem.1.running_mean"], graph.tensors["stem.1.running_mean"])


def test_memory_forgets_the_oldest():
    net, items = supernet(), data("validation")
    points = all_points(net.slots)
    small = Memory(room=200_000)
    (x,) = items[0][0]
    for point in points:
        torch.testing.assert_close(net.at(point, small)(x), net.at(point)(x))
    assert small.held <= 200_000


def test_ranking_is_by_loss():
    net = supernet()
    ranking = rank(net, all_points(net.slots), data("validation"), loss)
    losses = [value for _, value in ranking]
    assert len(ranking) == 16
    assert losses == sorted(losses)


def test_what_cannot_relax_is_named():
    graph, slots = cell()
    wrong = Slot("sparsity", ("dense", "half"), (None, Prune("50%", where="conv")))
    with pytest.raises(OptionError, match=r"(?s)'half'.*Prune only works as a whole.*sparsity"):
        Supernet(graph, (*slots, wrong))
    with pytest.raises(OptionError, match="leave the graph as it is"):
        Supernet(graph, (Slot("nothing", ("a", "b"), (None, None)),))
    with pytest.raises(OptionError, match="decides something"):
        Supernet(graph, ())
    with pytest.raises(OptionError, match="cannot stand here"):
        Supernet(graph, (Slot("wrong", (0, 1), (None, Replace("skip", "path('stem')", "modules"))),))
    with pytest.raises(OptionError, match="1 options"):
        Slot("one", (1,), (None,))


def test_a_graph_that_cannot_train_is_refused():
    graph = capture(nn.Linear(8, 8), (torch.randn(2, 8),), training=False)
    with pytest.raises(ModelError):
        Supernet(graph, (Slot("width", (1, 2), (Replace("skip"), None)),))


def test_bad_points():
    net = supernet()
    with pytest.raises(OptionError, match="edge1"):
        net.choose({"edge0": "skip"})
    with pytest.raises(UnknownName, match="conv3x3"):
        net.choose({"edge0": "skip", "edge1": "conv3"})


def test_modes_switch_what_is_random():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, 4))
    graph = capture(model.eval(), (torch.randn(3, 8),), {"input": {0: "batch"}})
    net = Supernet(graph, (Slot("width", (0.5, 1.0), (Width(0.5), None)),))
    x = torch.randn(5, 8)
    net.choose({"width": 0.5})
    torch.testing.assert_close(net(x), Width(0.5)(graph)(x))
    net.train()
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.at({"width": 0.5})(x), net.eval()(x))
