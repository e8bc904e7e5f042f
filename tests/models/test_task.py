from __future__ import annotations

import pytest
import torch
from torch import nn

from planish import metrics
from planish.errors import DataError, ModelError, UnknownName
from planish.models.task import Later, Task, check_data, split_inputs
from planish.record import Measurement

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def linear() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(4, 3)


def task(**options) -> Task:
    given = {"calibration": [((X,), {})], "evaluation": [((X,), {}, Y)], **options}
    return Task(linear().train(), (X[:2],), **given)


def test_model_is_in_evaluation_mode():
    assert not task().model.training
    assert task().name == "Linear"


@pytest.mark.parametrize(
    ("example", "expected"),
    [(X, ((X,), {})), ((X,), ((X,), {})), ({"a": X}, ((), {"a": X})), (((X,), {"a": X}), ((X,), {"a": X}))],
)
def test_split_inputs(example, expected):
    args, kwargs = split_inputs(example)
    assert [a is b for a, b in zip(args, expected[0], strict=True)] == [True] * len(args)
    assert kwargs.keys() == expected[1].keys()


def test_judge_reports_every_metric_and_marks_the_headline():
    counted = lambda model, data: Measurement("batches", sum(1 for _ in data), "1", "exact")  # noqa: E731
    own = [((X,), {}, Y), ((X,), {}, Y)]
    judged = task(metric=("accuracy", "sqnr", counted, (counted, own)))
    rows = judged.judge(subject="original")
    assert [row.name for row in rows] == ["accuracy", "sqnr", "batches", "batches"]
    assert [row.value for row in rows[2:]] == [1, 2]
    assert rows[1].value > 140
    assert {row.subject for row in rows} == {"original"}
    assert [row.details.get("headline", False) for row in rows] == [True, False, False, False]


def test_fidelity_compares_with_the_original_whatever_the_target():
    half = linear()
    with torch.no_grad():
        half.weight.mul_(0.5)
        half.bias.mul_(0.5)
    rows = task(metric=("sqnr", "mean_cosine")).judge(half)
    assert rows[0].value == pytest.approx(6.02, abs=0.01)
    assert rows[1].value == pytest.approx(1)


def test_validation_is_apart():
    judged = task(metric=("accuracy", ("mse", [((X,), {}, X[:, :3])])), validation=[((X,), {}, linear()(X).argmax(1))])
    (row,) = judged.judge(on="validation")
    assert row.value == 1
    with pytest.raises(DataError, match="no validation data"):
        task().judge(on="validation")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "empty"),
        ([((X * torch.nan,), {})], "NaN"),
        ([X], r"not a Tensor"),
        ([(X,)], r"not a tuple of 1"),
        ([(X, Y)], r"not a tuple of 2"),
        ([((X, X), {})], "2 arguments"),
        ([((X.long(),), {})], "torch.int64"),
        ([((X[0],), {})], "1 axes"),
        (iter([((X,), {})]), "only once"),
        (7, "not int"),
    ],
)
def test_bad_data_is_refused_at_the_door(data, message):
    with pytest.raises(DataError, match=message):
        check_data(data, "calibration", like=((X,), {}))


def test_a_later_item_is_refused_when_read():
    built = task(calibration=[((X,), {}), ((X * torch.nan,), {})])
    with pytest.raises(DataError, match=r"calibration\[1\]\[0\]\[0\]"):
        list(built.calibration)


def test_an_empty_generator_like_is_refused():
    class Nothing:
        def __iter__(self):
            return iter([])

    with pytest.raises(DataError, match="empty"):
        task(calibration=Nothing())


def test_additive_masks_may_hold_infinity():
    check_data([((torch.tensor([0.0, -torch.inf]),), {})])


def test_wrong_model_and_metric():
    with pytest.raises(ModelError, match="not str"):
        Task("resnet", (X,))
    with pytest.raises(UnknownName, match="accuracy"):
        task(metric="acuracy")
    with pytest.raises(DataError, match="example inputs"):
        Task(linear(), 3)


def test_callables_pass_through():
    assert metrics.get(metrics.accuracy) is metrics.accuracy


def test_training_data_is_made_and_checked_when_it_is_read():
    made = []

    def make():
        made.append(True)
        return [((X,), {}), ((X[:, :2, None],), {})]

    given = task(training=Later(make, "rows")).training
    assert not made
    assert given.description == "rows"
    items = iter(given)
    assert torch.equal(next(items)[0][0], X)
    with pytest.raises(DataError, match=r"training\[1\]"):
        next(items)
    assert len(list(zip(range(1), given, strict=False))) == len(made) == 1
