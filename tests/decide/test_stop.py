"""What fits in a budget, and who the incumbent is."""

import pytest

from agentgolf.decide.policy import ancestry, incumbent
from agentgolf.decide.stop import SAFETY, Costs, estimate, fits
from agentgolf.domain import Outcome, TrialSummary, Verdict


def trial(number: int, parent: int | None, verdict: Verdict) -> TrialSummary:
    return TrialSummary(
        number=number,
        parent=parent,
        proposer="p",
        technique="t",
        hypothesis="h",
        fingerprint="",
        detail={},
        outcome=Outcome.OK,
        verdict=verdict,
        reason="",
        gain_bpb=None,
        val_bpb=None,
        counted_bytes=None,
    )


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
        trial(0, None, Verdict.KEEP),
        trial(1, 0, Verdict.REVERT),
        trial(2, 0, Verdict.KEEP),
        trial(3, 2, Verdict.KEEP),
        trial(4, 3, Verdict.UNDECIDED),
    ]
    assert incumbent(trials).number == 3
    assert [t.number for t in ancestry(trials, 3)] == [3, 2, 0]
