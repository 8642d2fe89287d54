"""What fits in a budget, and who the incumbent is."""

import pytest

from agentgolf.decide.policy import ancestry, incumbent
from agentgolf.decide.stop import SAFETY, Costs, estimate, fits, next_look
from agentgolf.domain import Verdict
from tests.support import trial_summary


def test_rounds_are_counted_in_slots() -> None:
    assert Costs(replicate_seconds=10, jobs=2).replicates(3) == 20
    assert Costs(replicate_seconds=10, jobs=1).replicates(3) == 30


def test_the_slower_of_the_recent_replicates_rule_but_not_the_slowest() -> None:
    assert estimate([], 70, 2).replicate_seconds == 70
    assert estimate([60, 60, 62, 64], 70, 2).replicate_seconds == pytest.approx(62 * SAFETY)
    assert estimate([88, 90, 95, 256], 70, 2).replicate_seconds < 100 * SAFETY, "one slow core does not end a run"
    assert estimate([999] * 20 + [60] * 12, 70, 2).replicate_seconds == pytest.approx(60 * SAFETY)


def test_the_reserve_is_kept_back() -> None:
    costs = Costs(replicate_seconds=10, jobs=1)
    assert fits(40, costs, 2, 20) and not fits(39, costs, 2, 20)


def test_the_incumbent_is_the_last_kept_and_its_line_leads_to_the_baseline() -> None:
    trials = [
        trial_summary(number=0, parent=None, verdict=Verdict.KEEP),
        trial_summary(number=1, parent=0, verdict=Verdict.REVERT),
        trial_summary(number=2, parent=0, verdict=Verdict.KEEP),
        trial_summary(number=3, parent=2, verdict=Verdict.KEEP),
        trial_summary(number=4, parent=3, verdict=Verdict.UNDECIDED),
    ]
    assert incumbent(trials).number == 3
    assert [t.number for t in ancestry(trials, 3)] == [3, 2, 0]


def test_a_look_that_does_not_fit_comes_early_and_is_the_last() -> None:
    looks = (1, 3, 5)
    assert next_look(3, 5, looks, lambda count: True) == 5
    assert next_look(3, 5, looks, lambda count: count <= 4) == 4
    assert next_look(1, 3, looks, lambda count: count <= 2) == 2
    assert next_look(3, 5, looks, lambda count: False) == 3, "none"
    assert next_look(4, 5, looks, lambda count: True) == 4, "each look has its share of the level, and this one took it"
