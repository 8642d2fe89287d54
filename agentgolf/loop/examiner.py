"""Audits scripts that score themselves: before a keep, one has to score a text whose source we know."""

import json
import os
from dataclasses import dataclass

from agentgolf.domain import Exam, Outcome
from agentgolf.ledger.store import Ledger, Row
from agentgolf.loop.auditor import CLEAN, Finding
from agentgolf.loop.claimed import scored_rows, stored_spec
from agentgolf.loop.crew import Crew
from agentgolf.loop.specs import ExamSpec
from agentgolf.patch.workspace import GitStore


@dataclass(slots=True, kw_only=True)
class Examiner:
    """Stands where an `Auditor` does. `exam_seconds`: what an exam, a whole training, takes on the wall."""

    ledger: Ledger
    store: GitStore
    crew: Crew
    exam_seconds: float

    def ordinary(self, trial: Row) -> Finding:
        """An exam costs a training: no promising first look is worth one."""
        return CLEAN

    def before_keep(self, trial: Row) -> Finding:
        """One exam; a sentence when no valid predictor could have claimed as much."""
        found = self._exams(trial)
        if not found:
            row = scored_rows(self.ledger, trial["id"])[0]
            spec = stored_spec(row, trial["number"], self.store.files(trial["commit_sha"]))
            self.crew.exam([ExamSpec(spec=spec, stage="keep", secret=os.urandom(16))])
            found = self._exams(trial)
        last = found[-1]
        if last["outcome"] != Outcome.OK:
            trouble = f"on a text drawn from a known model it {last['outcome']}: {last['message']}"
            return Finding(leak=None, trouble=trouble)
        exam = Exam(**json.loads(last["exam_json"]))
        return Finding(leak=None, trouble=exam.said()) if exam.convicted else CLEAN

    def final(self, trial: Row) -> Finding:
        """What was kept has passed its exam; on held-out B there is nothing more to ask."""
        return CLEAN

    def wall_seconds(self) -> float:
        return self.exam_seconds

    def _exams(self, trial: Row) -> list[Row]:
        return self.ledger.rows(
            "SELECT audits.* FROM audits JOIN replicates ON replicates.id = replicate_id "
            "WHERE trial_id = ? AND stage = 'keep' ORDER BY audits.id",
            trial["id"],
        )
