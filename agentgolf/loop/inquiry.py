"""Audits a recorded trial, as hard as asked: its artifacts are on record, so nothing is trained again."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentgolf.course import Course
from agentgolf.decide import leak
from agentgolf.domain import Exam, Replays, Slot, Split
from agentgolf.errors import CandidateError, UsageError
from agentgolf.ledger.blobs import Blobs
from agentgolf.ledger.store import Ledger, Row
from agentgolf.loop.claimed import (
    Claimed,
    asking,
    claimed_by,
    drawn,
    pilots,
    scored_rows,
    shares,
    stored_spec,
    with_claims,
)
from agentgolf.loop.crew import write_audit
from agentgolf.loop.observer import Observer
from agentgolf.loop.pool import on_slots
from agentgolf.loop.session import open_bench, run_folder
from agentgolf.loop.specs import Audited, AuditSpec, ExamSpec
from agentgolf.patch.workspace import GitStore
from agentgolf.sandbox.base import Sandbox
from agentgolf.scoring.audit import Question, every_token

SECONDS_A_REPLAY = 5.0
NOTE_EVERY = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRequest:
    """`replays`: by claimed gain, over all artifacts; None: as many as the claimed gain needs."""

    run: Row
    trial: Row
    replays: int | None
    lockstep: bool
    split: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditResult:
    """What the replays of a trial's artifacts say. `replayed_bpb`: the score in lockstep, token by token."""

    run: str
    trial: int
    split: Split
    artifacts: int
    replays: int
    mean_nats: float
    upper_nats: float
    leak_bound_bpb: float | None
    leak_lower_bpb: float | None
    claimed_bpb: float
    replayed_bpb: float | None
    clean: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def audit(
    ledger: Ledger,
    request: AuditRequest,
    course: Course,
    sandbox: Sandbox,
    slots: Sequence[Slot],
    observer: Observer,
) -> AuditResult:
    """Raises `UsageError` when there is nothing to ask again, `CandidateError` when the predictor fails this time."""
    run, trial = request.run, request.trial
    rows = with_claims(ledger, trial["id"], request.split)
    if not rows:
        raise UsageError(
            f"trial {trial['number']} has no scored artifact on held-out {request.split} to ask again"
            + ("; only the incumbent and the baseline are scored on B" if request.split is Split.B else "")
        )
    files = _files(ledger, run, trial)
    min_gain = course.spec.decision.min_gain_bpb
    found, known = claimed_by(ledger, trial, rows), pilots(ledger, trial["id"])
    most = max(one.gain_nats for one in found)
    needed = request.replays or leak.replays_needed(known, most, found[0].claims.text_bytes, min_gain)
    asked = [
        asking(
            one,
            stored_spec(one.row, trial["number"], files),
            "asked",
            _every_token_of(one) if request.lockstep else drawn(one, *shares(needed, len(rows))),
            SECONDS_A_REPLAY,
        )
        for one in found
    ]
    parts = _ask(ledger, run, course, sandbox, slots, observer, asked)
    seen = leak.evaluate(parts, leak.tolerance(known))
    text_bytes = sum(spec.claims.text_bytes for spec in asked)
    nats = sum(float(part.sum()) for spec in asked for part in spec.claims.nats)
    again = nats + sum(item.difference_nats for part in parts for item in part.items)
    replayed_bpb = again / (leak.NATS_PER_BIT * text_bytes) if request.lockstep else None
    claimed_bpb = nats / (leak.NATS_PER_BIT * text_bytes)
    clean = replayed_bpb - claimed_bpb < min_gain if replayed_bpb is not None else seen.clean(min_gain)
    return AuditResult(
        run=run["name"],
        trial=trial["number"],
        split=request.split,
        artifacts=len(rows),
        replays=seen.replays,
        mean_nats=seen.mean_nats,
        upper_nats=seen.upper_nats,
        leak_bound_bpb=None if request.lockstep else seen.bound_bpb,
        leak_lower_bpb=None if request.lockstep else seen.lower_bpb,
        claimed_bpb=claimed_bpb,
        replayed_bpb=replayed_bpb,
        clean=clean,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamResult:
    """What an exam of a script that scores itself found; `error` says why there is no exam."""

    run: str
    trial: int
    exam: Exam | None
    error: str
    clean: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(
    ledger: Ledger, request: AuditRequest, course: Course, sandbox: Sandbox, slot: Slot, observer: Observer
) -> ExamResult:
    """Have a trial that scores itself train again and score a text from a known model; written down."""
    run, trial = request.run, request.trial
    rows = scored_rows(ledger, trial["id"])
    if not rows:
        raise UsageError(f"trial {trial['number']} has no score to examine")
    spec = stored_spec(rows[0], trial["number"], _files(ledger, run, trial))
    asked = ExamSpec(spec=spec, stage="asked", secret=os.urandom(16))
    with (
        tempfile.TemporaryDirectory(prefix="agentgolf-") as scratch,
        open_bench(Path(scratch), f"{run['name']}-audit", course, sandbox, ledger) as bench,
    ):
        bench.blobs = Blobs(Path(scratch) / "blobs")
        observer.stage(trial["number"], "training on a text from a known model")
        done = bench.exam(asked, slot)
    with Ledger(ledger.folder, write=True, lock=False) as notes:
        write_audit(notes, asked, done)
    return ExamResult(
        run=run["name"],
        trial=trial["number"],
        exam=done.exam,
        error=str(done.error or ""),
        clean=done.exam is not None and not done.exam.convicted,
    )


def _ask(
    ledger: Ledger,
    run: Row,
    course: Course,
    sandbox: Sandbox,
    slots: Sequence[Slot],
    observer: Observer,
    asked: Sequence[AuditSpec],
) -> list[Replays]:
    """The replays, one entry an artifact; every audit is written down, whatever it finds."""
    with (
        tempfile.TemporaryDirectory(prefix="agentgolf-") as scratch,
        open_bench(Path(scratch), f"{run['name']}-audit", course, sandbox, ledger) as bench,
    ):

        def one(spec: AuditSpec, slot: Slot) -> Audited:
            observer.stage(spec.spec.trial, f"auditing {spec.spec.label}")
            return bench.audit(spec, slot, _progress(observer, spec))

        done = on_slots(slots, asked, one)
    with Ledger(ledger.folder, write=True, lock=False) as notes:
        for spec, audited in zip(asked, done, strict=True):
            write_audit(notes, spec, audited)
    parts = []
    for audited in done:
        if audited.replays is None:
            raise audited.error or CandidateError(audited.execution.outcome, audited.execution.message)
        parts.append(audited.replays)
    return parts


def _every_token_of(found: Claimed) -> Callable[[np.random.Generator], list[Question]]:
    return lambda _: every_token(found.claims)


def _files(ledger: Ledger, run: Row, trial: Row) -> dict[str, bytes]:
    store = GitStore(run_folder(ledger.folder, run["name"]) / "store.git")
    try:
        return store.files(trial["commit_sha"])
    finally:
        store.close()


def _progress(observer: Observer, spec: AuditSpec) -> Callable[[int], None]:
    def on_replay(done: int) -> None:
        if done % NOTE_EVERY == 0:
            observer.note(f"{spec.spec.label}: {done:,} of {len(spec.questions):,} tokens asked again")

    return on_replay
