"""The papers' equations against direct float64 computations, and patterns by their properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from planish.compress.pruning import Sparsity
from planish.compress.pruning.admm import admm
from planish.compress.pruning.allocate import best_of_all
from planish.compress.pruning.sparsegpt import refit, sparsegpt
from planish.errors import OptionError


def problem(out: int = 6, width: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight, and the Gram matrix of inputs that are somewhat alike."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.eye(width).double() + 0.15 * torch.randn(width, width, generator=generator).double()
    inputs = torch.randn(200, width, generator=generator).double() @ mix
    return torch.randn(out, width, generator=generator).double(), inputs.T @ inputs


def lost(values: Tensor, best: Tensor, gram: Tensor) -> float:
    off = values.double() - best
    return float((off @ gram * off).sum())


def by_the_paper(weight: Tensor, gram: Tensor, kept_of: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """SparseGPT as its section 3 says it: for each column the inverse of the Gram matrix of the columns left is
    computed afresh; equation 3 chooses, equation 2 moves the rest."""
    keep, run = kept_of
    order = gram.diag().view(-1, run).mean(1).argsort(descending=True, stable=True)
    order = (order[:, None] * run + torch.arange(run)).flatten()
    w, h = weight[:, order].clone(), gram[order][:, order]
    kept = torch.ones_like(w, dtype=torch.bool)
    for column in range(w.shape[1]):
        if column % run == 0:
            # the cost of each column once those before it in the run are settled
            costs = torch.stack(
                [w[:, j].square() / torch.linalg.inv(h[j:, j:])[0, 0] for j in range(column, column + run)], 1
            )
            kept[:, column : column + run] = False
            kept[:, column : column + run].scatter_(1, costs.topk(keep, 1).indices, True)
        inverse = torch.linalg.inv(h[column:, column:])
        gone = torch.where(kept[:, column], 0, w[:, column])
        w[:, column:] -= torch.outer(gone / inverse[0, 0], inverse[0])
    values, mask = torch.empty_like(w), torch.empty_like(kept)
    values[:, order], mask[:, order] = w, kept
    return values * mask, mask


@pytest.mark.parametrize(("text", "kept_of"), [("2:4", (2, 4)), ("1:4", (1, 4)), ("8:16", (8, 16))])
def test_sparsegpt_is_the_papers(text: str, kept_of: tuple[int, int]) -> None:
    weight, gram = problem()
    values, kept = sparsegpt(weight, gram, Sparsity.parse(text), torch.ones_like(weight, dtype=torch.bool))
    wanted, mask = by_the_paper(weight, gram, kept_of)
    assert torch.equal(kept, mask)
    assert torch.allclose(values, wanted, atol=1e-9)


def test_refitting_gives_each_rows_least_squares() -> None:
    weight, gram = problem()
    _, kept = sparsegpt(weight, gram, Sparsity.parse("50%"), torch.ones_like(weight, dtype=torch.bool))
    found = refit(weight.masked_fill(~kept, 0), kept, weight, gram)
    for row in range(len(weight)):
        free = kept[row].nonzero()[:, 0]
        wanted = torch.linalg.solve(gram[free][:, free], gram[free] @ weight[row])
        assert torch.allclose(found[row, free].double(), wanted, rtol=1e-3, atol=1e-3)
        assert not found[row, ~kept[row]].any()


@pytest.mark.parametrize("text", ["50%", "2:4", "50% 2x2", "70%", "50% 3x1"])
@pytest.mark.parametrize("seed", range(3))
def test_each_step_loses_less(text: str, seed: int) -> None:
    """SparseGPT, SparseGPT refitted, alternating directions refitted; the last two than magnitude."""
    weight, gram = problem(12, 96, seed)
    sparsity, all_ = Sparsity.parse(text), torch.ones_like(weight, dtype=torch.bool)
    smallest = sparsity.keep(weight.abs())
    values, kept = sparsegpt(weight, gram, sparsity, all_)
    losses = [lost(values, weight, gram), lost(refit(values, kept, weight, gram), weight, gram)]
    values, kept = admm(weight, gram, sparsity, all_)
    losses += [lost(refit(values, kept, weight, gram), weight, gram)]
    assert losses == sorted(losses, reverse=True)
    assert losses[1] < lost(weight * smallest, weight, gram)


def test_alternating_directions_come_near_the_best_zeros() -> None:
    """Against all choices of 2 of each 4 in one row of eight."""
    from itertools import combinations, product

    sparsity, ratios = Sparsity.parse("2:4"), []
    for seed in range(10):
        weight, gram = problem(1, 8, seed)
        losses = []
        for left, right in product(combinations(range(4), 2), combinations(range(4, 8), 2)):
            free = torch.tensor([*left, *right])
            values = torch.zeros_like(weight)
            values[0, free] = torch.linalg.solve(gram[free][:, free], gram[free] @ weight[0])
            losses.append(lost(values, weight, gram))
        values, kept = admm(weight, gram, sparsity, torch.ones_like(weight, dtype=torch.bool))
        ratios.append(lost(refit(values, kept, weight, gram), weight, gram) / min(losses))
    assert sorted(ratios)[5] < 1.1


@pytest.mark.parametrize("solve", [sparsegpt, admm])
def test_what_may_not_stay_goes(solve) -> None:
    weight, gram = problem()
    allowed = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    values, kept = solve(weight, gram, Sparsity.parse("50%"), allowed)
    assert not (kept & ~allowed).any()
    assert not values[~kept].any()
    assert int(kept.sum()) == kept.numel() // 2


shapes = st.tuples(st.integers(1, 6).map(lambda n: 4 * n), st.integers(1, 6).map(lambda n: 4 * n))


@settings(max_examples=60)
@given(shapes, st.floats(0.02, 0.98), st.sampled_from([(1, 1), (4, 1), (1, 4), (2, 2)]), st.integers(0, 99))
def test_as_many_blocks_go_as_were_asked(shape, amount, block, seed) -> None:
    scores = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).round(decimals=1)  # with ties
    sparsity = Sparsity(amount, 0, block)
    kept = sparsity.keep(scores)
    pooled = sparsity.pooled(kept.int())
    size = block[0] * block[1]
    assert set(pooled.unique().tolist()) <= {0, size}
    assert int((pooled == 0).sum()) == round(pooled.numel() * amount)
    assert sparsity.fits(kept)
    more = Sparsity(min(0.99, amount + 0.2), 0, block).keep(scores)
    assert bool((kept | ~more).all())  # what a larger share keeps, a smaller one keeps
    again = sparsity.keep(scores.masked_fill(~kept, -torch.inf))
    assert torch.equal(again, kept)
    by_row = sparsity.keep(scores, by_row=True)
    assert len(set(sparsity.pooled(by_row.int()).sum(1).tolist())) == 1


@settings(max_examples=40)
@given(shapes, st.integers(1, 3), st.integers(0, 99))
def test_exactly_as_many_of_each_run_stay(shape, keep, seed) -> None:
    scores = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
    kept = Sparsity.parse(f"{keep}:4").keep(scores)
    assert (kept.view(-1, 4).sum(1) == keep).all()
    assert bool(
        (
            scores.masked_fill(~kept, torch.inf).view(-1, 4).amin(1)
            >= scores.masked_fill(kept, -torch.inf).view(-1, 4).amax(1)
        ).all()
    )


@settings(max_examples=40)
@given(st.floats(0.02, 0.98), st.integers(0, 99))
def test_one_threshold_takes_the_share_of_all(amount, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.randn(size, generator=generator).round(decimals=1) for name, size in
              {"a": (4, 8), "b": (6, 4), "c": (2, 2)}.items()}  # fmt: skip
    kept = best_of_all(scores, Sparsity(amount))
    total = sum(mask.numel() for mask in kept.values())
    assert sum(int((~mask).sum()) for mask in kept.values()) == round(total * amount)
    stays = min(float(scores[n][kept[n]].min()) for n in kept if kept[n].any()) if amount < 0.98 else 9
    goes = max(float(scores[n][~kept[n]].max()) for n in kept if not kept[n].all())
    assert stays >= goes


@pytest.mark.parametrize("text", ["50%", "12.5%", "2:4", "1:8", "50% 4x1", "75% 16x16"])
def test_a_sparsity_reads_back(text: str) -> None:
    assert str(Sparsity.parse(text)) == text
    assert Sparsity.parse(str(Sparsity.parse(text))) == Sparsity.parse(text)


@pytest.mark.parametrize("text", ["", "4:2", "4:4", "0:4", "0%", "100%", "120%", "1.5", "half", "50% 0x4", "2:4 4x1"])
def test_what_is_no_sparsity_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        Sparsity.parse(text)
