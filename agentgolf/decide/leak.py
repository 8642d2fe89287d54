"""How much of a gain could be peeking? Bounds from replays; pure functions. docs/threat-model.md derives them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize

from agentgolf.domain import Replay, Replays

NATS_PER_BIT = math.log(2)
LEVEL = 0.01
# The share of the level that goes to differences below the tolerance.
SMALL_LEVEL = 0.001
MIN_TOLERANCE_NATS, MAX_TOLERANCE_NATS = 0.002, 0.05
# How much more than the reference an honest prediction may cost before the assumption behind the bound fails.
OVERFLOW_NATS = 0.25
MIN_BY_GAIN, MIN_ANYWHERE, MAX_BY_GAIN = 64, 32, 6000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """What replays say of a candidate, over all of its audited artifacts.

    mean_nats       mean difference of the tokens drawn anywhere
    upper_nats      its upper 99% confidence bound
    bound_bpb       the leak bound: more than this cannot have been faked and stayed unseen, at 99%
    lower_bpb       at least so much was faked, at 99%; above zero only for a leak that was seen
    overflows       tokens whose honest prediction is far worse than the reference's
    """

    replays: int
    mean_nats: float
    upper_nats: float
    bound_bpb: float
    lower_bpb: float
    overflows: int

    def clean(self, min_gain_bpb: float) -> bool:
        return self.overflows == 0 and self.bound_bpb < min_gain_bpb

    def said(self) -> str:
        return (
            f"{self.replays} replays: mean difference {self.mean_nats:+.5f} nats, at most {self.upper_nats:.5f}; "
            f"leak bound {self.bound_bpb:.5f} bpb"
        )


def tolerance(parts: Sequence[Replays]) -> float:
    """Nats by which the arithmetic of two passes may differ: four robust standard deviations, within limits."""
    found = [abs(item.difference_nats) for part in parts for item in part.items]
    if not found:
        return MIN_TOLERANCE_NATS
    return float(np.clip(4 * np.median(found) / 0.6745, MIN_TOLERANCE_NATS, MAX_TOLERANCE_NATS))


def evaluate(parts: Sequence[Replays], tolerance_nats: float = MIN_TOLERANCE_NATS) -> Leak:
    """Every part is one artifact of the candidate, with as many replays of each kind as the others."""
    by_gain = _spread(parts, by_gain=True)
    anywhere = _spread(parts, by_gain=False)
    most = max(part.claimed_nats for part in parts)
    text_bytes = float(np.mean([part.text_bytes for part in parts]))
    tokens = max(part.tokens for part in parts)
    faked = _faked_share(by_gain, tolerance_nats)
    large_nats = most * upper_mean(faked, LEVEL - SMALL_LEVEL)
    small_nats = tokens * _small_upper(_differences(anywhere), tolerance_nats)
    per_bpb = NATS_PER_BIT * text_bytes
    differences = _differences(anywhere)
    return Leak(
        replays=sum(item.times for part in parts for item in part.items),
        mean_nats=float(differences.mean()) if len(differences) else 0.0,
        upper_nats=_small_upper(differences, tolerance_nats)
        + _large_upper(differences, tolerance_nats, LEVEL - SMALL_LEVEL),
        bound_bpb=(large_nats + small_nats) / per_bpb,
        lower_bpb=most * lower_mean(faked, LEVEL) / per_bpb,
        overflows=sum(
            item.times
            for part in parts
            for item in part.items
            if item.difference_nats > item.gain_nats + tolerance_nats + OVERFLOW_NATS
        ),
    )


def replays_needed(parts: Sequence[Replays], claimed_nats: float, text_bytes: int, min_gain_bpb: float) -> int:
    """How many replays by claimed gain bring the bound of a candidate like the pilot's below 0.8 x min_gain."""
    faked = _faked_share(_spread(parts, by_gain=True), tolerance(parts))
    mean = float(faked.mean()) if len(faked) else 0.0
    allowed = 0.8 * min_gain_bpb * NATS_PER_BIT * text_bytes / max(claimed_nats, 1e-9)
    count = MIN_BY_GAIN
    while count < MAX_BY_GAIN and _kl_upper(mean, count, LEVEL - SMALL_LEVEL) > allowed:
        count = math.ceil(count * 1.1)
    return min(count, MAX_BY_GAIN)


def upper_mean(values: Floats, level: float) -> float:
    """Upper confidence bound of the mean of independent values in [0, 1] (Chernoff, Hoeffding 1963).

    For n values that are all zero it is 1 - level^(1/n), about 4.6 / n at 99%.
    """
    return _kl_upper(float(values.mean()), len(values), level) if len(values) else 1.0


def lower_mean(values: Floats, level: float) -> float:
    return 1.0 - _kl_upper(1.0 - float(values.mean()), len(values), level) if len(values) else 0.0


def _kl_upper(mean: float, count: int, level: float) -> float:
    """The largest m >= mean with count * kl(mean, m) <= ln(1 / level)."""
    allowed = math.log(1 / level) / count

    def excess(m: float) -> float:
        rest = (1 - mean) * math.log((1 - mean) / (1 - m)) if mean < 1 else 0.0
        return (mean * math.log(mean / m) if mean > 0 else 0.0) + rest - allowed

    top = 1 - 1e-15
    if mean >= top or excess(top) <= 0:
        return 1.0
    return float(optimize.brentq(excess, max(mean, 1e-300), top))


def _small_upper(differences: Floats, tolerance_nats: float) -> float:
    """Upper bound of the mean of differences cut to +-tolerance: the better of two, each at half the level.

    Either only the positive parts count (Chernoff), or both signs do (empirical Bernstein: Maurer and
    Pontil 2009, theorem 4), which suits arithmetic noise around zero.
    """
    count, level = len(differences), SMALL_LEVEL / 2
    if count < 2:
        return tolerance_nats
    positive = tolerance_nats * upper_mean(np.clip(differences / tolerance_nats, 0, 1), level)
    cut = np.clip(differences, -tolerance_nats, tolerance_nats)
    log = math.log(2 / level)
    signed = float(cut.mean()) + math.sqrt(2 * float(cut.var(ddof=1)) * log / count)
    signed += 7 * 2 * tolerance_nats * log / (3 * (count - 1))
    return min(positive, signed)


def _large_upper(differences: Floats, tolerance_nats: float, level: float) -> float:
    """Upper bound of the mean excess over the tolerance, no single one counted above the largest that was seen."""
    excess = np.maximum(differences - tolerance_nats, 0.0)
    top = float(excess.max()) if len(excess) else 0.0
    return top * upper_mean(excess / top, level) if top > 0 else 0.0


def _faked_share(items: Sequence[Replay], tolerance_nats: float) -> Floats:
    """Which part of the gain claimed at each token is not there when the rest is withheld."""
    return np.array(
        [min(max(item.difference_nats - tolerance_nats, 0.0) / max(item.gain_nats, 1e-9), 1.0) for item in items]
    )


def _differences(items: Sequence[Replay]) -> Floats:
    return np.array([item.difference_nats for item in items])


def _spread(parts: Sequence[Replays], *, by_gain: bool) -> list[Replay]:
    """One entry a draw."""
    return [item for part in parts for item in part.items if item.by_gain is by_gain for _ in range(item.times)]
