"""What proposers see of a score."""

import math

import pytest

from agentgolf.decide.policy import feedback
from agentgolf.domain import Outcome
from tests.support import trial_summary


@pytest.mark.parametrize(
    ("noise", "seen"),
    [(0.0034, (1.564, 0.012)), (0.066, (1.56, 0.01)), (0.0, (1.5637, 0.0118)), (math.nan, (1.5637, 0.0118))],
)
def test_scores_are_rounded_to_the_noise(noise: float, seen: tuple[float, float]) -> None:
    (shown,) = feedback([trial_summary(val_bpb=1.563712, gain_bpb=0.011791, gain_low=-0.011791)], noise)
    assert (shown.val_bpb, shown.gain_bpb, shown.gain_low) == (*seen, -seen[1])


@pytest.mark.parametrize(
    ("outcome", "seen"),
    [(Outcome.OK, "no gain above 0.002"), (Outcome.CRASHED, "no gain above 0.002: gain +0.001234 [-0.01, +0.02]")],
)
def test_the_reason_for_a_verdict_on_a_score_tells_no_finer_number(outcome: Outcome, seen: str) -> None:
    said = "no gain above 0.002: gain +0.001234 [-0.01, +0.02]"
    assert [trial.reason for trial in feedback([trial_summary(outcome=outcome, reason=said)], 0.01)] == [seen]


def test_a_gain_is_said_with_its_interval() -> None:
    (shown,) = feedback([trial_summary(gain_bpb=0.0123, gain_low=0.0049, gain_high=0.0197)], 0.002)
    assert shown.gain_said == "gain +0.0120 [+0.0050, +0.0200]"
    assert (trial_summary(gain_bpb=0.5).gain_said, trial_summary().gain_said) == ("gain +0.5000", "")


def test_no_score_stays_none() -> None:
    (shown,) = feedback([trial_summary()], 0.01)
    assert (shown.val_bpb, shown.gain_bpb) == (None, None)
