"""Writes the ledger: one transaction a transition, flushed to disk before the next stage begins.

    trial       proposed -> applied -> decided
    replicate   launched -> collected -> scored      (between applied and decided)

One process holds the lock and writes; any number read.
"""

import contextlib
import datetime
import fcntl
import functools
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from agentgolf.domain import Artifact, Exam, Execution, Outcome, Proposal, Replays, Role, Score, Split, Verdict
from agentgolf.errors import LedgerBusyError, LedgerError
from agentgolf.ledger.blobs import Blobs
from agentgolf.ledger.failures import ledger_errors
from agentgolf.ledger.schema import MIGRATIONS, check_version, migrate

LEDGER_FILE = "ledger.sqlite"
BUSY_SECONDS = 10.0

if TYPE_CHECKING:
    import sqlite_utils
Row = dict[str, Any]


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What `decide` records of a trial."""

    outcome: Outcome
    verdict: Verdict
    reason: str
    val_bpb: float | None = None
    gain_bpb: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    p_value: float | None = None
    counted_bytes: int | None = None
    leak_bound_bpb: float | None = None
    leak_mean_nats: float | None = None
    leak_upper_nats: float | None = None
    leak_replays: int | None = None


class Ledger:
    """The store in `folder`. With `write`, takes the lock or raises `LedgerBusyError`.

    `lock=False` writes beside the process that holds the lock: only for adding rows of a kind of their own,
    such as readings of held-out B. An older ledger is brought up to date, whoever opens it first.

    `on_transition` is called with the name of each transition, before its commit ("before proposed") and
    after it ("proposed"); views follow a run by it.
    """

    def __init__(
        self, folder: Path, *, write: bool, lock: bool = True, on_transition: Callable[[str], None] | None = None
    ) -> None:
        self.folder, self.path = folder, folder / LEDGER_FILE
        self.blobs = Blobs(folder.absolute() / "blobs")
        self._notify = on_transition or (lambda _: None)
        self._lock: int | None = None
        if not write and not self.path.exists():
            raise LedgerError(f"there is no ledger at {self.path}; start a run first: agentgolf run")
        with ledger_errors(self.path):
            if write and lock:
                folder.mkdir(parents=True, exist_ok=True)
                self._lock = _take_lock(folder / "ledger.lock")
            uri = f"file:{self.path}" if write else f"file:{self.path}?mode=ro"
            connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
            connection.row_factory = sqlite3.Row
            self.connection = connection
            try:
                connection.execute("PRAGMA foreign_keys = ON")
                if write:
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.execute("PRAGMA synchronous = FULL")
                    migrate(connection)
                elif check_version(connection) < len(MIGRATIONS):
                    Ledger(folder, write=True).close()
            except BaseException:
                self.close()
                raise

    @functools.cached_property
    def tag(self) -> str:
        """Tells what runs for this ledger from what runs for another on the same machine."""
        return hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:8]

    @functools.cached_property
    def db(self) -> "sqlite_utils.Database":
        """For writing. Reading does without, and so without the time its import takes."""
        import sqlite_utils

        return sqlite_utils.Database(self.connection)

    def close(self) -> None:
        self.connection.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def rows(self, sql: str, *values: object) -> list[Row]:
        with ledger_errors(self.path):
            return [dict(row) for row in self.connection.execute(sql, values).fetchall()]

    # -- runs and sessions

    def start_run(self, **values: object) -> int:
        return self.insert("run started", "runs", {**values, "state": "open", "started_at": now()})

    def finish_run(self, run_id: int, leak_bound_bpb: float | None, trouble: str) -> None:
        """`trouble` is a sentence when the gain that the run would report did not stand the audit."""
        self.update(
            "run finished",
            "runs",
            run_id,
            {
                "state": "finished",
                "finished_at": now(),
                "final_leak_bound_bpb": leak_bound_bpb,
                "final_trouble": trouble,
            },
        )

    def start_session(self, run_id: int) -> int:
        values = {
            "run_id": run_id,
            "pid": os.getpid(),
            "started_at": now(),
            "seen_at": now(),
            "spent_seconds": 0.0,
        }
        return self.insert("session started", "sessions", values)

    def heartbeat(self, session_id: int, spent_seconds: float) -> None:
        """Record what this process has spent so far; a resume never gets it back."""
        with ledger_errors(self.path):
            self.db.execute(
                "UPDATE sessions SET seen_at = ?, spent_seconds = ? WHERE id = ?",
                (now(), spent_seconds, session_id),
            )

    # -- trials

    def propose(self, run_id: int, number: int, parent_id: int | None, proposal: Proposal) -> int:
        return self.insert(
            "proposed",
            "trials",
            {
                "run_id": run_id,
                "number": number,
                "parent_id": parent_id,
                "state": "proposed",
                "proposer": proposal.proposer,
                "technique": proposal.technique,
                "hypothesis": proposal.hypothesis,
                "edits_json": json.dumps(proposal.edits),
                "base_commit": proposal.base,
                "detail_json": json.dumps(
                    {**proposal.detail, **({"refused": proposal.refused} if proposal.refused else {})}, sort_keys=True
                ),
                "proposed_at": now(),
            },
        )

    def apply(self, trial_id: int, *, commit: str, tree: str, fingerprint: str, diff: str) -> None:
        with self._transition("applied"):
            sha256 = self._blob(diff.encode(), "diff")
            self._set(
                "trials",
                trial_id,
                {
                    "state": "applied",
                    "commit_sha": commit,
                    "tree_sha": tree,
                    "fingerprint": fingerprint,
                    "diff_sha256": sha256,
                    "applied_at": now(),
                },
            )

    def decide(self, trial_id: int, decision: Decision, spent_seconds: float) -> None:
        """`spent_seconds`: of the run's budget, by now."""
        values = {"state": "decided", **asdict(decision), "spent_seconds": spent_seconds, "decided_at": now()}
        self.update("decided", "trials", trial_id, values)

    # -- replicates

    def launch(self, trial_id: int, for_trial_id: int, purpose: str, position: int, seed: int, split: Split) -> int:
        return self.insert(
            "launched",
            "replicates",
            {
                "trial_id": trial_id,
                "for_trial_id": for_trial_id,
                "purpose": purpose,
                "position": position,
                "seed": seed,
                "heldout": split,
                "state": "launched",
                "launched_at": now(),
            },
        )

    def collect(self, replicate_id: int, execution: Execution, artifact: Artifact) -> None:
        """The train sandbox is gone and its artifact, already a blob, is ours."""
        with self._transition("collected"):
            self._execution(replicate_id, execution)
            self._know_blob(artifact.sha256, "artifact", artifact.artifact_bytes)
            self._set(
                "replicates",
                replicate_id,
                {
                    "state": "collected",
                    "artifact_sha256": artifact.sha256,
                    "artifact_bytes": artifact.artifact_bytes,
                    "code_bytes": artifact.code_bytes,
                    "train_seconds": execution.clock_seconds,
                    "collected_at": now(),
                },
            )

    def score(
        self,
        replicate_id: int,
        *,
        outcome: Outcome,
        message: str,
        score: Score | None,
        executions: Mapping[Role, Execution],
        wall_seconds: float,
        claims: tuple[str, int] | None = None,
    ) -> None:
        """The replicate is finished: with a score, or with the outcome that kept it from one.

        `claims` are hash and bytes of the blob with the nats of every token.
        """
        values: Row = {
            "state": "scored",
            "outcome": outcome,
            "message": message,
            "wall_seconds": wall_seconds,
            "scored_at": now(),
        }
        if score is not None:
            values |= {
                "val_bpb": score.val_bpb,
                "total_nats": score.total_nats,
                "text_bytes": score.text_bytes,
                "tokens": score.tokens,
                "score_kind": score.kind,
                "train_seconds": score.train_seconds,
                "eval_seconds": score.eval_seconds,
            }
        with self._transition("scored"):
            if claims is not None:
                self._know_blob(claims[0], "claims", claims[1])
                values["claims_sha256"] = claims[0]
            for execution in executions.values():
                self._execution(replicate_id, execution)
            self._set("replicates", replicate_id, values)

    def audit(
        self,
        replicate_id: int,
        stage: str,
        execution: Execution,
        replays: Replays | None,
        exam: Exam | None,
        *,
        outcome: Outcome,
        message: str,
        secret: bytes,
    ) -> None:
        """An artifact has been asked again, or a script examined; with neither, `outcome` and `message` say why."""
        with self._transition("audited"):
            self.db.table("audits").insert(
                {
                    "replicate_id": replicate_id,
                    "stage": stage,
                    "outcome": outcome,
                    "message": message,
                    "secret": secret.hex(),
                    "replays": sum(item.times for item in replays.items) if replays else 0,
                    "tokens": replays.tokens if replays else 0,
                    "text_bytes": replays.text_bytes if replays else 0,
                    "claimed_nats": replays.claimed_nats if replays else 0.0,
                    "differences_json": json.dumps([astuple(item) for item in replays.items] if replays else []),
                    "exam_json": json.dumps(asdict(exam)) if exam else None,
                    "clock_seconds": execution.clock_seconds,
                    "wall_seconds": execution.wall_seconds,
                    "peak_memory_bytes": execution.peak_memory_bytes,
                    "log_sha256": self._blob(execution.log.encode(), "log") if execution.log else None,
                    "audited_at": now(),
                }
            )

    def call_sent(self, values: Row, request: str) -> int:
        """A request to a language model is about to go out; its id."""
        with self._transition("asked"):
            row = {**values, "request_blob": self._blob(request.encode(), "request")}
            key = self.db.table("calls").insert(row).last_pk
            assert isinstance(key, int)
            return key

    def call_ended(self, call: int, values: Row, reply: str | None) -> None:
        """Its answer, or why there is none."""
        with self._transition("answered"):
            blob = self._blob(reply.encode(), "reply") if reply is not None else None
            self._set("calls", call, {**values, "reply_blob": blob})

    # -- how

    def _execution(self, replicate_id: int, execution: Execution) -> None:
        log = self._blob(execution.log.encode(), "log") if execution.log else None
        self.db.table("executions").insert(
            {
                "replicate_id": replicate_id,
                "role": execution.role,
                "outcome": execution.outcome,
                "exit_code": execution.exit_code,
                "wall_seconds": execution.wall_seconds,
                "cpu_seconds": execution.cpu_seconds,
                "clock_seconds": execution.clock_seconds,
                "peak_memory_bytes": execution.peak_memory_bytes,
                "log_sha256": log,
                "message": execution.message,
            }
        )

    def _blob(self, data: bytes, kind: str) -> str:
        sha256 = self.blobs.put(data)
        self._know_blob(sha256, kind, len(data))
        return sha256

    def _know_blob(self, sha256: str, kind: str, size: int) -> None:
        self.db.execute("INSERT OR IGNORE INTO blobs (sha256, kind, bytes) VALUES (?, ?, ?)", (sha256, kind, size))

    def _set(self, table: str, row_id: int, values: Row) -> None:
        self.db.table(table).update(row_id, values)

    def insert(self, what: str, table: str, values: Row) -> int:
        """Add a row in a transaction of its own, the transition `what`; gives its id."""
        with self._transition(what):
            key = self.db.table(table).insert(values).last_rowid
            assert isinstance(key, int)
            return key

    def update(self, what: str, table: str, row_id: int, values: Row) -> None:
        with self._transition(what):
            self._set(table, row_id, values)

    @contextlib.contextmanager
    def _transition(self, what: str) -> Iterator[None]:
        with ledger_errors(self.path):
            with self.db.atomic():
                yield
                self._notify(f"before {what}")
            self._notify(what)


def _take_lock(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(handle, 20, 0).decode(errors="replace").strip()
        os.close(handle)
        who = f" (process {holder})" if holder else ""
        raise LedgerBusyError(
            f"another agentgolf{who} is writing to {path.parent}; wait for it, or give --runs another folder"
        ) from error
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle
