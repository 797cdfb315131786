"""Verdicts: the statistics are those of the textbook, and noise is not kept."""

import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evaluators.verdict import NoiseEstimate, improbability, pooled_noise, summarise

samples = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)


@given(samples, samples)
def test_two_groups_give_students_t_test(first: list[float], second: list[float]) -> None:
    noise = pooled_noise([first, second])
    if noise.variance < 1e-12:
        return
    gain = fmean(first) - fmean(second)
    expected = stats.ttest_ind(first, second, alternative="greater").pvalue
    assert improbability(gain, len(first), len(second), noise) == pytest.approx(expected, abs=1e-9)


def test_groups_of_one_say_nothing_about_noise() -> None:
    assert pooled_noise([[1.0], [2.0]]).df == 0
    assert improbability(1.0, 1, 1, pooled_noise([[1.0], [2.0]])) == 1.0


def test_pooling_is_the_within_group_mean_square() -> None:
    groups = [[1.0, 2.0, 3.0], [10.0, 12.0]]
    assert pooled_noise(groups) == NoiseEstimate(variance=(2.0 + 2.0) / 3, df=3)


def test_a_noiseless_gain_is_certain_and_a_noiseless_tie_is_not() -> None:
    noise = NoiseEstimate(0.0, 4)
    assert improbability(0.1, 5, 5, noise) == 0.0
    assert improbability(0.0, 5, 5, noise) == 1.0


def test_the_false_keep_rate_is_the_tasks_level() -> None:
    draw = random.Random(1)
    kept = 0
    for _ in range(4000):
        champion = [draw.gauss(2.0, 0.1) for _ in range(5)]
        same = [draw.gauss(2.0, 0.1) for _ in range(5)]
        noise = pooled_noise([champion, same])
        kept += improbability(fmean(champion) - fmean(same), 5, 5, noise) < 0.01
    assert 15 <= kept <= 70  # 40 expected, standard deviation 6.3


def test_a_summary_reads_back_exactly() -> None:
    summary = summarise([0.1, 0.2, 0.4])
    assert float(summary.mean) == fmean([0.1, 0.2, 0.4])
    assert summary.n == 3
    assert summarise([1.5]).std == "0.0"
