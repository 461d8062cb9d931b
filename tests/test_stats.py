"""Statistics against published numbers, against brute force, and by simulation with fixed seeds."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from toolkit import stats
from toolkit.errors import ConfigError
from toolkit.stats import paired

NIST_GAUGES = [95.1772, 95.1567, 95.1937, 95.1959, 95.1442, 95.0610, 95.1591, 95.1195, 95.1065, 95.0925, 95.1990, 95.1682]
SLEEP_DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
DEPRESSION_BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
DEPRESSION_AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
BENJAMINI_HOCHBERG_P = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.000,
]  # fmt: skip
CITATIONS = [[0, 730, 498, 221], [33, 0, 68, 17], [320, 813, 0, 142], [284, 276, 325, 0]]
FLEISS_1971_EXAMPLE = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip
MISSING = math.nan
KRIPPENDORFF_2011 = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, MISSING, MISSING, MISSING],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, MISSING, 3],
    [MISSING, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, MISSING],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, MISSING],
]


# Percentiles


def test_the_ninetieth_percentile_of_the_nist_gauges_is_the_published_one():
    assert stats.percentile(NIST_GAUGES, 0.9) == pytest.approx(95.1957, abs=5e-5)


def test_several_percentiles_come_back_in_the_order_asked_for():
    assert stats.percentile(range(101), [0.99, 0.5]).tolist() == [99.0, 50.0]


def test_a_percentile_of_nothing_is_nan():
    assert math.isnan(stats.percentile([], 0.5))
    assert np.isnan(stats.percentile([], [0.5, 0.9])).all()


@pytest.mark.parametrize(("q", "n"), [(0.5, 2), (0.9, 10), (0.95, 20), (0.99, 100), (0.999, 1000), (0.05, 20), (1.0, 1)])
def test_a_percentile_needs_as_many_values_as_leave_one_beyond_it(q, n):
    assert stats.percentile_min_n(q) == n


@pytest.mark.parametrize(("n", "ranks"), [(12, (3, 10)), (15, (4, 12)), (20, (6, 15)), (25, (8, 18)), (100, (40, 60))])
def test_the_median_is_bounded_by_order_statistics_with_the_wanted_confidence(n, ranks):
    interval = stats.percentile_interval(np.arange(1, n + 1), 0.5)
    low, high = int(interval.low), int(interval.high)
    assert (high - low) <= ranks[1] - ranks[0]
    assert scipy_stats.binom.cdf(high - 1, n, 0.5) - scipy_stats.binom.cdf(low - 1, n, 0.5) >= 0.95


@given(n=st.integers(1, 300), q=st.sampled_from([0.05, 0.5, 0.9, 0.95, 0.99]), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_no_shorter_pair_of_order_statistics_holds_the_percentile(n, q, confidence):
    interval = stats.percentile_interval(np.arange(1, n + 1), q, confidence)
    below = scipy_stats.binom.cdf(np.arange(n), n, q)
    pairs = [(j - i, i + 1, j + 1) for i in range(n) for j in np.flatnonzero(below >= below[i] + confidence - 1e-12)[:1]]
    if pairs:
        assert interval.high - interval.low == min(pairs)[0]
    else:
        assert "not estimable" in interval.note


@pytest.mark.parametrize(("n", "q", "low", "high", "note"), [
    (12, 0.95, 10.0, None, "upper bound not estimable at n=12"),
    (12, 0.05, None, 3.0, "lower bound not estimable at n=12"),
    (5, 0.5, None, None, "not estimable at n=5"),
    (0, 0.5, None, None, "not estimable at n=0"),
])  # fmt: skip
def test_a_side_that_a_small_sample_cannot_bound_is_nan_and_says_so(n, q, low, high, note):
    interval = stats.percentile_interval(np.arange(1, n + 1), q)
    assert interval.note == note
    assert interval.low == low or (low is None and math.isnan(interval.low))
    assert interval.high == high or (high is None and math.isnan(interval.high))


@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("n", [20, 37, 100, 400, 1000])
def test_the_interval_of_a_percentile_covers_the_truth_as_often_as_it_says(q, n):
    random = np.random.default_rng(n)
    truth = scipy_stats.lognorm(0.6).ppf(q)
    intervals = [stats.percentile_interval(random.lognormal(0, 0.6, n), q) for _ in range(2000)]
    covered = np.mean([not (truth < i.low) and not (truth > i.high) for i in intervals])  # NaN bounds nothing
    assert 0.93 <= covered <= (0.97 if not intervals[0].note else 1.0)


# Published: the two-sided 5 % points of Kolmogorov's statistic, L. H. Miller, JASA 51 (1956) 111-121, table 1.
@pytest.mark.parametrize(("n", "exact"), [(5, 0.56328), (10, 0.40925), (20, 0.29408), (50, 0.18841), (100, 0.13403)])
def test_the_margin_of_a_distribution_is_a_little_wider_than_the_exact_one(n, exact):
    assert exact < stats.ecdf_margin(n) < exact * (1 + 0.2 / math.sqrt(n))


def test_the_band_of_a_distribution_holds_all_of_it_as_often_as_it_says():
    n, random = 30, np.random.default_rng(30)
    ordered = np.sort(random.uniform(size=(4000, n)))
    ranks = np.arange(n + 1) / n
    farthest = np.maximum(ordered - ranks[:-1], ranks[1:] - ordered).max(axis=1)
    for confidence in (0.8, 0.95, 0.99):
        assert confidence - 0.005 <= (farthest <= stats.ecdf_margin(n, confidence)).mean() <= confidence + 0.05


def test_the_margin_halves_with_four_times_the_values():
    assert stats.ecdf_margin(400, 0.9) == pytest.approx(stats.ecdf_margin(100, 0.9) / 2)
    with pytest.raises(ConfigError, match="at least 1"):
        stats.ecdf_margin(0)


# Means and shares


def test_the_interval_of_a_mean_is_students():
    interval = stats.mean_interval(np.subtract(SLEEP_DRUG_1, SLEEP_DRUG_2))
    assert (interval.low, interval.high) == pytest.approx((-2.4598858, -0.7001142), abs=1e-7)


def test_clusters_of_one_value_each_change_nothing():
    plain, clustered = stats.mean_interval(NIST_GAUGES), stats.mean_interval(NIST_GAUGES, clusters=list("abcdefghijkl"))
    assert (clustered.low, clustered.high) == pytest.approx((plain.low, plain.high))


def test_repeating_every_value_ten_times_does_not_narrow_a_clustered_interval():
    plain = stats.mean_interval(NIST_GAUGES)
    repeated = stats.mean_interval(np.repeat(NIST_GAUGES, 10), clusters=np.repeat(np.arange(12), 10))
    assert (repeated.low, repeated.high) == pytest.approx((plain.low, plain.high))


@pytest.mark.parametrize("n", [20, 100, 1000])
def test_the_clustered_interval_covers_the_mean_where_repeats_resemble_each_other(n):
    random = np.random.default_rng(n)
    prompts = np.repeat(np.arange(n // 4 + 4), 4)
    covered = 0
    for _ in range(2000):
        x = random.normal(size=prompts.max() + 1)[prompts] + random.normal(size=prompts.size)
        interval = stats.mean_interval(x, clusters=prompts)
        covered += interval.low <= 0 <= interval.high
    assert 0.93 <= covered / 2000 <= 0.97


def test_one_value_or_one_cluster_bounds_no_mean():
    assert stats.mean_interval([3.0]).note == "not estimable at n=1"
    assert stats.mean_interval([3.0, 4.0], clusters=["p", "p"]).note == "not estimable at 1 cluster"


@pytest.mark.parametrize(("k", "n", "low", "high"), [
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
])  # fmt: skip
def test_wilsons_interval_is_newcombes_published_one(k, n, low, high):
    interval = stats.wilson_interval(k, n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_a_share_of_nothing_is_not_estimable():
    assert stats.wilson_interval(0, 0).note == "not estimable at n=0"


# Paired tests


def agresti_approval():
    """1600 voters asked twice: 794 approved both times, 150 only at first, 86 only later, 570 never."""
    counts = [794, 150, 86, 570]
    return np.repeat([1, 1, 0, 0], counts), np.repeat([1, 0, 1, 0], counts)


def test_mcnemar_reproduces_agrestis_approval_ratings():
    test = stats.paired_test(*agresti_approval())
    assert test.kind == "mcnemar"
    assert test.statistic == pytest.approx(17.3559, abs=5e-5)
    assert test.effect == pytest.approx(0.04)
    assert (test.low, test.high) == pytest.approx((0.021, 0.059), abs=1e-3)


def test_the_mid_p_of_mcnemar_takes_half_of_the_observed_split():
    test = stats.paired_test([True] * 9 + [False], [False] * 9 + [True])
    assert test.p == pytest.approx((2 * (1 + 10) - 10) / 2**10)


def test_a_split_down_the_middle_has_a_p_of_one():
    assert stats.paired_test([1, 0, 1, 0], [0, 1, 1, 0]).p == pytest.approx(1.0)
    assert stats.paired_test([1, 1, 0], [1, 1, 0]).p == 1.0


def test_the_paired_t_test_reproduces_students_sleep_data():
    test = stats.paired_test(SLEEP_DRUG_1, SLEEP_DRUG_2)
    assert test.kind == "mean"
    assert test.statistic == pytest.approx(-4.0621, abs=5e-5)
    assert test.p == pytest.approx(0.002833, abs=5e-7)
    assert (test.effect, test.low, test.high) == pytest.approx((-1.58, -2.4598858, -0.7001142))


def test_wilcoxon_reproduces_the_depression_scores_of_hollander_and_wolfe():
    test = stats.paired_test(DEPRESSION_BEFORE, DEPRESSION_AFTER, kind="wilcoxon")
    assert test.statistic == 40
    assert test.p == pytest.approx(0.0390625)
    assert (test.effect, test.low, test.high) == pytest.approx((0.46, 0.010, 0.786), abs=1e-9)


@given(
    st.lists(st.integers(-1000, 1000).map(lambda k: k / 8), min_size=2, max_size=30),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
)
def test_the_walsh_averages_found_by_bisection_are_those_of_brute_force(values, where):
    ordered = np.sort(values)
    brute = np.sort(np.add.outer(ordered, ordered)[np.triu_indices(ordered.size)] / 2)
    rank = round(where * (brute.size - 1)) + 1
    assert paired._bisect_walsh(ordered, rank) == pytest.approx(brute[rank - 1], abs=1e-9)


@pytest.mark.parametrize("n", [10, 50, 51, 300])
@pytest.mark.parametrize("digits", [0, 9])
def test_the_p_of_wilcoxon_is_scipys_with_and_without_ties(n, digits):
    a = np.round(np.random.default_rng(n).normal(0.2, 2, n), digits)
    moved = a[a != 0]
    tied = len(set(np.abs(moved))) < moved.size
    method = scipy_stats.PermutationMethod(n_resamples=2**10) if n == 10 else "exact" if not tied and n <= 50 else "approx"
    test = stats.paired_test(a, np.zeros(n), kind="wilcoxon")
    near = 0.1 if tied and 10 < moved.size <= 50 else 1e-6  # few tied ranks are counted out here, as SciPy does only for the fewest
    assert test.p == pytest.approx(scipy_stats.wilcoxon(moved, method=method).pvalue, rel=near)


def test_pairs_that_never_differ_have_a_p_of_one_by_signed_ranks():
    assert stats.paired_test([1.5, 2.5, 3.5], [1.5, 2.5, 3.5], kind="wilcoxon").p == 1.0


def test_a_thousand_and_one_pairs_are_estimated_like_a_thousand():
    x = np.random.default_rng(3).normal(1.0, 1.0, 1001)
    fewer, more = (stats.paired_test(x[:n], np.zeros(n), kind="wilcoxon") for n in (1000, 1001))
    assert (more.effect, more.low, more.high) == pytest.approx((fewer.effect, fewer.low, fewer.high), abs=0.005)


def test_five_pairs_are_too_few_for_an_interval_by_signed_ranks():
    test = stats.paired_test([1.0, 2.5, 3.1, 4.7, 5.2], [0.0] * 5, kind="wilcoxon")
    assert math.isnan(test.low)
    assert test.note == "interval not estimable at n=5"


def test_differences_without_spread_are_judged_by_their_sign_alone():
    test = stats.paired_test([2.0] * 6, [1.5] * 6, kind="mean")
    assert (test.effect, test.low, test.high, test.p) == (0.5, 0.5, 0.5, 2.0**-5)
    assert stats.paired_test([2.0] * 6, [2.0] * 6, kind="mean").p == 1.0


def test_a_single_pair_decides_nothing():
    assert stats.paired_test([2.0], [1.0]).note == "not estimable at n=1"


@pytest.mark.parametrize("kind", ["mean", "mcnemar", "wilcoxon"])
@pytest.mark.parametrize("n", [20, 60])
def test_a_paired_test_rarely_sees_what_is_not_there(kind, n):
    random = np.random.default_rng(n)
    draw = (lambda: random.integers(0, 2, n)) if kind == "mcnemar" else (lambda: random.normal(size=n))
    alarms = [stats.paired_test(draw(), draw(), kind=kind).p <= 0.05 for _ in range(4000)]
    assert np.mean(alarms) <= 0.055


@pytest.mark.parametrize("kind", ["mean", "mcnemar", "wilcoxon"])
def test_the_interval_of_a_paired_effect_covers_the_truth(kind):
    random = np.random.default_rng(11)
    covered = 0
    for _ in range(2000):
        if kind == "mcnemar":
            test = stats.paired_test(random.random(80) < 0.7, random.random(80) < 0.5, kind=kind)
            truth = 0.2
        else:
            test = stats.paired_test(random.normal(0.3, 1, 80), np.zeros(80), kind=kind)
            truth = 0.3
        covered += test.low <= truth <= test.high
    assert 0.93 <= covered / 2000 <= 0.97


# Many tests, and how many pairs


def test_benjamini_and_hochbergs_fifteen_p_values_give_four_rejections_and_bonferroni_three():
    assert (stats.adjust(BENJAMINI_HOCHBERG_P, "bh") <= 0.05).sum() == 4
    assert (stats.adjust(BENJAMINI_HOCHBERG_P, "bonferroni") <= 0.05).sum() == 3
    assert (stats.adjust(BENJAMINI_HOCHBERG_P, "holm") <= 0.05).sum() == 3


def test_adjusted_p_values_keep_the_order_they_came_in():
    assert stats.adjust([0.04, 0.01, 0.03], "holm").tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert stats.adjust([0.04, 0.01, 0.03], "bh").tolist() == pytest.approx([0.04, 0.03, 0.04])


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15), (-0.5, 34)])
def test_the_needed_pairs_are_those_of_the_power_tables(effect, n):
    assert stats.needed_n(effect, sd=1.0) == n


def test_the_needed_pairs_go_on_smoothly_where_the_normal_curve_takes_over():
    found = [stats.needed_n(effect, 1.0) for effect in (0.02803, 0.02802, 0.02801, 0.02800)]
    assert found == sorted(found)
    assert found[-1] - found[0] < 25


# Ratings


def test_bradley_terry_reproduces_the_citations_between_statistics_journals():
    fit = stats.bradley_terry(CITATIONS)
    assert fit.abilities == pytest.approx((0, -2.94907, -0.47957, 0.26895), abs=5e-6)
    assert fit.standard_errors == pytest.approx((0, 0.10255, 0.06059, 0.07083), abs=5e-6)


def test_a_player_who_never_won_has_no_finite_ability():
    with pytest.raises(ConfigError, match="never won"):
        stats.bradley_terry([[0, 2, 1], [1, 0, 3], [0, 0, 0]])


def test_lopsided_wins_still_converge():
    fit = stats.bradley_terry([[0, 100_000], [1, 0]])
    assert fit.abilities[1] == pytest.approx(-math.log(100_000))


def test_fleiss_kappa_is_the_published_one():
    assert stats.fleiss_kappa(FLEISS_1971_EXAMPLE) == pytest.approx(0.2099, abs=5e-5)


def test_cohens_kappa_of_fifty_grant_reviews_is_the_published_one():
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert stats.cohen_kappa(first, second) == pytest.approx(0.4)


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_alpha_is_the_published_one(level, alpha):
    assert stats.krippendorff_alpha(KRIPPENDORFF_2011, level) == pytest.approx(alpha, abs=5e-4)


def test_agreement_on_a_single_label_says_nothing():
    assert math.isnan(stats.cohen_kappa([1, 1], [1, 1]))
    assert math.isnan(stats.fleiss_kappa([[2, 0], [2, 0]]))
    assert math.isnan(stats.krippendorff_alpha([[1, 1], [1, 1]]))


def test_pass_at_k_is_the_published_estimator():
    assert stats.pass_at_k(200, 10, 10) == pytest.approx(0.40854786608141724, rel=1e-14)
    assert stats.pass_at_k(10, 0, 3) == 0.0
    assert stats.pass_at_k(10, 8, 3) == 1.0


def test_a_stall_counts_for_every_request_it_kept_waiting():
    seen = stats.backfill_omitted([0.001] * 10_000 + [100.0], expected_interval_s=0.01)
    assert seen.size == 20_000
    assert seen.mean() == pytest.approx(25.0, abs=0.01)
    assert stats.percentile(seen, [0.5, 0.75, 0.9, 0.99]) == pytest.approx([0.001, 50, 80, 98], rel=0.005, abs=0.006)


# Bad input


@pytest.mark.parametrize("call", [
    lambda: stats.percentile([1.0, math.nan], 0.5),
    lambda: stats.percentile_interval([1.0, math.nan], 0.5),
    lambda: stats.mean_interval([1.0, math.nan]),
    lambda: stats.paired_test([1.0, math.nan], [1.0, 2.0]),
    lambda: stats.adjust([0.1, math.nan]),
    lambda: stats.bradley_terry([[0, math.nan], [1, 0]]),
    lambda: stats.backfill_omitted([1.0, math.nan], 1.0),
])  # fmt: skip
def test_missing_values_are_refused_and_counted(call):
    with pytest.raises(ConfigError, match="1 missing values"):
        call()


@pytest.mark.parametrize(("call", "said"), [
    (lambda: stats.percentile([1.0], 95), "0.95 for the 95th"),
    (lambda: stats.percentile(["fast"], 0.5), "must be numbers"),
    (lambda: stats.percentile_interval([1.0], 1.0), "q lies between"),
    (lambda: stats.mean_interval([1.0, 2.0], confidence=95), "confidence lies between"),
    (lambda: stats.mean_interval([1.0, 2.0], clusters=["a"]), "2 values, 1 groups"),
    (lambda: stats.wilson_interval(5, 4), "k=5, n=4"),
    (lambda: stats.paired_test([1.0, 2.0], [1.0]), "a has 2, b has 1"),
    (lambda: stats.paired_test([1.0, 2.0], [1.0, 3.0], kind="mcnemar"), "0 or 1"),
    (lambda: stats.paired_test([1.0, 2.0], [1.0, 3.0], kind="sign"), "known: auto, mean, mcnemar, wilcoxon"),
    (lambda: stats.adjust([0.5, 1.5]), "between 0 and 1"),
    (lambda: stats.adjust([0.5], "sidak"), "known: holm, bh, bonferroni"),
    (lambda: stats.needed_n(0.0, 1.0), "effect other than 0"),
    (lambda: stats.bradley_terry([[0, 1]]), "square"),
    (lambda: stats.bradley_terry([[0, -1], [1, 0]]), "not negative"),
    (lambda: stats.fleiss_kappa([[1, 1], [2, 1]]), "same number of ratings"),
    (lambda: stats.cohen_kappa([1], [1, 2]), "a has 1 ratings, b has 2"),
    (lambda: stats.krippendorff_alpha([[1.0, 2.0]]), "two ratings"),
    (lambda: stats.krippendorff_alpha([[1, 2], [1, 2]], "ratio"), "known: nominal, ordinal, interval"),
    (lambda: stats.pass_at_k(3, 4, 1), "c=4"),
    (lambda: stats.backfill_omitted([1.0], 0), "positive"),
])  # fmt: skip
def test_an_argument_that_makes_no_sense_is_named(call, said):
    with pytest.raises(ConfigError, match=said):
        call()


def test_few_tied_signed_ranks_are_counted_out_and_not_taken_for_normal():
    assert stats.paired_test([1.0] * 5, [0.0] * 5, kind="wilcoxon").p == 2 / 2**5
    tied = np.array([1.0, 1.0, 1.0, -1.0, 2.0, 2.0, -2.0, 3.0, 4.0])
    ranks = scipy_stats.rankdata(np.abs(tied))
    fewest = min(ranks[tied > 0].sum(), ranks[tied < 0].sum())
    sums = [sum(rank for rank, plus in zip(ranks, signs) if plus) for signs in itertools.product([0, 1], repeat=tied.size)]
    assert stats.paired_test(tied, np.zeros(9), kind="wilcoxon").p == pytest.approx(2 * np.mean(np.array(sums) <= fewest))
