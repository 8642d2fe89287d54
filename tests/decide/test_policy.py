"""What proposers see of a score."""

import math

import pytest

from agentgolf.decide.policy import feedback
from tests.support import trial_summary


@pytest.mark.parametrize(
    ("noise", "seen"),
    [(0.0034, (1.564, 0.012)), (0.066, (1.56, 0.01)), (0.0, (1.5637, 0.0118)), (math.nan, (1.5637, 0.0118))],
)
def test_scores_are_rounded_to_the_noise(noise: float, seen: tuple[float, float]) -> None:
    (shown,) = feedback([trial_summary(val_bpb=1.563712, gain_bpb=0.011791)], noise)
    assert (shown.val_bpb, shown.gain_bpb) == seen


def test_no_score_stays_none() -> None:
    (shown,) = feedback([trial_summary()], 0.01)
    assert (shown.val_bpb, shown.gain_bpb) == (None, None)
