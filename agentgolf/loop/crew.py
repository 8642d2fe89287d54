"""Runs several replicates at once, one a slot, and writes down each transition in the main thread."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import tenacity

from agentgolf.domain import Artifact, Outcome, Slot
from agentgolf.errors import InfrastructureError, InterruptedRunError
from agentgolf.ledger.store import Ledger
from agentgolf.loop.bench import Bench
from agentgolf.loop.budget import Budget
from agentgolf.loop.mailbox import Mailbox
from agentgolf.loop.observer import Observer, curve_point
from agentgolf.loop.specs import Audited, AuditSpec, Examined, ExamSpec, Scored, Spec, Trained

TICK_SECONDS = 0.2
T = TypeVar("T")
S = TypeVar("S", Spec, AuditSpec, ExamSpec)
INFRASTRUCTURE_ATTEMPTS = 3
STOPPED = "stopped; go on with: agentgolf resume"


class Crew:
    """`stop()` lets what runs reach its next transition, then ends; `stop_now()` kills the sandboxes."""

    def __init__(
        self,
        *,
        bench: Bench,
        ledger: Ledger,
        budget: Budget,
        slots: Sequence[Slot],
        observer: Observer,
        mailbox: Mailbox,
        retry_wait_seconds: float = 5.0,
    ) -> None:
        self._bench, self._ledger, self._budget, self._observer = bench, ledger, budget, observer
        self._mailbox = mailbox
        self._slots: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._slots.put(slot)
        self._count = len(slots)
        self.retry_wait_seconds = retry_wait_seconds
        self.stopping = threading.Event()
        self.killed = threading.Event()

    @property
    def asked_to_stop(self) -> bool:
        return self.stopping.is_set()

    def stop(self) -> None:
        self.stopping.set()

    def stop_now(self) -> None:
        self.stopping.set()
        self.killed.set()
        self._bench.kill_all()

    def check(self) -> None:
        """Raises `InterruptedRunError` once the user has asked to stop."""
        if self.stopping.is_set():
            raise InterruptedRunError(STOPPED)

    def measure(self, specs: Sequence[Spec]) -> None:
        """Finish these replicates, in this order as slots become free.

        Raises `InterruptedRunError` after a stop and `InfrastructureError` when the engine stays away; what
        was finished until then is in the ledger.
        """
        self._finish(specs, self._stages)

    def audit(self, specs: Sequence[AuditSpec]) -> None:
        """Ask fresh predictors again; raises as `measure` does."""
        self._finish(specs, self._audit)

    def exam(self, specs: Sequence[ExamSpec]) -> None:
        """Have scripts that score themselves score a text from a known model; raises as `measure` does."""
        self._finish(specs, self._exam)

    def smoke(self, spec: Spec, seconds: float) -> Trained:
        """A short training, from any thread, when a slot is free; nothing of it is written down."""
        while True:
            self.check()
            with contextlib.suppress(queue.Empty):
                slot = self._slots.get(timeout=TICK_SECONDS)
                break
        try:
            return self._bench.train(spec, slot, lambda line: None, seconds=seconds)
        finally:
            self._slots.put(slot)

    def wait_for(self, done: Callable[[], bool]) -> None:
        """Serve the other threads until it is done, or the user has asked twice to stop."""
        while not done():
            self._mailbox.serve(TICK_SECONDS)
            self._budget.beat()
            if self.killed.is_set():
                raise InterruptedRunError(STOPPED)

    def _finish(self, specs: Sequence[S], work: Callable[[S, float], None]) -> None:
        self.check()
        failures: list[BaseException] = []

        def guarded(spec: S) -> None:
            try:
                work(spec, time.monotonic())
            except BaseException as error:  # noqa: BLE001  (raised below, when all workers have ended)
                failures.append(error)
                self.stop_now()

        with ThreadPoolExecutor(self._count) as pool:
            futures = [pool.submit(guarded, spec) for spec in specs]
            for future in futures:
                future.add_done_callback(lambda _: self._mailbox.wake())
            while not all(future.done() for future in futures):
                try:
                    self._mailbox.serve(TICK_SECONDS)
                    self._budget.beat()
                except BaseException as error:  # noqa: BLE001  (raised below; the workers still wait to be served)
                    failures.append(error)
                    self.stop_now()
        if failures:
            raise failures[0]
        self.check()

    def _stages(self, spec: Spec, started: float) -> None:
        if self.stopping.is_set():
            return
        slot = self._slots.get()
        try:
            artifact, train_seconds, log = self._stored(spec), spec.train_seconds, ""
            if spec.log_sha256 is not None:
                log = self._bench.blobs.read(spec.log_sha256).decode("utf-8", "replace")
            if artifact is None:
                trained = self._retried(lambda: self._bench.train(spec, slot, self._follow(spec)))
                self._hand_over(spec, trained, started)
                artifact, train_seconds = trained.artifact, trained.execution.clock_seconds
                log = trained.execution.log
            if artifact is None or self.stopping.is_set():
                return
            self._observer.stage(spec.trial, f"scoring {spec.label}")
            found = artifact
            scored = self._retried(lambda: self._bench.score(spec, slot, found, train_seconds, log))
            self._hand_over(spec, scored, started)
        finally:
            self._slots.put(slot)

    def _audit(self, asked: AuditSpec, started: float) -> None:
        if self.stopping.is_set():
            return
        slot = self._slots.get()
        try:
            self._observer.stage(asked.spec.trial, f"auditing {asked.spec.label}")
            self._hand_over(asked, self._retried(lambda: self._bench.audit(asked, slot)), started)
        finally:
            self._slots.put(slot)

    def _exam(self, asked: ExamSpec, started: float) -> None:
        if self.stopping.is_set():
            return
        slot = self._slots.get()
        try:
            self._observer.stage(asked.spec.trial, f"examining {asked.spec.label}")
            self._hand_over(asked, self._retried(lambda: self._bench.exam(asked, slot)), started)
        finally:
            self._slots.put(slot)

    def _stored(self, spec: Spec) -> Artifact | None:
        """The artifact of a replicate that an earlier process had collected, if any."""
        if spec.artifact_sha256 is None:
            return None
        path = self._bench.blobs.path(spec.artifact_sha256)
        return Artifact(
            path=path,
            sha256=spec.artifact_sha256,
            artifact_bytes=path.stat().st_size,
            code_bytes=spec.code_bytes,
        )

    def _retried(self, attempt: Callable[[], T]) -> T:
        """Engine failures only, twice; a candidate's own failure is never tried again."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(InfrastructureError) & tenacity.retry_if_exception(self._goes_on),
            stop=tenacity.stop_after_attempt(INFRASTRUCTURE_ATTEMPTS),
            wait=tenacity.wait_exponential(multiplier=self.retry_wait_seconds, max=30),
            before_sleep=lambda state: self._observer.note(
                f"{state.outcome.exception() if state.outcome else ''}; trying again"
            ),
            reraise=True,
        )
        return retrying(attempt)

    def _goes_on(self, _: BaseException) -> bool:
        return not self.stopping.is_set()

    def _hand_over(
        self, spec: Spec | AuditSpec | ExamSpec, content: Trained | Scored | Audited | Examined, started: float
    ) -> None:
        wall_seconds = time.monotonic() - started
        self._mailbox.call(lambda: None if self.killed.is_set() else self._record(spec, content, wall_seconds))

    def _record(
        self,
        spec: Spec | AuditSpec | ExamSpec,
        content: Trained | Scored | Audited | Examined,
        wall_seconds: float,
    ) -> None:
        if isinstance(content, Audited | Examined):
            assert not isinstance(spec, Spec)
            write_audit(self._ledger, spec, content)
            self._budget.beat(force=True)
            return
        assert isinstance(spec, Spec)
        if isinstance(content, Trained) and content.artifact is not None:
            self._ledger.collect(spec.replicate_id, content.execution, content.artifact)
        elif isinstance(content, Trained):
            assert content.error is not None
            self._ledger.score(
                spec.replicate_id,
                outcome=content.error.outcome,
                message=str(content.error),
                score=None,
                executions={content.execution.role: content.execution},
                wall_seconds=wall_seconds,
            )
        elif isinstance(content, Scored):
            self._ledger.score(
                spec.replicate_id,
                outcome=content.error.outcome if content.error else Outcome.OK,
                message=str(content.error or ""),
                score=content.score,
                executions=content.executions,
                wall_seconds=wall_seconds,
                claims=(content.claims_sha256, content.claims_bytes) if content.claims_sha256 else None,
            )
        self._budget.beat(force=True)
        row = self._ledger.rows("SELECT * FROM replicates WHERE id = ?", spec.replicate_id)[0]
        if row["state"] == "scored":
            self._observer.replicate({**row, "trial": spec.trial})

    def _follow(self, spec: Spec) -> Callable[[str], None]:
        self._observer.stage(spec.trial, f"training {spec.label}")

        def follow(line: str) -> None:
            if point := curve_point(line):
                self._observer.curve(spec.trial, spec.label, point)

        return follow


def write_audit(ledger: Ledger, asked: AuditSpec | ExamSpec, done: Audited | Examined) -> None:
    """Of either kind, whatever it found."""
    ledger.audit(
        asked.spec.replicate_id,
        asked.stage,
        done.execution,
        done.replays if isinstance(done, Audited) else None,
        done.exam if isinstance(done, Examined) else None,
        outcome=done.error.outcome if done.error else Outcome.OK,
        message=str(done.error or ""),
        secret=asked.secret,
    )
