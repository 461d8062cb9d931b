"""Percentiles, intervals, tests and agreement: arrays in, numbers out. Every docstring names the source of its formula.

Missing values are refused with a ``ConfigError``, never skipped: whoever calls knows why they are missing. What a sample is too
small to tell is NaN, with the reason in ``note``.
"""

from .agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha
from .intervals import (
    Interval,
    ecdf_margin,
    mean_interval,
    percentile,
    percentile_interval,
    percentile_min_n,
    percentile_ranks,
    wilson_interval,
)
from .paired import PairedTest, adjust, hodges_lehmann, paired_test
from .ranking import Abilities, bradley_terry
from .sampling import backfill_omitted, needed_n, pass_at_k
from .sequential import sequential_needed_n, sequential_p, sequential_test

__all__ = [
    "Abilities",
    "Interval",
    "PairedTest",
    "adjust",
    "backfill_omitted",
    "bradley_terry",
    "cohen_kappa",
    "ecdf_margin",
    "fleiss_kappa",
    "hodges_lehmann",
    "krippendorff_alpha",
    "mean_interval",
    "needed_n",
    "paired_test",
    "pass_at_k",
    "percentile",
    "percentile_interval",
    "percentile_min_n",
    "percentile_ranks",
    "sequential_needed_n",
    "sequential_p",
    "sequential_test",
    "wilson_interval",
]
