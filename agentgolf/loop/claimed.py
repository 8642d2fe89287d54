"""What recorded replicates claim, and the audits made of it: shared by a run's own audits and those on demand."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agentgolf.decide import leak
from agentgolf.domain import Replays, Split
from agentgolf.ledger.lineage import audit_replays
from agentgolf.ledger.store import Ledger, Row
from agentgolf.loop.specs import AuditSpec, Spec
from agentgolf.scoring.audit import Question, claimed_gains, draw, generator
from agentgolf.scoring.claims import Claims, Floats, reference_nats

MAX_REFERENCES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What one replicate claims, and claims to gain at each token over its reference."""

    row: Row
    claims: Claims
    gains: tuple[Floats, ...]

    @property
    def gain_nats(self) -> float:
        return float(sum(part.sum() for part in self.gains))


def claimed_by(ledger: Ledger, trial: Row, rows: Sequence[Row]) -> list[Claimed]:
    """The reference are the parent's replicates, on held-out B the baseline's; without any, eight bits a byte."""
    references: dict[str, list[Claims]] = {}
    found = []
    for row in rows:
        if row["heldout"] not in references:
            references[row["heldout"]] = _references(ledger, trial, Split(row["heldout"]))
        claims = _claims(ledger, row)
        gains = claimed_gains(claims, reference_nats(claims, references[row["heldout"]]))
        found.append(Claimed(row=row, claims=claims, gains=gains))
    return found


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


def pilots(ledger: Ledger, trial_id: int) -> list[Replays]:
    """The replays of a trial's ordinary audit: they tell how noisy its arithmetic is, before the audit that counts."""
    return [replays for _, replays in audit_replays(ledger, trial_id, "ordinary") if replays is not None]


def shares(replays: int, artifacts: int) -> tuple[int, int]:
    """So many replays by claimed gain, and a fourth of that anywhere, for each of the artifacts."""
    return math.ceil(replays / artifacts), math.ceil(max(leak.MIN_ANYWHERE, replays / 4) / artifacts)


def drawn(found: Claimed, by_gain: int, anywhere: int) -> Callable[[np.random.Generator], list[Question]]:
    return lambda rng: draw(found.gains, rng, by_gain, anywhere)


def asking(
    found: Claimed, spec: Spec, stage: str, pick: Callable[[np.random.Generator], list[Question]], seconds_each: float
) -> AuditSpec:
    """An audit of one replicate, with the questions that `pick` draws."""
    # Drawn now, long after the artifact was collected: nothing that the candidate wrote can know it.
    secret = os.urandom(16)
    questions = pick(generator(secret, found.row["artifact_sha256"]))
    return AuditSpec(
        spec=spec,
        stage=stage,
        claims=found.claims,
        gains=found.gains,
        questions=tuple(questions),
        secret=secret,
        seconds=seconds_each * len(questions),
    )


def _references(ledger: Ledger, trial: Row, split: Split) -> list[Claims]:
    rival = trial["parent_id"]
    if split is Split.B:
        rival = ledger.rows("SELECT id FROM trials WHERE run_id = ? AND number = 0", trial["run_id"])[0]["id"]
    rivals = with_claims(ledger, rival, split) if rival not in (None, trial["id"]) else []
    return [_claims(ledger, row) for row in rivals[-MAX_REFERENCES:]]


def _claims(ledger: Ledger, row: Row) -> Claims:
    return Claims.from_bytes(ledger.blobs.read(row["claims_sha256"]))
