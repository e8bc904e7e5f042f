"""Which axes are the same channels: against what zeroing channels does to the output, and against known structures."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from planish.analysis.dependency import Dependencies, Dim, dependencies, indices_of, labels_of, size_of
from planish.analysis.dependency.dims import concatenation, freeze, leaves, product, unify
from planish.frontends import capture


def found(model: nn.Module, *inputs: Tensor) -> Dependencies:
    return dependencies(capture(model.eval(), inputs))


def described(dependent: Dependencies) -> set[tuple[int, str, str]]:
    return {(group.size, group.kind, group.path) for group in dependent.free}


# --- the algebra ---------------------------------------------------------------------------------------------------


@st.composite
def shapes(draw) -> tuple[list[int], list[int], list[int]]:
    """Factors of an axis, and two ways to cut it at borders of those."""
    factors = draw(st.lists(st.integers(2, 3), min_size=2, max_size=4))

    def grouped() -> list[int]:
        sizes, left = [], list(factors)
        while left:
            count = draw(st.integers(1, len(left)))
            sizes.append(int(torch.tensor(left[:count]).prod()))
            left = left[count:]
        return sizes

    return factors, grouped(), grouped()


@settings(max_examples=80)
@given(shapes(), st.randoms(use_true_random=False))
def test_two_views_of_an_axis_lose_the_same_numbers(cut, random) -> None:
    _, first, second = cut
    left, right = [Dim(size) for size in first], [Dim(size) for size in second]
    axis = Dim(int(torch.tensor(first).prod()))
    unify(axis, product(left), "")
    unify(axis, product(right), "")
    assert not any(leaf.frozen for leaf in leaves(axis))
    keep = {}
    for leaf in dict.fromkeys(leaves(axis)):
        count = random.randint(1, leaf.size)
        keep[leaf] = torch.tensor(sorted(random.sample(range(leaf.size), count)))
    whole = torch.arange(axis.size)
    expected = whole[indices_of(axis, keep)]
    for sizes, dims in ((first, left), (second, right)):  # the oracle: slicing every axis of the view
        view = whole.reshape(sizes)
        for place, dim in enumerate(dims):
            view = view.index_select(place, indices_of(dim, keep))
        assert torch.equal(view.reshape(-1), expected)
        assert [size_of(dim, keep) for dim in dims] == list(view.shape)


def test_parts_are_cut_where_either_has_a_border() -> None:
    axis, (a, b), (c, d) = Dim(10), (Dim(4), Dim(6)), (Dim(7), Dim(3))
    unify(axis, concatenation((a, b)), "")
    unify(axis, concatenation((c, d)), "")
    assert [leaf.size for leaf in leaves(axis)] == [4, 3, 3]
    keep = {next(leaves(a)): torch.tensor([1]), next(leaves(d)): torch.tensor([0, 2])}
    assert indices_of(axis, keep).tolist() == [1, 4, 5, 6, 7, 9]
    assert indices_of(c, keep).tolist() == [1, 4, 5, 6]
    assert labels_of(axis, next(leaves(d))).tolist() == [-1] * 7 + [0, 1, 2]


def test_query_key_and_value_side_by_side_then_in_heads() -> None:
    axis, view = Dim(24), (Dim(3), Dim(2), Dim(4))
    unify(axis, concatenation([Dim(8), Dim(8), Dim(8)]), "")
    unify(axis, product(view), "")
    kept = {next(leaves(view[2])): torch.tensor([0, 3])}
    assert indices_of(axis, kept).tolist() == [4 * head + at for head in range(6) for at in (0, 3)]


def test_what_cannot_be_said_is_held_and_says_where() -> None:
    axis = Dim(12)
    unify(axis, product((Dim(4), Dim(3))), "")
    unify(axis, product((Dim(3), Dim(4))), "view in m cuts otherwise")
    assert {leaf.frozen for leaf in leaves(axis)} == {"view in m cuts otherwise"}


def test_what_is_held_stays_held_in_its_parts() -> None:
    axis = Dim(12)
    freeze(axis, "input")
    unify(axis, product((Dim(4), Dim(3))), "")
    assert {leaf.frozen for leaf in leaves(axis)} == {"input"}


# --- structures ----------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 8, 1)
        self.norm, self.fc = nn.BatchNorm2d(6), nn.Linear(8 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.fc((x + self.b(torch.relu(self.norm(self.a(x))))).flatten(1))


def test_a_residual_stream_is_one_group_and_a_flatten_a_product() -> None:
    dependent = found(Residual(), torch.randn(2, 3, 4, 4))
    assert described(dependent) == {(8, "channels", "stem"), (6, "channels", "a")}
    stream = next(group for group in dependent.free if group.path == "stem")
    assert set(stream.makers) == {"conv2d", "conv2d_2"}
    assert {(place.tensor, place.axis) for place in stream.places} == {
        *(("stem.weight", 0), ("stem.bias", 0), ("b.weight", 0), ("b.bias", 0), ("a.weight", 1), ("fc.weight", 1))
    }
    keep = {stream.dim: torch.tensor([0, 2])}
    assert indices_of(dependent.tensors["fc.weight"][1], keep).tolist() == [*range(16), *range(32, 48)]


class Grouped(nn.Module):
    """A key and value for every two query heads."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(8, 16), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (-1, 4)).transpose(1, 2) for p in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.o(y.transpose(1, 2).flatten(2))


def test_shared_key_heads_go_with_all_of_their_queries() -> None:
    dependent = found(Grouped(), torch.randn(2, 3, 8))
    assert sorted((group.size, group.kind) for group in dependent.free) == [
        *((2, "heads"), (2, "heads"), (4, "features"), (4, "features"))
    ]
    shared = next(group for group in dependent.free if group.kind == "heads" and "linear_1" in group.makers)
    keep = {shared.dim: torch.tensor([1])}
    assert indices_of(dependent.tensors["q.weight"][0], keep).tolist() == list(range(8, 16))
    assert indices_of(dependent.tensors["k.weight"][0], keep).tolist() == list(range(4, 8))


class Strange(nn.Module):
    def __init__(self, between) -> None:
        super().__init__()
        self.a, self.b, self.between = nn.Linear(4, 12), nn.Linear(12, 4), between

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.between(self.a(x)))


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda x: torch.fft.fft(x).real, "has no rule"),
        (lambda x: torch.softmax(x, -1), "looks at all of it"),
        (lambda x: nn.functional.layer_norm(x, (12,)), "normalizes over it"),
        (lambda x: x.flip(-1), "looks at all of it"),
        (lambda x: x + torch.arange(12.0), "numbers it"),
        (lambda x: x.reshape(-1, 4, 3).transpose(1, 2).reshape(-1, 3, 4).flatten(1) + x, "cuts a dimension otherwise"),
        (lambda x: x[:, torch.tensor([3, 1, 2, 0, 4, 5, 6, 7, 8, 9, 10, 11])], "looks it up by number"),
        (lambda x: x.cumsum(-1), "looks at all of it"),
    ],
)
def test_refusals_name_the_operation_and_the_module(between, reason: str) -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return between(x)

    dependent = found(Strange(Named()), torch.randn(3, 4))
    assert "a" not in {group.path for group in dependent.free}
    refusals = [group.refusal for group in dependent.refused if group.path == "a"]
    assert any(reason in refusal and " in between (" in refusal for refusal in refusals), refusals


def test_inputs_and_outputs_are_kept() -> None:
    dependent = found(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), torch.randn(3, 4))
    assert [(group.size, group.refusal) for group in dependent.refused] == [
        (4, "it is the model's input input_1"),
        (2, "the model returns it"),
    ]


def test_a_dynamic_batch_is_never_taken_for_channels() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).reshape(x.shape[0] * 2, 4)).reshape(x.shape[0], 2, 4)

    graph = capture(Net().eval(), (torch.randn(8, 4),), dynamic={"x": {0: "batch"}})
    assert all(group.size in (2, 4) for group in dependencies(graph).groups)
