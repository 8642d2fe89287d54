"""Which scaffold is better? Over repeats, in blocks that ran side by side. Pure functions.

Gains are in bpb on held-out B, 0 for a run that kept nothing.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

DRAWS = 10_000
# The chance of naming a winner among equals, over all pairs of arms together.
LEVEL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGain:
    """One run's final gain: the scores on B of baseline and incumbent, with as many seeds; both empty for no gain."""

    baseline_bpb: tuple[float, ...] = ()
    incumbent_bpb: tuple[float, ...] = ()

    @property
    def gain(self) -> float:
        if not self.baseline_bpb or not self.incumbent_bpb:
            return 0.0
        return float(np.mean(self.baseline_bpb) - np.mean(self.incumbent_bpb))

    @property
    def variance(self) -> float:
        """Of the gain, as far as the seeds tell."""
        return sum(
            float(np.var(side, ddof=1)) / len(side) for side in (self.baseline_bpb, self.incumbent_bpb) if len(side) > 1
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """Two arms. `probability`: that the first has the greater mean gain, None when one repeat is all there is.

    `repeats_needed`: how many would tell a difference of the size that was seen; None for no difference.
    """

    first: str
    second: str
    difference_bpb: float
    probability: float | None
    repeats_needed: int | None


def bootstrap_interval(runs: Sequence[RunGain], seed: int, coverage: float = 0.95) -> tuple[float, float]:
    """Percentile interval of an arm's mean gain: repeats are drawn again, and in each its seeds (Efron 1979)."""
    chance = np.random.default_rng(seed)
    means = np.zeros(DRAWS)
    for draw in range(DRAWS):
        chosen = chance.integers(len(runs), size=len(runs))
        means[draw] = np.mean([_redrawn(runs[index], chance) for index in chosen])
    low, high = np.quantile(means, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)


def _redrawn(run: RunGain, chance: np.random.Generator) -> float:
    old, new = run.baseline_bpb, run.incumbent_bpb
    if not old or not new:
        return 0.0
    pick = chance.integers(len(old), size=len(old)), chance.integers(len(new), size=len(new))
    return float(np.take(old, pick[0]).mean() - np.take(new, pick[1]).mean())


def duel(first: str, second: str, ours: Sequence[RunGain], theirs: Sequence[RunGain], pairs: int) -> Duel:
    """By the differences in each block, with Student's t; never more certain than the seeds allow.

    The standard error is the larger of the one between blocks and the one that the seeds of each run give,
    since a few blocks can look steadier than they are. `pairs`: how many duels are fought in all.
    """
    differences = np.array([a.gain - b.gain for a, b in zip(ours, theirs, strict=True)])
    mean, count = float(differences.mean()), len(differences)
    within = sum(a.variance + b.variance for a, b in zip(ours, theirs, strict=True)) / count**2
    if count < 2:
        return Duel(first=first, second=second, difference_bpb=mean, probability=None, repeats_needed=None)
    error = math.sqrt(max(float(differences.var(ddof=1)) / count, within))
    if error == 0:
        probability = 0.5 if mean == 0 else float(mean > 0)
    else:
        probability = float(special.stdtr(count - 1, mean / error))
    return Duel(
        first=first,
        second=second,
        difference_bpb=mean,
        probability=probability,
        repeats_needed=_repeats_needed(mean, error * math.sqrt(count), pairs),
    )


def _repeats_needed(mean: float, spread: float, pairs: int) -> int | None:
    if mean == 0:
        return None
    for count in range(2, 1000):
        wanted = float(special.stdtrit(count - 1, 1 - LEVEL / (2 * pairs)))
        if abs(mean) * math.sqrt(count) >= wanted * spread:
            return count
    return None


def duels(runs: Mapping[str, Sequence[RunGain]]) -> list[Duel]:
    """Every pair of arms, in their order."""
    pairs = list(itertools.combinations(runs, 2))
    return [duel(one, other, runs[one], runs[other], len(pairs)) for one, other in pairs]


def winner(fought: Sequence[Duel], arms: Sequence[str]) -> str | None:
    """The arm that beats every other, at a level that is shared by all pairs (Bonferroni); None when it is open."""
    needed = 1 - LEVEL / (2 * len(fought)) if fought else 1.0
    for arm in arms:
        won = [
            one.probability is not None and (one.probability if one.first == arm else 1 - one.probability) >= needed
            for one in fought
            if arm in (one.first, one.second)
        ]
        if won and all(won):
            return arm
    return None
