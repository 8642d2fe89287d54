"""What still fits in the budget. Pure functions; all times in wall seconds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Room for a replicate that takes longer than most of those before it.
SAFETY = 1.08
RECENT = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What one replicate takes, and how many run at once."""

    replicate_seconds: float
    jobs: int

    def replicates(self, count: int) -> float:
        """Seconds for so many replicates, run in rounds of `jobs`."""
        return math.ceil(count / self.jobs) * self.replicate_seconds


def estimate(seen_seconds: Sequence[float], first_guess: float, jobs: int) -> Costs:
    """The upper quartile of the recent replicates, with a margin; from the course's limits before any.

    Not the slowest: one replicate on a core that was taken away would end a run with most of it unspent.
    """
    recent = sorted(seen_seconds[-RECENT:])
    upper = recent[3 * (len(recent) - 1) // 4] if recent else 0.0
    return Costs(replicate_seconds=SAFETY * upper if recent else first_guess, jobs=jobs)


def fits(left_seconds: float, costs: Costs, replicates: int, reserve_seconds: float) -> bool:
    """Whether so many replicates can finish and still leave the reserve."""
    return costs.replicates(replicates) + reserve_seconds <= left_seconds


def next_look(done: int, wanted: int, looks: Sequence[int], possible: Callable[[int], bool]) -> int:
    """After how many replicates, up to `wanted`, the test is read next; `done` when it is not read again.

    When the planned look does not fit, the most that does takes its place and its share of the level: the
    clock has chosen it, not the scores. Such a look is the last.
    """
    if done not in looks:
        return done
    return next((count for count in range(wanted, done, -1) if possible(count)), done)
