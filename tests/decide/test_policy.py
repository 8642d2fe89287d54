"""What proposers see of a score."""

import math

import pytest

from agentgolf.decide.policy import feedback
from agentgolf.domain import Outcome, TrialSummary, Verdict


def trial(val_bpb: float | None, gain_bpb: float | None) -> TrialSummary:
    return TrialSummary(
        number=1,
        parent=0,
        proposer="p",
        technique="",
        hypothesis="",
        fingerprint="",
        detail={},
        outcome=Outcome.OK,
        verdict=Verdict.REVERT,
        reason="",
        gain_bpb=gain_bpb,
        val_bpb=val_bpb,
        counted_bytes=1,
    )


@pytest.mark.parametrize(
    ("noise", "seen"),
    [(0.0034, (1.564, 0.012)), (0.066, (1.56, 0.01)), (0.0, (1.5637, 0.0118)), (math.nan, (1.5637, 0.0118))],
)
def test_scores_are_rounded_to_the_noise(noise: float, seen: tuple[float, float]) -> None:
    (shown,) = feedback([trial(1.563712, 0.011791)], noise)
    assert (shown.val_bpb, shown.gain_bpb) == seen


def test_no_score_stays_none() -> None:
    (shown,) = feedback([trial(None, None)], 0.01)
    assert (shown.val_bpb, shown.gain_bpb) == (None, None)
