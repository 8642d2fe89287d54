"""Which scaffold is better: found when one is, not when none is."""

import numpy as np
import pytest

from agentgolf.decide.compare import RunGain, bootstrap_interval, duels, winner


def run(gain: float, chance: np.random.Generator, noise: float = 0.003, seeds: int = 3) -> RunGain:
    """A run whose final is measured with some seeds."""
    return RunGain(
        baseline_bpb=tuple(1.5 + noise * chance.standard_normal(seeds)),
        incumbent_bpb=tuple(1.5 - gain + noise * chance.standard_normal(seeds)),
    )


def arms(
    means: dict[str, float], chance: np.random.Generator, repeats: int, between: float
) -> dict[str, list[RunGain]]:
    """Runs whose true gains vary between repeats."""
    return {
        arm: [run(max(0.0, mean + between * chance.standard_normal()), chance) for _ in range(repeats)]
        for arm, mean in means.items()
    }


@pytest.mark.parametrize("repeats", [2, 3, 5])
def test_among_equals_a_winner_is_seldom_named(repeats: int) -> None:
    """At most once in twenty; with a margin of four standard errors of this simulation."""
    chance = np.random.default_rng(repeats)
    draws, named = 1000, 0
    for _ in range(draws):
        found = arms({"a": 0.02, "b": 0.02, "c": 0.02}, chance, repeats, between=0.01)
        named += winner(duels(found), list(found)) is not None
    assert named / draws < 0.05 + 4 * (0.05 * 0.95 / draws) ** 0.5


def test_a_clearly_better_one_is_found() -> None:
    chance = np.random.default_rng(1)
    found = 0
    for _ in range(200):
        fought = arms({"a": 0.005, "better": 0.1, "c": 0.0}, chance, 4, between=0.008)
        found += winner(duels(fought), list(fought)) == "better"
    assert found >= 180


def test_arms_that_found_nothing_are_even() -> None:
    nothing = [RunGain(), RunGain(), RunGain()]
    (one,) = duels({"a": nothing, "b": nothing})
    assert (one.probability, one.difference_bpb, one.repeats_needed) == (0.5, 0.0, None)
    assert winner([one], ["a", "b"]) is None


def test_one_repeat_tells_nothing() -> None:
    chance = np.random.default_rng(2)
    fought = duels({"a": [run(0.1, chance)], "b": [run(0.0, chance)]})
    assert fought[0].probability is None and winner(fought, ["a", "b"]) is None


def test_blocks_that_look_steady_are_no_surer_than_their_seeds() -> None:
    """Three equal differences of a size that the seeds' noise makes by itself."""
    ours = [RunGain(baseline_bpb=(1.50, 1.54), incumbent_bpb=(1.49, 1.53)) for _ in range(3)]
    (one,) = duels({"a": ours, "b": [RunGain()] * 3})
    assert one.probability is not None and one.probability < 0.9


def test_more_repeats_are_asked_for_when_the_difference_is_small() -> None:
    small, large = (
        duels({"a": [run(gain, np.random.default_rng(i)) for i in range(3)], "b": [RunGain()] * 3})[0]
        for gain in (0.005, 0.5)
    )
    assert small.repeats_needed is not None and large.repeats_needed is not None
    assert small.repeats_needed > large.repeats_needed >= 2


def test_the_bootstrap_interval_covers_the_mean_and_narrows_with_repeats() -> None:
    chance = np.random.default_rng(3)
    few, many = ([run(0.05 + 0.01 * chance.standard_normal(), chance) for _ in range(n)] for n in (3, 30))
    widths = [high - low for low, high in (bootstrap_interval(few, 0), bootstrap_interval(many, 0))]
    low, high = bootstrap_interval(many, 0)
    assert low < 0.05 < high and widths[1] < widths[0]
    assert bootstrap_interval([RunGain()], 0) == (0.0, 0.0)
