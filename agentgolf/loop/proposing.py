"""Asks the proposer for the next trial; a slow one works ahead, in a thread, while trials are measured.

What a slow proposer is shown is written down before it begins (`openings`), so that a resume shows it the
same again and its paid calls are found in the ledger.
"""

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agentgolf.course import Course
from agentgolf.decide.accept import pooled_noise
from agentgolf.decide.policy import ancestry, feedback, next_parent
from agentgolf.domain import ModelReply, Outcome, Proposal
from agentgolf.errors import InterruptedRunError, ModelError, ProposerExhaustedError
from agentgolf.ledger.calls import TrialCalls
from agentgolf.ledger.lineage import noise_groups, read_blob, replicate_rows, summaries, trial_rows
from agentgolf.ledger.steering import read_steering, waiting_suggestions
from agentgolf.ledger.store import Ledger, Row, now
from agentgolf.loop.cassette import NO_TAPE, Tape
from agentgolf.loop.crew import STOPPED, Crew
from agentgolf.loop.mailbox import Mailbox
from agentgolf.loop.observer import Observer
from agentgolf.loop.rules import rules_text
from agentgolf.loop.workbench import LoopWorkbench, log_tail
from agentgolf.patch.workspace import GitStore
from agentgolf.proposer.agent import AgentProposer
from agentgolf.proposer.base import Context, Crash, Suggestion
from agentgolf.proposer.scaffold import Scaffold

T = TypeVar("T")
# What may end a proposal of the model's and can be mended in the next one.
MENDABLE = (Outcome.CRASHED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY, Outcome.OVERSIZED)
# How long the end of a run waits for replies that are on their way.
LAST_WAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What of the run a proposer is shown: the trials decided by then, the lessons, the steering, the noise."""

    decided: int
    parent: int
    noise_bpb: float
    lesson_id: int
    suggestion: int | None
    crash: int | None
    pending: tuple[str, ...]


class Working(threading.Thread, Generic[T]):
    """A daemon thread with a result; `wake` is called when it has one."""

    def __init__(self, work: Callable[[], T], wake: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._work, self._wake = work, wake
        self._result: list[T] = []
        self._error: BaseException | None = None
        self.done = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # noqa: BLE001  (raised in `result`)
            self._error = error
        self.done.set()
        self._wake()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result[0]


@dataclass(slots=True, kw_only=True)
class Proposing:
    """All methods are for the main thread."""

    row: Row
    course: Course
    ledger: Ledger
    store: GitStore
    scaffold: Scaffold
    crew: Crew
    mailbox: Mailbox
    observer: Observer
    calls_of: Callable[[int], TrialCalls]
    tape: Tape = NO_TAPE
    _jobs: dict[int, tuple[Context, Working[Proposal]]] = dataclasses.field(default_factory=dict)
    _learning: dict[int, Working[str]] = dataclasses.field(default_factory=dict)

    def next(self, number: int, in_time: Callable[[], bool]) -> tuple[Proposal, int]:
        """The proposal for a trial, and the trial that it was made for as parent.

        Raises as the proposer does, `ProposerExhaustedError` when it is not `in_time` any more to measure what a slow
        one may come up with, and `InterruptedRunError` when stopped.
        """
        for learned in [trial for trial, job in self._learning.items() if job.done.is_set()]:
            self._learning.pop(learned).result()
        if not self.scaffold.slow:
            context = self._context(number, self._opening(number))
            return self.scaffold.proposer.propose(context), context.parent
        context, job = self._jobs.pop(number) if number in self._jobs else self._begin(number)
        self.crew.wait_for(lambda: job.done.is_set() or not in_time())
        if not job.done.is_set():
            self._jobs[number] = context, job
            raise ProposerExhaustedError("the model was still thinking when the time for another trial was over")
        return job.result(), context.parent

    def look_ahead(self, number: int) -> None:
        """Begin on a trial while the one before it is measured, if a model is asked for it."""
        if self.scaffold.slow and self.scaffold.ahead and number not in self._jobs and not self._rests(number):
            self._jobs[number] = self._begin(number)
            self.observer.stage(number, "proposing")

    def settle(self) -> None:
        """Wait for the proposal that is being made, as `next` would."""
        for _, job in self._jobs.values():
            self.crew.wait_for(job.done.is_set)

    def learn(self, trial_number: int) -> None:
        """Have the agent write its line about a decided trial, beside whatever comes next."""
        learner = self.scaffold.learner
        row = next(row for row in trial_rows(self.ledger, self.row["id"]) if row["number"] == trial_number)
        if learner is None or not learner.learns or row["proposer"] != learner.name or row["lesson"] is not None:
            return
        if row["outcome"] in (Outcome.REJECTED, Outcome.INFRASTRUCTURE):
            return
        self._learning[trial_number] = self._lesson(learner, row)

    def close(self, *, wait: bool) -> None:
        """With `wait`, let replies that are paid for arrive first."""
        under_way = [job for _, job in self._jobs.values()] + list(self._learning.values())
        if wait and not all(job.done.is_set() for job in under_way):
            self.observer.note(
                f"waiting at most {LAST_WAIT_SECONDS:g} s for the model's reply, which is paid for; Ctrl-C drops it"
            )
            deadline = time.monotonic() + LAST_WAIT_SECONDS
            self.crew.stop()
            with contextlib.suppress(InterruptedRunError):
                self.crew.wait_for(lambda: time.monotonic() > deadline or all(job.done.is_set() for job in under_way))
        self.mailbox.close()
        if self.scaffold.learner is not None:
            self.scaffold.learner.close()

    # -- how

    def _rests(self, number: int) -> bool:
        """An offline proposer that stands in is quick, and should know what came of the trial before."""
        learner = self.scaffold.learner
        return learner is not None and learner.rests(summaries(trial_rows(self.ledger, self.row["id"])), number)

    def _wake(self) -> None:
        with contextlib.suppress(InterruptedRunError):
            self.mailbox.call(lambda: None)

    def _begin(self, number: int) -> tuple[Context, Working[Proposal]]:
        context = self._context(number, self._opening(number))
        return context, Working(lambda: self.scaffold.proposer.propose(context), self._wake)

    def _lesson(self, learner: AgentProposer, row: Row) -> Working[str]:
        # As the proposal's own opening has it on record: a resume asks the very same.
        (trial,) = feedback(summaries([row]), self._opening(row["number"]).noise_bpb)
        diff, log = read_blob(self.ledger, row["diff_sha256"]), log_tail(self.ledger, row["id"])
        calls = self._posted(row["number"])

        def work() -> str:
            try:
                text = learner.learn(trial, diff, log, calls)
            except InterruptedRunError:
                return ""
            except (ModelError, ProposerExhaustedError) as error:  # a run goes on without a lesson
                self.observer.note(f"no lesson of trial {row['number']}: {error}")
                return ""
            self.mailbox.call(lambda: self._keep_lesson(row["id"], text))
            return text

        return Working(work, self._wake)

    def _posted(self, number: int) -> "PostedCalls":
        return PostedCalls(self.calls_of(number), self.mailbox, self.crew, number, self.tape)

    def _keep_lesson(self, trial_id: int, text: str) -> None:
        if text:
            self.ledger.insert("learned", "lessons", {"trial_id": trial_id, "text": text, "written_at": now()})

    def _opening(self, number: int) -> Opening:
        """The recorded one, if the trial was begun on before."""
        found = self.ledger.rows(
            "SELECT basis_json FROM openings WHERE run_id = ? AND trial_number = ?", self.row["id"], number
        )
        if found:
            basis = json.loads(found[0]["basis_json"])
            return Opening(**{**basis, "pending": tuple(basis["pending"])})
        rows = trial_rows(self.ledger, self.row["id"])
        decided = summaries(rows)
        noise, _ = pooled_noise(noise_groups(replicate_rows(self.ledger, self.row["id"])))
        steering = read_steering(self.ledger, self.row["id"])
        parent = next_parent(self.scaffold.policy, decided, steering).number
        # An idea that a proposal under way has been given is not given again.
        given = {context.suggestion.id for context, _ in self._jobs.values() if context.suggestion}
        waiting = [one["id"] for one in waiting_suggestions(self.ledger, self.row["id"]) if one["id"] not in given]
        opening = Opening(
            decided=max((trial.number for trial in decided), default=0),
            parent=parent,
            noise_bpb=noise,
            lesson_id=max((row["lesson_id"] or 0 for row in rows), default=0),
            suggestion=waiting[0] if waiting else None,
            crash=self._crashed(rows, parent),
            pending=tuple(row["hypothesis"] for row in rows if row["state"] != "decided"),
        )
        if self.scaffold.slow:
            values = {
                "run_id": self.row["id"],
                "trial_number": number,
                "basis_json": json.dumps(dataclasses.asdict(opening)),
                "opened_at": now(),
            }
            self.ledger.insert("opened", "openings", values)
        return opening

    def _context(self, number: int, opening: Opening) -> Context:
        rows = [row for row in trial_rows(self.ledger, self.row["id"]) if row["number"] <= opening.decided]
        for row in rows:
            if (row["lesson_id"] or 0) > opening.lesson_id:
                row["lesson"] = None
        history = feedback(summaries(rows), opening.noise_bpb)
        parent = next(row for row in rows if row["number"] == opening.parent)
        files = self.store.files(parent["commit_sha"])
        said = self.ledger.rows("SELECT * FROM suggestions WHERE id = ?", opening.suggestion)
        return Context(
            run_seed=self.row["seed"],
            number=number,
            parent=opening.parent,
            origin=self.row["origin_commit"],
            files=self._editable_text(files),
            origin_files=self._editable_text(self.store.files(self.row["origin_commit"])),
            lineage=ancestry(history, opening.parent),
            history=history,
            cap_bytes=self.course.limits.artifact_cap_bytes,
            rules=rules_text(self.course),
            calls=self._posted(number),
            suggestion=Suggestion(id=said[0]["id"], text=said[0]["text"]) if said else None,
            crash=self._crash(rows, opening.crash),
            pending=opening.pending,
            workbench=LoopWorkbench(
                row=self.row,
                ledger=self.ledger,
                crew=self.crew,
                mailbox=self.mailbox,
                number=number,
                files=files,
                noise_bpb=opening.noise_bpb,
            ),
        )

    def _crashed(self, rows: Sequence[Row], parent: int) -> int | None:
        """The newest change of the agent's that did not finish and that may be tried again, mended."""
        learner = self.scaffold.learner
        if learner is None:
            return None
        details = {row["number"]: json.loads(row["detail_json"]) for row in rows}
        repaired = {detail.get("repairs") for detail in details.values()}
        repaired |= {context.crash.number for context, _ in self._jobs.values() if context.crash}
        return next(
            (
                row["number"]
                for row in reversed(rows)
                if row["proposer"] == learner.name
                and row["outcome"] in MENDABLE
                and row["parent"] == parent
                and row["number"] not in repaired
                and details[row["number"]].get("repair_attempt", 0) < learner.crash_repairs
            ),
            None,
        )

    def _crash(self, rows: Sequence[Row], number: int | None) -> Crash | None:
        row = next((row for row in rows if row["number"] == number), None)
        if row is None:
            return None
        return Crash(
            number=row["number"],
            attempt=json.loads(row["detail_json"]).get("repair_attempt", 0) + 1,
            outcome=Outcome(row["outcome"]),
            reason=row["reason"],
            diff=read_blob(self.ledger, row["diff_sha256"]),
            log=log_tail(self.ledger, row["id"]),
        )

    def _editable_text(self, files: Mapping[str, bytes]) -> dict[str, str]:
        return {name: data.decode("utf-8", "replace") for name, data in files.items() if self.course.is_editable(name)}


@dataclass(frozen=True, slots=True)
class PostedCalls:
    """A trial's calls, from any thread: the main thread writes them down. After a stop no new call goes out."""

    calls: TrialCalls
    mailbox: Mailbox
    crew: Crew
    trial: int
    tape: Tape
    places: dict[int, tuple[int, str]] = dataclasses.field(default_factory=dict)

    def key(self, asked: str) -> str:
        return self.calls.key(asked)

    def recall(self, position: int, request_sha256: str) -> ModelReply | None:
        return self.mailbox.call(lambda: self.calls.recall(position, request_sha256))

    def sent(self, position: int, request: Mapping[str, Any], request_sha256: str) -> int:
        if self.crew.stopping.is_set():
            raise InterruptedRunError(STOPPED)
        call = self.mailbox.call(lambda: self.calls.sent(position, request, request_sha256))
        self.places[call] = position, request_sha256
        return call

    def recorded(self, position: int, request_sha256: str) -> ModelReply | None:
        if self.tape.recording is None:
            return None
        return self.tape.recording.reply(self.trial, position, request_sha256)

    def answered(self, call: int, reply: ModelReply) -> None:
        self.mailbox.call(lambda: self.calls.answered(call, reply))
        if self.tape.recorder is not None:
            self.tape.recorder.keep(self.trial, *self.places[call], reply)

    def failed(self, call: int, said: str) -> None:
        self.mailbox.call(lambda: self.calls.failed(call, said))

    def tool(self, position: int, name: str, asked: str, use: Callable[[], str]) -> str:
        """The main thread only looks and writes: what a tool does may take long."""
        key = self.calls.key(asked)
        known = self.mailbox.call(lambda: self.calls.recall_tool(position, name, key))
        if known is not None:
            return known
        started = time.monotonic()
        said = use()
        seconds = time.monotonic() - started
        self.mailbox.call(lambda: self.calls.keep_tool(position, name, key, said, seconds))
        return said
