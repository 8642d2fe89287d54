"""Decides what to audit, how hard, and what the replays say: before a candidate is kept, its score is asked again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agentgolf.course import Course
from agentgolf.decide import leak
from agentgolf.decide.leak import Leak
from agentgolf.domain import Replays, Split
from agentgolf.ledger.lineage import audit_replays
from agentgolf.ledger.store import Ledger, Row
from agentgolf.loop.claimed import Claimed, asking, claimed_by, drawn, pilots, shares, stored_spec, with_claims
from agentgolf.loop.crew import Crew
from agentgolf.patch.workspace import GitStore

# An ordinary trial spends at most this part of its training budget on its audit; planned is less, for estimates err.
ORDINARY_SHARE, PLANNED_PART = 0.1, 0.9
ORDINARY_MOST, ORDINARY_ANYWHERE, ORDINARY_LEAST = 96, 24, 24
FORK_SECONDS = 0.02
# An audit is stopped when it takes so many times what it should, beside one evaluation.
SLACK = 5
FIRST_GUESS_SECONDS = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What an audit says of a trial. `trouble` is a sentence when the trial must not be kept."""

    leak: Leak | None
    trouble: str


CLEAN = Finding(leak=None, trouble="")


class Audits(Protocol):
    """How a course's candidates are audited: replays for a predictor, exams for scripts that score themselves."""

    def ordinary(self, trial: Row) -> Finding:
        """After a promising first look."""

    def before_keep(self, trial: Row) -> Finding: ...

    def final(self, trial: Row) -> Finding:
        """Of the replicates on held-out B that the reported gain rests on."""

    def wall_seconds(self) -> float:
        """What auditing one artifact takes."""


@dataclass(slots=True, kw_only=True)
class Auditor:
    """Reads what is to be audited from the ledger, has the crew audit it, and reads the replays back."""

    row: Row
    course: Course
    ledger: Ledger
    store: GitStore
    crew: Crew

    def ordinary(self, trial: Row) -> Finding:
        """A small audit, enough to see who peeks much; none where it does not fit beside one scoring pass."""
        mine = with_claims(self.ledger, trial["id"], Split.A)[:1]
        count = self._ordinary_count(mine[0]) if mine else 0
        return CLEAN if count < ORDINARY_LEAST else self._small(trial, mine, count)

    def before_keep(self, trial: Row) -> Finding:
        """Every replicate of the trial, as hard as its claimed gain needs; the bound must fall below min_gain."""
        mine = with_claims(self.ledger, trial["id"], Split.A)
        if mine and not pilots(self.ledger, trial["id"]):
            # The track is too short for an ordinary audit. Who peeks much claims much, which would take thousands.
            first = self._small(trial, mine[:1], ORDINARY_MOST)
            if first.trouble:
                return first
        return self._hard(trial, mine, "keep")

    def final(self, trial: Row) -> Finding:
        return self._hard(trial, with_claims(self.ledger, trial["id"], Split.B), "final")

    def _small(self, trial: Row, mine: Sequence[Row], count: int) -> Finding:
        """So many replays, which convict or tell how noisy the candidate's arithmetic is."""
        anywhere = max(8, round(count * ORDINARY_ANYWHERE / ORDINARY_MOST))
        asked = claimed_by(self.ledger, trial, mine)
        found, failed = self._audited(trial, asked, "ordinary", (count - anywhere, anywhere))
        if failed:
            return Finding(leak=None, trouble=failed)
        seen = leak.evaluate(found, leak.tolerance(found))
        return Finding(leak=seen, trouble=self._caught(seen))

    def _hard(self, trial: Row, mine: Sequence[Row], stage: str) -> Finding:
        if not mine:
            return Finding(leak=None, trouble="an older agentgolf scored it and kept nothing to ask again")
        asked, known = claimed_by(self.ledger, trial, mine), pilots(self.ledger, trial["id"])
        most = max(one.gain_nats for one in asked)
        needed = leak.replays_needed(known, most, asked[0].claims.text_bytes, self._min_gain)
        found, failed = self._audited(trial, asked, stage, shares(needed, len(asked)))
        if failed:
            return Finding(leak=None, trouble=failed)
        seen = leak.evaluate(found, leak.tolerance(known))
        if seen.clean(self._min_gain):
            return Finding(leak=seen, trouble="")
        trouble = self._caught(seen) or (
            f"its predictions could not be shown to be causal: the leak bound is not below "
            f"{self._min_gain:g} ({seen.said()})"
        )
        return Finding(leak=seen, trouble=trouble)

    def _caught(self, seen: Leak) -> str:
        """A sentence when the replays themselves show a leak, whatever the bound."""
        if seen.lower_bpb > 0 and seen.bound_bpb >= self._min_gain:
            return (
                f"it peeks: with later tokens withheld at least {seen.lower_bpb:.4f} bpb of its gain is gone "
                f"({seen.said()})"
            )
        if seen.overflows:
            return (
                f"it peeks: {seen.overflows} tokens cost far more with later tokens withheld than it claimed "
                f"({seen.said()})"
            )
        return ""

    def _audited(
        self, trial: Row, asked: Sequence[Claimed], stage: str, counts: tuple[int, int]
    ) -> tuple[list[Replays], str]:
        """The replays of these replicates; those in the ledger are not asked again. The text says what failed."""
        done = {row["replicate_id"] for row, _ in audit_replays(self.ledger, trial["id"], stage)}
        files = self.store.files(trial["commit_sha"])
        specs = [
            asking(
                one,
                stored_spec(one.row, trial["number"], files),
                stage,
                drawn(one, *counts),
                SLACK * self._replay_seconds(one.row),
            )
            for one in asked
            if one.row["id"] not in done
        ]
        if specs:
            self.crew.audit(specs)
        rows = audit_replays(self.ledger, trial["id"], stage)
        failed = next((row for row, replays in rows if replays is None), None)
        if failed is not None:
            return [], f"asked again in a fresh process, its predictor {failed['outcome']}: {failed['message']}"
        return [replays for _, replays in rows if replays is not None], ""

    def _ordinary_count(self, row: Row) -> int:
        """As many replays as fit into the ordinary share of the training budget, beside one scoring pass."""
        allowed = PLANNED_PART * ORDINARY_SHARE * self.course.limits.train_seconds - self._seconds(row, "predict")
        return min(ORDINARY_MOST, math.floor(allowed / self._replay_seconds(row)))

    def _seconds(self, row: Row, role: str) -> float:
        found = self.ledger.rows(
            "SELECT clock_seconds AS s FROM executions WHERE replicate_id = ? AND role = ?", row["id"], role
        )
        return float(found[0]["s"]) if found else 0.0

    def _replay_seconds(self, row: Row) -> float:
        """A replay reads half a document on average."""
        spec = self.course.spec.data
        assert spec is not None
        documents = spec.heldout_a_documents if row["heldout"] == Split.A else spec.heldout_b_documents
        predict = self._seconds(row, "predict")
        # The encoder's time stands for what a predictor takes to start.
        return max(predict - self._seconds(row, "encode"), 0.05 * predict) / documents + FORK_SECONDS

    def wall_seconds(self) -> float:
        """As it has been in this run, else a guess."""
        seen = self.ledger.rows(
            "SELECT avg(audits.wall_seconds) AS s FROM audits JOIN replicates ON replicates.id = replicate_id "
            "JOIN trials ON trials.id = trial_id WHERE run_id = ?",
            self.row["id"],
        )[0]["s"]
        guess = FIRST_GUESS_SECONDS + ORDINARY_SHARE * self.course.limits.train_seconds
        return float(guess if seen is None else seen)

    @property
    def _min_gain(self) -> float:
        return self.course.spec.decision.min_gain_bpb
