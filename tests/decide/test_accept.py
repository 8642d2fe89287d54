"""The acceptance test, against scipy and against simulated noise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agentgolf.decide.accept import Rules, judge, mean_interval, pooled_noise, prediction_interval, welch
from agentgolf.domain import Verdict

RULES = Rules(min_gain_bpb=0.002, level=0.01, looks=(1, 3, 5))
OLD = [1.500, 1.504, 1.497, 1.502]
NOISE = pooled_noise([OLD])


def test_welch_agrees_with_scipy_where_its_own_error_is_the_larger() -> None:
    new = [1.47, 1.49, 1.46]
    mine = welch(OLD, new, 0.002, (1e-9, 3))
    theirs = stats.ttest_ind(np.array(OLD) - 0.002, new, equal_var=False, alternative="greater")
    assert mine.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert mine.degrees == pytest.approx(theirs.df, rel=1e-9)
    assert mine.gain == pytest.approx(np.mean(OLD) - np.mean(new))


def test_suspiciously_steady_replicates_are_not_believed() -> None:
    steady = [1.4950, 1.4950, 1.4950]
    doubtful = welch(OLD, steady, 0.002, (0.01, 8))
    assert doubtful.standard_error >= 0.01 * math.sqrt(1 / 4 + 1 / 3) - 1e-12
    assert judge(OLD, steady, RULES, (0.01, 8)).verdict is not Verdict.KEEP


def test_a_clear_gain_is_kept_and_a_loss_is_reverted_at_once() -> None:
    assert judge(OLD, [1.45, 1.452, 1.449], RULES, NOISE).verdict is Verdict.KEEP
    assert judge(OLD, [1.51], RULES, NOISE).verdict is Verdict.REVERT


def test_one_replicate_never_keeps() -> None:
    said = judge(OLD, [1.0], RULES, NOISE)
    assert said.verdict is None and said.wanted == 3


def test_a_gain_below_min_gain_is_no_gain() -> None:
    assert judge(OLD, [float(np.mean(OLD)) - 0.0019], RULES, NOISE).verdict is Verdict.REVERT


def test_what_stays_open_ends_undecided() -> None:
    new = [1.490, 1.502, 1.486, 1.505, 1.489]
    assert judge(OLD, new, RULES, pooled_noise([OLD, new])).verdict is Verdict.UNDECIDED


def test_old_measurements_fade_so_that_drift_is_no_gain() -> None:
    drifted = [1.60] * 40 + [1.50, 1.503, 1.498, 1.501, 1.499, 1.502, 1.5, 1.501, 1.499, 1.5, 1.502, 1.498]
    assert judge(drifted, [1.499, 1.501, 1.5], RULES, (0.004, 30)).verdict is Verdict.REVERT


def test_pure_noise_is_kept_less_often_than_the_level() -> None:
    rng = np.random.default_rng(1)
    kept = 0
    for _ in range(1500):
        old, new = list(rng.normal(1.5, 0.005, 4)), list(rng.normal(1.5, 0.005, 1))
        said = judge(old, new, RULES, pooled_noise([old]))
        while said.verdict is None:
            more = said.wanted - len(new)
            old += list(rng.normal(1.5, 0.005, more))
            new += list(rng.normal(1.5, 0.005, more))
            said = judge(old, new, RULES, pooled_noise([old, new]))
        kept += said.verdict is Verdict.KEEP
    assert kept <= 1500 * RULES.level


@given(st.lists(st.floats(0.5, 3.0), min_size=2, max_size=8), st.lists(st.floats(0.5, 3.0), min_size=1, max_size=8))
def test_any_scores_give_a_finite_judgement(old: list[float], new: list[float]) -> None:
    said = judge(old, new, RULES, pooled_noise([old, new]))
    assert said.evidence is not None and 0 <= said.evidence.p_value <= 1
    low, high = said.evidence.interval()
    assert low <= said.evidence.gain <= high
    assert (said.verdict is None) == (said.wanted > len(new))


def test_intervals_widen_for_predictions_and_need_noise() -> None:
    mean = mean_interval(OLD, NOISE)
    new = prediction_interval(OLD, 3, NOISE)
    assert mean and new and new[0] < mean[0] < mean[1] < new[1]
    assert mean_interval([1.5], pooled_noise([[1.5]])) is None
