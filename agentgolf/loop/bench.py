"""Measures one replicate: train, collect, score. Threads may share one bench; it writes no ledger."""

import concurrent.futures
import contextlib
import dataclasses
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agentgolf.course import Course, matches
from agentgolf.data import Documents
from agentgolf.decide.hypercompression import examine
from agentgolf.domain import Artifact, Clock, Exam, Execution, Limits, Outcome, Role, Score, Slot
from agentgolf.errors import CandidateError
from agentgolf.ledger.blobs import Blobs
from agentgolf.loop.specs import Audited, AuditSpec, Examined, ExamSpec, Scored, Spec, Trained
from agentgolf.sandbox import base
from agentgolf.sandbox.base import Job, Mount, Running, Sandbox
from agentgolf.scoring import predictor as harness
from agentgolf.scoring.artifact import code_bytes, collect, training_text_share
from agentgolf.scoring.audit import generator, replay
from agentgolf.scoring.channel import Channel
from agentgolf.scoring.claims import Claims, claim
from agentgolf.scoring.ngram import Trigram
from agentgolf.scoring.scorer import encode_documents, score_documents
from agentgolf.scoring.self_reported import Reported, check_report, read_report
from agentgolf.shards import Shards, shown

HARNESS = Path(harness.__file__)
HARNESS_TARGET = f"{base.TOOL_DIR}/predictor.py"
MAX_TRAINING_TEXT_SHARE = 0.02


@dataclass(slots=True, kw_only=True)
class Bench:
    """What every replicate of a run shares. `data` holds the training text and nothing else.

    For a course whose script scores itself there are `shards` instead, and no documents. `ledger` is its tag: runs of
    two ledgers may have one name.
    """

    run: str
    course: Course
    documents: Documents
    sandbox: Sandbox
    blobs: Blobs
    data: Path
    work: Path
    hidden: tuple[Path, ...]
    shards: Shards | None = None
    ledger: str = "none"
    _running: set[Running] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def train(
        self,
        spec: Spec,
        slot: Slot,
        on_line: Callable[[str], None],
        data: Path | None = None,
        seconds: float | None = None,
    ) -> Trained:
        """Run the train sandbox, on `data` if given; when it is gone, take its artifact into the blobs.

        `seconds` are the track's training budget unless they are given.
        """
        if data is None:
            data = self.shards.folders[spec.split] if self.shards else self.data
        with self._folder(spec, "train") as folder:
            out, page = folder / "artifact.bin", folder / "clock"
            out.touch()
            out.chmod(0o666)
            page.touch()
            more = 0.0 if seconds is None else seconds - self.course.limits.train_seconds
            limits = self._limits(Role.TRAIN, more)
            env = {
                "GOLF_SEED": str(spec.seed),
                "GOLF_BUDGET_SECONDS": f"{limits.budget_seconds:g}",
                "GOLF_CLOCK": str(limits.clock),
                "GOLF_CLOCK_FILE": base.CLOCK_FILE,
                "GOLF_DATA_DIR": base.DATA_DIR,
                "GOLF_ARTIFACT": base.OUT_FILE,
            }
            mounts = (
                Mount(source=_write(spec.files, folder / "code"), target=base.CODE_DIR),
                Mount(source=data, target=base.DATA_DIR),
                Mount(source=page, target=base.CLOCK_FILE),
                Mount(source=out, target=base.OUT_FILE, writable=True),
            )
            job = self._job(spec, Role.TRAIN, self.course.spec.train, env, mounts, limits, slot)
            with self._started(job) as running:
                execution = running.wait(on_line)
            if execution.outcome is not Outcome.OK:
                return Trained(
                    execution=execution,
                    artifact=None,
                    error=CandidateError(execution.outcome, execution.message),
                )
            try:
                return Trained(execution=execution, artifact=self._collect(spec, out, folder / "code"), error=None)
            except CandidateError as error:
                return Trained(execution=execution, artifact=None, error=error)

    def _collect(self, spec: Spec, out: Path, code: Path) -> Artifact:
        limits = self.course.limits
        # What counts is what was committed, not what training may have left in its copy.
        shutil.rmtree(code)
        _write(spec.files, code)
        counted = [code / name for name in sorted(spec.files) if matches(name, self.course.spec.counted)]
        draft = self.blobs.draft()
        try:
            artifact = collect(
                out, draft, code=code_bytes(counted, limits.code_bytes), cap_bytes=limits.artifact_cap_bytes
            )
            if not limits.training_text_in_artifact:
                share = training_text_share(draft, self.documents.train)
                if share > MAX_TRAINING_TEXT_SHARE:
                    raise CandidateError(
                        Outcome.INVALID,
                        f"{share:.0%} of the artifact is training text, which this track forbids",
                    )
            return dataclasses.replace(artifact, path=self.blobs.adopt(draft, artifact.sha256))
        finally:
            draft.unlink(missing_ok=True)

    def score(self, spec: Spec, slot: Slot, artifact: Artifact, train_seconds: float, log: str = "") -> Scored:
        """Encoder and predictor, each in a fresh sandbox, then the numbers, here.

        Of a script that scores itself, what its training's `log` says.
        """
        if self.shards is not None:
            return self._self_reported(spec, artifact, train_seconds, log)
        text = self.documents.heldout(spec.split)
        claims: Claims | None = None
        error = None
        with self._folder(spec, "score") as folder, Channel() as encoder, Channel() as predictor:
            roles = {Role.ENCODE: encoder, Role.PREDICT: predictor}
            with contextlib.ExitStack() as stack:
                pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(len(roles)))
                started = {
                    role: stack.enter_context(
                        self._started(
                            self._score_job(spec, role, slot, artifact.path, channel, folder, self._limits(role))
                        )
                    )
                    for role, channel in roles.items()
                }
                ends = {role: pool.submit(running.wait) for role, running in started.items()}
                try:
                    deadline = time.monotonic() + self._limits(Role.PREDICT).wall_seconds
                    encoder.accept(ends[Role.ENCODE].done, deadline)
                    self._check_parameters(predictor.accept(ends[Role.PREDICT].done, deadline))
                    encoded = encode_documents(encoder, text)
                    encoder.hang_up()
                    predictor.vocab_size_must_be(encoder.vocab_size)
                    nats = score_documents(predictor, text, encoded)
                    claims = claim(predictor, text, encoded, nats)
                except CandidateError as caught:
                    error = caught
                    for running in started.values():
                        running.kill()
                finally:
                    encoder.hang_up()
                    predictor.hang_up()
                executions = {role: end.result() for role, end in ends.items()}
        if claims is None:
            assert error is not None
            return Scored(executions=executions, score=None, error=_root_cause(error, executions))
        score = Score(
            split=spec.split,
            total_nats=sum(float(part.sum()) for part in claims.nats),
            text_bytes=sum(map(len, text)),
            tokens=claims.tokens,
            artifact_bytes=artifact.counted_bytes,
            train_seconds=train_seconds,
            eval_seconds=sum(execution.clock_seconds for execution in executions.values()),
        )
        stored = claims.to_bytes()
        sha256 = self.blobs.put(stored)
        return Scored(executions=executions, score=score, error=None, claims_sha256=sha256, claims_bytes=len(stored))

    def _self_reported(self, spec: Spec, artifact: Artifact, train_seconds: float, log: str) -> Scored:
        assert self.shards is not None
        heldout = self.shards.heldout[spec.split]
        text_bytes = self.shards.text_bytes(heldout)
        try:
            reported = self._report(log, len(heldout) - 1, text_bytes, artifact)
        except CandidateError as error:
            return Scored(executions={}, score=None, error=error)
        score = Score(
            split=spec.split,
            total_nats=reported.val_loss * (len(heldout) - 1),
            text_bytes=text_bytes,
            tokens=len(heldout) - 1,
            artifact_bytes=artifact.counted_bytes,
            train_seconds=train_seconds,
            eval_seconds=0.0,
            kind="self_reported",
        )
        return Scored(executions={}, score=score, error=None)

    def _report(self, log: str, tokens: int, text_bytes: int, artifact: Artifact) -> Reported:
        assert self.course.spec.report is not None
        reported = read_report(log, **self.course.spec.report.model_dump())
        check_report(reported, tokens=tokens, text_bytes=text_bytes, counted_bytes=artifact.counted_bytes)
        return reported

    def exam(self, asked: ExamSpec, slot: Slot) -> Examined:
        """Have a script that scores itself train as ever, and score a text drawn from a model that we know."""
        shards, spec = self.shards, asked.spec
        assert shards is not None and self.course.spec.shards is not None
        rng = generator(asked.secret, "exam")
        source, genuine = Trigram(shards.train, len(shards.token_bytes)), shards.heldout[spec.split]
        drawn = source.draw(int(genuine[0]), len(genuine), rng)
        with self._folder(spec, f"exam-{asked.stage}") as folder:
            trained = self.train(spec, slot, lambda line: None, shown(self.course, drawn, folder / "data"))
        exam: Exam | None = None
        error = trained.error
        if trained.artifact is not None:
            try:
                text_bytes = shards.text_bytes(drawn)
                reported = self._report(trained.execution.log, len(drawn) - 1, text_bytes, trained.artifact)
                loss = reported.val_loss + reported.rounding_nats
                exam = examine(loss, source.nats(drawn), self.course.spec.shards.tail_tokens)
            except CandidateError as caught:
                error = caught
        return Examined(execution=trained.execution, exam=exam, error=error)

    def audit(self, asked: AuditSpec, slot: Slot, on_replay: Callable[[int], None] = lambda done: None) -> Audited:
        """Put the questions to a predictor in a fresh sandbox that has seen none of the text."""
        spec = asked.spec
        assert spec.artifact_sha256 is not None
        artifact = self.blobs.path(spec.artifact_sha256)
        rng = generator(asked.secret, f"{spec.artifact_sha256} fillers")
        replays, error = None, None
        with self._folder(spec, f"audit-{asked.stage}") as folder, Channel() as channel:
            limits = self._limits(Role.AUDIT, asked.seconds)
            job = self._score_job(spec, Role.AUDIT, slot, artifact, channel, folder, limits)
            with self._started(job) as running, concurrent.futures.ThreadPoolExecutor(1) as pool:
                end = pool.submit(running.wait)
                try:
                    channel.accept(end.done, time.monotonic() + limits.wall_seconds)
                    replays = replay(channel, asked.claims, asked.gains, asked.questions, rng, on_replay)
                except CandidateError as caught:
                    error = caught
                    running.kill()
                finally:
                    channel.hang_up()
                execution = end.result()
        if error is not None:
            error = _root_cause(error, {Role.AUDIT: execution})
        return Audited(execution=execution, replays=replays, error=error)

    def kill_all(self) -> None:
        """End every sandbox that is running now."""
        with self._lock:
            running = list(self._running)
        for one in running:
            one.kill()

    def _check_parameters(self, declared: int | None) -> None:
        cap = self.course.limits.parameter_cap
        if cap is None:
            return
        if declared is None:
            raise CandidateError(
                Outcome.INVALID, "this track caps parameters, and the predictor declares no num_parameters"
            )
        if declared > cap:
            raise CandidateError(Outcome.OVERSIZED, f"{declared:,} parameters, over the cap of {cap:,}")

    def _score_job(
        self, spec: Spec, role: Role, slot: Slot, artifact: Path, channel: Channel, folder: Path, limits: Limits
    ) -> Job:
        mounts = (
            Mount(source=_write(spec.files, folder / role / "code"), target=base.CODE_DIR),
            Mount(source=artifact, target=base.ARTIFACT_FILE),
            Mount(source=HARNESS, target=HARNESS_TARGET),
            Mount(source=channel.folder, target=base.CHANNEL_DIR),
        )
        argv = (
            "python",
            HARNESS_TARGET,
            self.course.spec.predictor,
            base.ARTIFACT_FILE,
            f"{base.CHANNEL_DIR}/{harness.SOCKET}",
        )
        return self._job(spec, role, argv, {}, mounts, limits, slot)

    def _job(
        self,
        spec: Spec,
        role: Role,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        mounts: tuple[Mount, ...],
        limits: Limits,
        slot: Slot,
    ) -> Job:
        fixed = {
            "HOME": base.SCRATCH_DIR,
            "TMPDIR": base.SCRATCH_DIR,
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": str(limits.threads),
        }
        return Job(
            name=f"agentgolf-{self.ledger}-{self.run}-r{spec.replicate_id}-{role}",
            role=role,
            argv=argv,
            env={**fixed, **self.course.spec.env, **env},
            mounts=mounts,
            limits=limits,
            slot=slot,
            image=self.course.spec.image,
            hidden=self.hidden,
            labels={
                "run": self.run,
                "ledger": self.ledger,
                "trial": str(spec.trial),
                "replicate": str(spec.replicate_id),
            },
        )

    def _limits(self, role: Role, more_seconds: float = 0.0) -> Limits:
        track = self.course.limits
        budget = (track.train_seconds if role is Role.TRAIN else track.eval_seconds) + more_seconds
        # On a CPU clock the wall is only a backstop: a core may be busy, slow or both.
        wall = budget + track.grace_seconds + 60
        return Limits(
            clock=track.clock,
            budget_seconds=budget,
            grace_seconds=track.grace_seconds,
            wall_seconds=wall if track.clock is Clock.WALL else 5 * wall,
            memory_bytes=track.memory_bytes,
            scratch_bytes=track.scratch_bytes,
            file_bytes=max(track.artifact_cap_bytes * 2, 1 << 24),
            threads=track.threads,
            gpus=track.gpus,
        )

    @contextlib.contextmanager
    def _started(self, job: Job) -> Iterator[Running]:
        with self.sandbox.start(job) as running:
            with self._lock:
                self._running.add(running)
            try:
                yield running
            finally:
                with self._lock:
                    self._running.discard(running)

    @contextlib.contextmanager
    def _folder(self, spec: Spec, what: str) -> Iterator[Path]:
        folder = self.work / f"r{spec.replicate_id}-{what}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _write(files: Mapping[str, bytes], folder: Path) -> Path:
    """A fresh copy of a candidate's files that any user may read."""
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)
    return folder


def _root_cause(error: CandidateError, executions: Mapping[Role, Execution]) -> CandidateError:
    """A limit or a crash seen from outside explains more than the silence it caused."""
    if error.outcome in (Outcome.CRASHED, Outcome.TIMED_OUT):
        for execution in executions.values():
            if execution.outcome in (Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY):
                return CandidateError(execution.outcome, f"{execution.role}: {execution.message}")
            if execution.outcome is Outcome.CRASHED and execution.exit_code not in (None, 0, 137):
                return CandidateError(execution.outcome, execution.message)
    return error
