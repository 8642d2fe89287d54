"""What still fits in a run's budget: trials, looks, and the final measurement that is kept back for."""

import math
from dataclasses import dataclass

from agentgolf.course import Course
from agentgolf.decide.stop import Costs, estimate, fits, next_look
from agentgolf.domain import Outcome
from agentgolf.ledger.lineage import replicate_rows
from agentgolf.ledger.store import Ledger, Row
from agentgolf.loop.auditor import Audits
from agentgolf.loop.budget import Budget, first_guess

# Fewer than two give no spread of their own.
MIN_FINAL_PAIRS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    row: Row
    course: Course
    ledger: Ledger
    auditor: Audits
    budget: Budget
    jobs: int

    def room_for(self, number: int) -> bool:
        """Whether a trial may be begun at all: by the limit on trials, and by the budget."""
        limit = self.row["trials_limit"]
        first_look = self.course.spec.decision.looks[0] * (2 if self.jobs > 1 else 1)
        return (limit is None or number <= limit) and self.fits(first_look)

    def next_look(self, trial_id: int, done: int, wanted: int) -> int:
        """The replicates at which the test is read next: fewer than wanted when time is short, `done` for none."""

        def possible(count: int) -> bool:
            return self._measured_already(trial_id, count) or self.fits(
                2 * (count - done), final_pairs=MIN_FINAL_PAIRS, audits=count
            )

        return next_look(done, wanted, self.course.spec.decision.looks, possible)

    def fits(self, replicates: int, final_pairs: int | None = None, audits: int = 0) -> bool:
        """Whether so many more can be measured and audited, with the final measurement kept back.

        A new trial leaves the course's final replicates; one that looks promising may leave fewer, since
        without it there may be nothing to measure finally.
        """
        costs = self.costs()
        pairs = self.course.spec.decision.final_replicates if final_pairs is None else final_pairs
        auditing = self.auditor.wall_seconds() * math.ceil((pairs + audits) / self.jobs)
        return fits(self.budget.left_seconds, costs, replicates, costs.replicates(2 * pairs) + auditing)

    def costs(self) -> Costs:
        seen = [
            row["wall_seconds"]
            for row in replicate_rows(self.ledger, self.row["id"])
            if row["state"] == "scored" and row["outcome"] == Outcome.OK
        ]
        return estimate(seen, first_guess(self.course), self.jobs)

    def _measured_already(self, trial_id: int, wanted: int) -> bool:
        rows = self.ledger.rows(
            "SELECT count(*) AS n FROM replicates WHERE trial_id = ? AND purpose = 'search' AND state = 'scored'",
            trial_id,
        )
        return bool(rows[0]["n"] >= wanted)
