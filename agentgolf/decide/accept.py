"""Is the gain real? Tests over replicates; pure functions.

Bits per byte are better when lower, so a gain is incumbent - candidate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from agentgolf.domain import Verdict, gain_bpb

WINDOW = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a candidate is kept. `looks`: the numbers of its replicates at which the test is read.

    `level` is the chance, for one candidate that is no better, of being kept; it is shared equally by
    the looks at which a keep is possible (Bonferroni), since each is another chance to be lucky.
    """

    min_gain_bpb: float
    level: float
    looks: tuple[int, ...]

    @property
    def level_per_look(self) -> float:
        return self.level / sum(look >= 2 for look in self.looks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What replicates say of a gain, in bpb. `p_value`: one-sided, of gain <= min_gain."""

    gain: float
    standard_error: float
    degrees: float
    p_value: float

    def interval(self, coverage: float = 0.95) -> tuple[float, float]:
        """Two-sided confidence interval of the gain."""
        half = float(special.stdtrit(self.degrees, 0.5 + coverage / 2)) * self.standard_error
        return self.gain - half, self.gain + half


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`verdict` is None while more replicates are wanted; `wanted` is then how many in all."""

    verdict: Verdict | None
    reason: str
    evidence: Evidence | None
    wanted: int = 0


def pooled_noise(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Standard deviation within groups, and its degrees of freedom; (nan, 0) without any."""
    degrees = sum(len(group) - 1 for group in groups if len(group) > 1)
    if degrees == 0:
        return math.nan, 0
    squares = sum(float(np.var(group)) * len(group) for group in groups if len(group) > 1)
    return math.sqrt(squares / degrees), degrees


def welch(
    incumbent: Sequence[float], candidate: Sequence[float], min_gain_bpb: float, noise: tuple[float, int]
) -> Evidence:
    """One-sided Welch test of gain > min_gain (Welch 1947), never more certain than the pooled noise.

    A handful of replicates can look steadier than they are. The standard error is therefore the larger
    of Welch's and the one that the run's pooled noise gives. With a single replicate on one side only
    the pooled noise is left.
    """
    n_old, n_new = len(incumbent), len(candidate)
    gain = gain_bpb(float(np.mean(incumbent)), float(np.mean(candidate)))
    spread, spread_degrees = noise
    error, degrees = spread * math.sqrt(1 / n_old + 1 / n_new), float(spread_degrees)
    if n_old > 1 and n_new > 1:
        a, b = float(np.var(incumbent, ddof=1)) / n_old, float(np.var(candidate, ddof=1)) / n_new
        if a + b > 0:
            welch_degrees = (a + b) ** 2 / (a**2 / (n_old - 1) + b**2 / (n_new - 1))
            if spread_degrees == 0 or math.sqrt(a + b) >= error:
                error, degrees = math.sqrt(a + b), welch_degrees
            else:
                degrees = max(welch_degrees, min(degrees, n_old + n_new - 2))
    if not error > 0:
        error = 1e-12  # identical scores on both sides: deterministic training
    degrees = max(degrees, 1.0)
    statistic = (gain - min_gain_bpb) / error
    return Evidence(gain=gain, standard_error=error, degrees=degrees, p_value=float(special.stdtr(degrees, -statistic)))


def judge(incumbent: Sequence[float], candidate: Sequence[float], rules: Rules, noise: tuple[float, int]) -> Judgement:
    """Keep, revert, or ask for more replicates.

    `incumbent` is given in the order of measurement: of a long record only the newest `WINDOW` count,
    so that a slow drift of the machine cannot pass for a gain. `noise` is `pooled_noise` of the run.
    """
    evidence = welch(incumbent[-max(WINDOW, len(candidate)) :], candidate, rules.min_gain_bpb, noise)
    low, high = evidence.interval()
    said = f"gain {evidence.gain:+.4f} [{low:+.4f}, {high:+.4f}], p = {evidence.p_value:.2g}"
    n = len(candidate)
    if evidence.gain <= rules.min_gain_bpb:
        return Judgement(
            verdict=Verdict.REVERT, evidence=evidence, reason=f"no gain above {rules.min_gain_bpb:g}: {said}"
        )
    if n >= 2 and evidence.p_value <= rules.level_per_look:
        return Judgement(
            verdict=Verdict.KEEP,
            evidence=evidence,
            reason=f"better by more than {rules.min_gain_bpb:g}: {said}",
        )
    later = [look for look in rules.looks if look > n]
    if later:
        return Judgement(verdict=None, evidence=evidence, reason=f"open: {said}", wanted=later[0])
    return Judgement(
        verdict=Verdict.UNDECIDED,
        evidence=evidence,
        reason=f"not above the noise after {n} replicates: {said}",
    )


def half_width(noise: tuple[float, int], coverage: float = 0.95) -> float | None:
    """Half the confidence interval of one val_bpb under the pooled noise; None while that is unknown.

    For a mean of n replicates divide by sqrt(n).
    """
    spread, degrees = noise
    return float(special.stdtrit(degrees, 0.5 + coverage / 2)) * spread if degrees else None


def mean_interval(values: Sequence[float], noise: tuple[float, int]) -> tuple[float, float] | None:
    """95% confidence interval of a mean val_bpb; None while the noise is unknown."""
    half = half_width(noise)
    if not values or half is None:
        return None
    mean = float(np.mean(values))
    return mean - half / math.sqrt(len(values)), mean + half / math.sqrt(len(values))


def prediction_interval(values: Sequence[float], new: int, noise: tuple[float, int]) -> tuple[float, float] | None:
    """Where the mean of `new` further replicates should fall (95%), given the mean of `values`."""
    half = half_width(noise)
    if not values or half is None:
        return None
    mean, scale = float(np.mean(values)), math.sqrt(1 / len(values) + 1 / new)
    return mean - half * scale, mean + half * scale
