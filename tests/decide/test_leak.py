"""The bounds behind an audit, against simulation and against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgolf.decide import leak
from agentgolf.domain import Replay, Replays


def part(gains: list[float], differences: list[float], anywhere: int = 64) -> Replays:
    drawn = [
        Replay(gain_nats=gain, difference_nats=difference, by_gain=True)
        for gain, difference in zip(gains, differences, strict=True)
    ]
    spread = [Replay(gain_nats=0.1, difference_nats=0.0, by_gain=False) for _ in range(anywhere)]
    return Replays(items=(*drawn, *spread), tokens=10_000, text_bytes=25_000, claimed_nats=1000.0)


@pytest.mark.parametrize("count", [50, 300, 2000])
def test_clean_replays_bound_the_faked_share_by_about_4_6_over_n(count: int) -> None:
    bound = leak.upper_mean(np.zeros(count), 0.01)
    assert bound == pytest.approx(1 - 0.01 ** (1 / count)) and bound <= 4.61 / count


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(1e-6, 0.4))
def test_the_bounds_hold_the_mean_between_them(values: list[float], level: float) -> None:
    found = np.array(values)
    assert (
        -1e-9
        <= leak.lower_mean(found, level)
        <= found.mean() + 1e-9
        <= leak.upper_mean(found, level) + 2e-9
        <= 1 + 3e-9
    )


def test_the_upper_bound_misses_no_more_often_than_its_level() -> None:
    rng = np.random.default_rng(0)
    misses = sum(leak.upper_mean((rng.random(300) < 0.02).astype(float), 0.05) < 0.02 for _ in range(2000))
    assert misses / 2000 <= 0.05


def test_no_replays_bound_nothing() -> None:
    assert leak.upper_mean(np.empty(0), 0.01) == 1.0
    seen = leak.evaluate([Replays(items=(), tokens=100, text_bytes=200, claimed_nats=50.0)])
    assert seen.bound_bpb >= 50.0 / (math.log(2) * 200)


def test_arithmetic_noise_within_the_tolerance_is_no_leak() -> None:
    rng = np.random.default_rng(1)
    noisy = part([0.5] * 400, list(rng.normal(0, 0.001, 400)))
    seen = leak.evaluate([noisy], leak.tolerance([noisy]))
    assert seen.lower_bpb == 0 and seen.bound_bpb == pytest.approx(
        leak.evaluate([part([0.5] * 400, [0.0] * 400)]).bound_bpb, rel=0.6
    )


def test_a_leak_is_seen_and_its_size_lies_between_the_bounds() -> None:
    seen = leak.evaluate([part([0.5] * 300, [0.5 if i % 5 == 0 else 0.0 for i in range(300)])])
    truth = 0.2 * 1000 / (math.log(2) * 25_000)
    assert 0 < seen.lower_bpb < truth < seen.bound_bpb and not seen.clean(0.002)


def test_a_token_that_costs_far_more_than_the_reference_is_an_overflow() -> None:
    seen = leak.evaluate([part([0.5] * 300, [0.0] * 299 + [3.0])])
    assert seen.overflows == 1 and not seen.clean(10.0)


def test_the_most_that_any_replicate_claims_counts_for_all() -> None:
    small, large = part([0.5] * 100, [0.0] * 100), part([0.5] * 100, [0.0] * 100)
    large = Replays(items=large.items, tokens=10_000, text_bytes=25_000, claimed_nats=3000.0)
    both, alone = leak.evaluate([small, large]), leak.evaluate([small, small])
    assert both.bound_bpb > 2.5 * alone.bound_bpb


@pytest.mark.parametrize("claimed", [100.0, 1000.0, 5000.0])
def test_as_many_replays_are_planned_as_a_clean_candidate_needs(claimed: float) -> None:
    count = leak.replays_needed([], claimed, 200_000, 0.002)
    share = leak.upper_mean(np.zeros(count), leak.LEVEL - leak.SMALL_LEVEL)
    assert share * claimed / (math.log(2) * 200_000) <= 0.0016 and leak.MIN_BY_GAIN <= count < leak.MAX_BY_GAIN
