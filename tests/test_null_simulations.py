"""Type-I errors and coverage, simulated: each test and interval keeps what it promises, at the smallest samples and at large ones.

Seeds are fixed, so a run always says the same. ``SIMULATIONS=5`` makes five times as many runs, which takes some minutes.
"""

import functools
import math
import os

import numpy as np
import pytest

from toolkit import stats

SIZES = (20, 100, 1000)
ALPHA = 0.05
TYPE_I_LIMIT = 0.055
TIMES = int(os.environ.get("SIMULATIONS", "1"))


def pairs(kind, size, rng):
    """Two interchangeable models on the same prompts: they share the prompt's difficulty."""
    prompt = rng.normal(size=size)
    if kind == "right or wrong":
        chance = 1 / (1 + np.exp(-prompt))
        return (rng.random(size) < chance).astype(float), (rng.random(size) < chance).astype(float)
    if kind == "wilcoxon":
        return np.exp(prompt + rng.normal(size=size)), np.exp(prompt + rng.normal(size=size))
    return prompt + rng.normal(size=size), prompt + rng.normal(size=size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["mean", "wilcoxon"])
def test_a_paired_test_is_wrong_about_equal_models_at_most_as_often_as_it_says(kind, size):
    rng = np.random.default_rng(size)
    runs = TIMES * (200 if kind == "wilcoxon" and size == 1000 else 3000)
    wrong = sum(stats.paired_test(*pairs(kind, size, rng), kind=kind).p < ALPHA for _ in range(runs))
    assert wrong / runs <= TYPE_I_LIMIT


@functools.cache
def mcnemar_p(only_a, only_b, size):
    a, b = np.zeros((2, size))
    a[:only_a] = b[only_a : only_a + only_b] = 1
    return stats.paired_test(a, b, kind="mcnemar").p


@pytest.mark.parametrize("size", SIZES)
def test_mcnemars_test_is_wrong_about_equal_models_at_most_as_often_as_it_says(size):
    counts = np.random.default_rng(size).multinomial(size, [0.2, 0.2, 0.6], size=20_000 * TIMES)
    assert np.mean([mcnemar_p(int(a), int(b), size) < ALPHA for a, b, _ in counts]) <= TYPE_I_LIMIT


def log_normal(rng, sigma, shape):
    """Of mean 1."""
    return rng.lognormal(-(sigma**2) / 2, sigma, shape)


EQUAL_MEANS = {
    "identical": lambda rng, n: rng.normal(size=n),
    "identical, with long tails": lambda rng, n: log_normal(rng, 1, n) - log_normal(rng, 1, n),
    "right or wrong": lambda rng, n: (rng.random(n) < 0.7).astype(float) - (rng.random(n) < 0.7),
    "seldom right": lambda rng, n: (rng.random(n) < 0.02).astype(float) - (rng.random(n) < 0.02),
    "unequal spreads": lambda rng, n: log_normal(rng, 0.3, n) - log_normal(rng, 0.9, n),
    "one hardly varies": lambda rng, n: log_normal(rng, 0.1, n) - log_normal(rng, 1.2, n),
    "prompts alike": lambda rng, n: log_normal(rng, 0.7, n) * (log_normal(rng, 0.2, n) - log_normal(rng, 0.8, n)),
    "one is seldom slow": lambda rng, n: 0.14 * rng.normal(size=n) + 0.05 - (rng.random(n) < 0.05),
    "repeats": lambda rng, n: (rng.gamma(2, 1, (n, 1)) * (log_normal(rng, 0.2, (n, 3)) - log_normal(rng, 0.8, (n, 3)))).mean(axis=1),
}


@pytest.mark.parametrize("kind", EQUAL_MEANS)
def test_looking_after_every_prompt_inflates_no_error_of_the_sequential_test(kind):
    rng = np.random.default_rng(7)
    runs, prompts = 200 * TIMES, 1000
    # The p-value never rises, so the last look tells whether any look before it would have decided.
    wrong = sum(stats.sequential_p(EQUAL_MEANS[kind](rng, prompts)) < ALPHA for _ in range(runs))
    assert wrong / runs <= TYPE_I_LIMIT


@pytest.mark.parametrize("kind", ["identical", "unequal spreads", "repeats"])
def test_the_sequential_interval_holds_the_mean_at_every_look_together(kind):
    rng = np.random.default_rng(10)
    runs, missed = 150 * TIMES, 0
    for _ in range(runs):
        differences = EQUAL_MEANS[kind](rng, 300) + 0.7
        test = stats.sequential_test(differences, np.zeros(300))
        missed += not test.low <= 0.7 <= test.high
    assert missed / runs <= TYPE_I_LIMIT


def test_looking_after_every_prompt_does_inflate_the_error_of_a_test_made_for_one_look():
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(2, 400, 300))
    difference = a - b
    n = np.arange(1, 301)
    mean = np.cumsum(difference, axis=1) / n
    spread = np.sqrt(np.maximum(np.cumsum(difference**2, axis=1) / n - mean**2, 1e-12) * n / np.maximum(n - 1, 1))
    t = np.abs(mean) / spread * np.sqrt(n)
    assert (t[:, 20:] > 1.97).any(axis=1).mean() > 0.2


def test_the_sequential_p_value_never_rises():
    rng = np.random.default_rng(9)
    a, b = rng.normal(1.0, 1, 60), rng.normal(size=60)
    p = [stats.sequential_p(a[:n] - b[:n]) for n in range(1, 61)]
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in zip(p, p[1:]))
    assert stats.sequential_test(a, b).p == p[-1] < ALPHA


def test_the_sequential_p_value_and_interval_say_the_same():
    rng = np.random.default_rng(12)
    for n in range(10, 200):
        differences = rng.exponential(size=n) - 0.5
        test = stats.sequential_test(differences, np.zeros(n), confidence=0.9)
        assert (test.p < 0.1) <= (not test.low <= 0 <= test.high)
        assert test.low <= test.high


def test_a_difference_that_changes_on_the_way_is_not_decided():
    test = stats.sequential_test([3.0, 3.1] * 50 + [-9.0, -9.1] * 400, [0.0] * 900)
    assert (test.p, test.low < -7) == (1.0, True)
    assert "changed on the way" in test.note


@pytest.mark.parametrize("effect", [0.2, 0.5, 1.0])
def test_about_so_many_items_as_promised_decide(effect):
    rng = np.random.default_rng(13)
    needed = stats.sequential_needed_n(effect, 1.0)
    decided = np.mean([stats.sequential_p(rng.normal(effect, 1, needed)) < ALPHA for _ in range(200)])
    assert 0.7 <= decided <= 0.95
    assert stats.needed_n(effect, 1.0) < needed < 4 * stats.needed_n(effect, 1.0)


def covered(interval, truth):
    return interval.low <= truth <= interval.high


def draw_mean(rng, size):
    return covered(stats.mean_interval(rng.normal(3.0, 2.0, size)), 3.0)


def draw_clustered(rng, size):
    prompts = np.repeat(np.arange(size), 3)
    return covered(stats.mean_interval(rng.normal(size=size)[prompts] + rng.normal(size=3 * size), clusters=prompts), 0.0)


def draw_share(rng, size):
    return covered(stats.wilson_interval(int(rng.binomial(size, 0.4)), size), 0.4)


def draw_median(rng, size):
    return covered(stats.percentile_interval(rng.lognormal(size=size), 0.5), 1.0)


def draw_clustered_median(rng, size):
    prompts = np.repeat(np.arange(size), 4)
    return covered(stats.percentile_interval(rng.normal(size=size)[prompts] + 0.3 * rng.normal(size=4 * size), 0.5, clusters=prompts), 0.0)


def draw_paired_mean(rng, size):
    a, b = pairs("mean", size, rng)
    return covered(stats.paired_test(a + 0.4, b, kind="mean"), 0.4)


def draw_paired_median(rng, size):
    a, b = pairs("mean", size, rng)
    return covered(stats.paired_test(a + 0.4, b, kind="wilcoxon"), 0.4)


def draw_paired_share(rng, size):
    a, b = (rng.random(size) < 0.7).astype(float), (rng.random(size) < 0.5).astype(float)
    return covered(stats.paired_test(a, b, kind="mcnemar"), 0.2)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "draw", [draw_mean, draw_clustered, draw_share, draw_median, draw_clustered_median, draw_paired_mean, draw_paired_median, draw_paired_share], ids=lambda f: f.__name__
)  # fmt: skip
def test_a_95_percent_interval_holds_the_truth_in_93_to_97_percent(draw, size):
    rng = np.random.default_rng(size + 1)
    runs = TIMES * (200 if draw is draw_paired_median and size == 1000 else 1500)
    assert 0.93 <= np.mean([draw(rng, size) for _ in range(runs)]) <= 0.97


@pytest.mark.parametrize("size", (100, 1000))
def test_the_interval_of_a_p95_holds_the_truth_in_93_to_97_percent(size):
    rng = np.random.default_rng(size + 2)
    truth = math.exp(1.6448536269514722)
    assert 0.93 <= np.mean([covered(stats.percentile_interval(rng.lognormal(size=size), 0.95), truth) for _ in range(2000)]) <= 0.97
