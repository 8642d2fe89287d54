"""Decides what to audit, how hard, and what the replays say: before a candidate is kept, its score is asked again."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentgolf.course import Course
from agentgolf.decide import leak
from agentgolf.decide.leak import Leak
from agentgolf.domain import Exam, Outcome, Replays, Split
from agentgolf.ledger.lineage import audit_replays
from agentgolf.ledger.store import Ledger, Row
from agentgolf.loop.crew import Crew
from agentgolf.loop.specs import AuditSpec, ExamSpec, Spec
from agentgolf.patch.workspace import GitStore
from agentgolf.scoring.audit import claimed_gains, draw, generator
from agentgolf.scoring.claims import Claims, Floats, reference_nats

# An ordinary trial spends at most this part of its training budget on its audit.
ORDINARY_SHARE = 0.1
ORDINARY_BY_GAIN, ORDINARY_ANYWHERE = 72, 24
MAX_REFERENCES = 6
FORK_SECONDS = 0.02
FIRST_GUESS_SECONDS = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What an audit says of a trial. `trouble` is a sentence when the trial must not be kept."""

    leak: Leak | None
    trouble: str


@dataclass(slots=True, kw_only=True)
class Auditor:
    """Reads what is to be audited from the ledger, has the crew audit it, and reads the replays back."""

    row: Row
    course: Course
    ledger: Ledger
    store: GitStore
    crew: Crew

    def ordinary(self, trial: Row) -> Finding:
        """A small audit of a trial that looks promising after its first look: enough to see who peeks much."""
        if self.course.spec.scorer == "self_reported":
            return Finding(leak=None, trouble="")
        mine = with_claims(self.ledger, trial["id"], Split.A)[:1]
        count = self._ordinary_count(mine[0]) if mine else 0
        if count == 0:
            return Finding(leak=None, trouble="")
        share = ORDINARY_ANYWHERE / (ORDINARY_BY_GAIN + ORDINARY_ANYWHERE)
        anywhere = max(8, round(count * share))
        found, failed = self._audited(trial, mine, "ordinary", count - anywhere, anywhere)
        if failed:
            return Finding(leak=None, trouble=failed)
        seen = leak.evaluate(found, leak.tolerance(found))
        return Finding(leak=seen, trouble=self._caught(seen))

    def before_keep(self, trial: Row) -> Finding:
        """Every replicate of the trial, as hard as its claimed gain needs; the bound must fall below min_gain."""
        if self.course.spec.scorer == "self_reported":
            return Finding(leak=None, trouble=self._examined(trial))
        return self._hard(trial, with_claims(self.ledger, trial["id"], Split.A), "keep")

    def final(self, trial: Row) -> Finding:
        """The same on held-out B, for the replicates that the reported gain rests on."""
        if self.course.spec.scorer == "self_reported":
            return Finding(leak=None, trouble="")
        return self._hard(trial, with_claims(self.ledger, trial["id"], Split.B), "final")

    def _examined(self, trial: Row) -> str:
        """One exam of a script that scores itself; a sentence when no valid predictor could have claimed as much."""
        found = self._exams(trial)
        if not found:
            row = scored_rows(self.ledger, trial["id"])[0]
            spec = stored_spec(row, trial["number"], self.store.files(trial["commit_sha"]))
            self.crew.exam([ExamSpec(spec=spec, stage="keep", secret=os.urandom(16))])
            found = self._exams(trial)
        if found[-1]["outcome"] != Outcome.OK:
            return f"on a text drawn from a known model it {found[-1]['outcome']}: {found[-1]['message']}"
        exam = Exam(**json.loads(found[-1]["exam_json"]))
        return exam.said() if exam.convicted else ""

    def _exams(self, trial: Row) -> list[Row]:
        return self.ledger.rows(
            "SELECT audits.* FROM audits JOIN replicates ON replicates.id = replicate_id "
            "WHERE trial_id = ? AND stage = 'keep' ORDER BY audits.id",
            trial["id"],
        )

    def _hard(self, trial: Row, mine: Sequence[Row], stage: str) -> Finding:
        if not mine:
            return Finding(
                leak=None, trouble="an older agentgolf scored it, and kept nothing that could be asked again"
            )
        pilots = _good(audit_replays(self.ledger, trial["id"], "ordinary"))
        gains = [claimed(self.ledger, trial, row) for row in mine]
        most = max(float(sum(part.sum() for part in parts)) for _, parts in gains)
        needed = leak.replays_needed(pilots, most, gains[0][0].text_bytes, self._min_gain)
        by_gain = math.ceil(needed / len(mine))
        anywhere = math.ceil(max(leak.MIN_ANYWHERE, needed / 4) / len(mine))
        found, failed = self._audited(trial, mine, stage, by_gain, anywhere)
        if failed:
            return Finding(leak=None, trouble=failed)
        seen = leak.evaluate(found, leak.tolerance(pilots))
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
        self, trial: Row, mine: Sequence[Row], stage: str, by_gain: int, anywhere: int
    ) -> tuple[list[Replays], str]:
        """The replays of these replicates; those in the ledger are not asked again. The text says what failed."""
        done = {row["replicate_id"] for row, _ in audit_replays(self.ledger, trial["id"], stage)}
        specs = [self._spec(trial, row, stage, by_gain, anywhere) for row in mine if row["id"] not in done]
        if specs:
            self.crew.audit(specs)
        rows = audit_replays(self.ledger, trial["id"], stage)
        failed = next((row for row, replays in rows if replays is None), None)
        if failed is not None:
            return [], f"asked again in a fresh process, its predictor {failed['outcome']}: {failed['message']}"
        return _good(rows), ""

    def _spec(self, trial: Row, row: Row, stage: str, by_gain: int, anywhere: int) -> AuditSpec:
        claims, gains = claimed(self.ledger, trial, row)
        # Drawn now, long after the artifact was collected: nothing that the candidate wrote can know it.
        secret = os.urandom(16)
        questions = draw(gains, generator(secret, row["artifact_sha256"]), by_gain, anywhere)
        return AuditSpec(
            spec=stored_spec(row, trial["number"], self.store.files(trial["commit_sha"])),
            stage=stage,
            claims=claims,
            gains=gains,
            questions=tuple(questions),
            secret=secret,
            seconds=5 * len(questions) * self._replay_seconds(row) + self.course.limits.eval_seconds,
        )

    def _ordinary_count(self, row: Row) -> int:
        """As many replays as fit into the ordinary share of the training budget, beside one scoring pass."""
        allowed = ORDINARY_SHARE * self.course.limits.train_seconds - self._seconds(row, "predict")
        fitting = math.floor(allowed / self._replay_seconds(row))
        count = min(ORDINARY_BY_GAIN + ORDINARY_ANYWHERE, fitting)
        return count if count >= 32 else 0

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
        # The encoder's time stands for what a predictor takes to start.
        reading = max(
            self._seconds(row, "predict") - self._seconds(row, "encode"), 0.05 * self._seconds(row, "predict")
        )
        return reading / documents + FORK_SECONDS

    def wall_seconds(self) -> float:
        """What auditing one artifact takes: as it has been in this run, else a guess."""
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


def stored_spec(row: Row, trial: int, files: Mapping[str, bytes]) -> Spec:
    """A replicate that is in the ledger, with its artifact."""
    return Spec(
        replicate_id=row["id"],
        trial=trial,
        seed=row["seed"],
        split=Split(row["heldout"]),
        files=files,
        label=f"{row['purpose']} {row['position'] + 1}",
        artifact_sha256=row["artifact_sha256"],
        code_bytes=row["code_bytes"] or 0,
        train_seconds=row["train_seconds"] or 0.0,
    )


def claimed(ledger: Ledger, trial: Row, row: Row) -> tuple[Claims, tuple[Floats, ...]]:
    """What a replicate claims, and to gain at each token over the parent's replicates (on B: the baseline's)."""
    claims = Claims.from_bytes(ledger.blobs.read(row["claims_sha256"]))
    split = Split(row["heldout"])
    rival = trial["parent_id"]
    if split is Split.B:
        rival = ledger.rows("SELECT id FROM trials WHERE run_id = ? AND number = 0", trial["run_id"])[0]["id"]
    rivals = with_claims(ledger, rival, split) if rival not in (None, trial["id"]) else []
    references = [Claims.from_bytes(ledger.blobs.read(found["claims_sha256"])) for found in rivals[-MAX_REFERENCES:]]
    return claims, claimed_gains(claims, reference_nats(claims, references))


def with_claims(ledger: Ledger, trial_id: int, split: Split) -> list[Row]:
    """The replicates of a trial whose every token's nats are on record."""
    return ledger.rows(
        "SELECT * FROM replicates WHERE trial_id = ? AND heldout = ? AND claims_sha256 IS NOT NULL ORDER BY id",
        trial_id,
        split,
    )


def scored_rows(ledger: Ledger, trial_id: int) -> list[Row]:
    """The replicates of a trial that have a score on held-out A."""
    return ledger.rows(
        "SELECT * FROM replicates WHERE trial_id = ? AND outcome = 'ok' AND heldout = 'A' ORDER BY id", trial_id
    )


def _good(rows: Sequence[tuple[Row, Replays | None]]) -> list[Replays]:
    return [replays for _, replays in rows if replays is not None]
