"""Which replicates come next, and with which seeds. Pure functions."""

import hashlib
from dataclasses import dataclass

from agentgolf.domain import Split


@dataclass(frozen=True, slots=True)
class Planned:
    """One replicate to come: whose candidate is measured, for whose sake, and which of its kind it is.

    `purpose`: baseline, search (a candidate's own), paired (the incumbent again, beside a candidate) or
    final (fresh seeds, held-out B). Trials are given by their row ids in the ledger.
    """

    trial_id: int
    for_trial_id: int
    purpose: str
    position: int
    split: Split = Split.A

    @property
    def key(self) -> tuple[int, int, str, int]:
        """What is unique about it; the ledger holds at most one replicate with this key."""
        return self.trial_id, self.for_trial_id, self.purpose, self.position


def baseline_plan(trial_id: int, count: int) -> list[Planned]:
    return [Planned(trial_id, trial_id, "baseline", i) for i in range(count)]


def look_plan(trial_id: int, parent_id: int, done: int, wanted: int, jobs: int) -> list[Planned]:
    """The next replicates of a candidate, each beside one of the incumbent so that drift cancels.

    With a single slot the first is measured alone: most candidates need no more to be turned down.
    """
    plan = []
    for i in range(done, wanted):
        plan.append(Planned(trial_id, trial_id, "search", i))
        if jobs > 1 or i > 0:
            plan.append(Planned(parent_id, trial_id, "paired", i))
    return plan


def final_plan(baseline_id: int, incumbent_id: int, position: int) -> list[Planned]:
    return [Planned(trial_id, incumbent_id, "final", position, Split.B) for trial_id in (baseline_id, incumbent_id)]


def seed_for(run_seed: int, trial: int, for_trial: int, purpose: str, position: int) -> int:
    """A 31-bit seed that depends on the run's seed and on what it is for (trials by number), and on nothing else."""
    text = f"{run_seed}:{trial}:{for_trial}:{purpose}:{position}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
