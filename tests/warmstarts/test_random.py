import pytest
import torch
from hypothesis import given
from strategies import PATTERNS, problems

from prunelib import select
from prunelib.masks.checks import check_mask
from prunelib.warmstarts.random import RandomScores, random_scores

WEIGHT = torch.randn(64, 96, generator=torch.Generator().manual_seed(0))


@given(problems())
def test_scores_are_those_of_a_uniform_draw_and_give_exact_counts(p):
    scores = random_scores(p.weight, p.gram)
    assert scores.shape == p.weight.shape
    assert scores.dtype == torch.float32
    assert ((scores >= 0) & (scores < 1)).all()
    check_mask(select(scores, p.pattern), p.weight, p.pattern)


def test_scores_spread_evenly():
    counts = torch.histc(random_scores(WEIGHT), bins=16, min=0, max=1)
    chi_squared = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert chi_squared < 38  # one in a thousand uniform draws with 15 degrees of freedom exceeds it


def test_the_draw_is_the_same_for_ever():
    scores = random_scores(torch.arange(6.0).view(2, 3), settings=RandomScores(seed=7))
    assert (scores * 2**24).int().tolist() == [[14464147, 13323067, 10064328], [473261, 10215610, 8979782]]


def test_seed_and_weight_decide_the_draw_and_nothing_else_does():
    scores = random_scores(WEIGHT)
    assert torch.equal(random_scores(WEIGHT.T.contiguous().T, torch.eye(96)), scores)
    other = WEIGHT.clone()
    other[0, 0] += 1
    for changed in (random_scores(WEIGHT, settings=RandomScores(seed=1)), random_scores(other)):
        assert (changed == scores).float().mean() < 0.01


def test_the_draw_does_not_favour_large_weights():
    mask = select(random_scores(WEIGHT), PATTERNS[1])
    assert WEIGHT[mask].abs().mean().item() == pytest.approx(WEIGHT.abs().mean().item(), rel=0.05)


def test_half_precision_weights_have_draws_too():
    assert random_scores(WEIGHT.bfloat16()).dtype == torch.float32
