"""What the bench is asked to do, and what comes back."""

from collections.abc import Mapping
from dataclasses import dataclass

from agentgolf.domain import Artifact, Exam, Execution, Replays, Role, Score, Split
from agentgolf.errors import CandidateError
from agentgolf.scoring.audit import Question
from agentgolf.scoring.claims import Claims, Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One replicate to measure. `files` are the candidate's, at its commit.

    A replicate that was trained before carries its artifact's hash, what training used and its log's hash.
    """

    replicate_id: int
    trial: int
    seed: int
    split: Split
    files: Mapping[str, bytes]
    label: str
    artifact_sha256: str | None = None
    code_bytes: int = 0
    train_seconds: float = 0.0
    log_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """How training went; without an artifact, `error` says why there is none."""

    execution: Execution
    artifact: Artifact | None
    error: CandidateError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """How scoring went. `claims_sha256` names the blob with the nats of every token."""

    executions: dict[Role, Execution]
    score: Score | None
    error: CandidateError | None
    claims_sha256: str | None = None
    claims_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSpec:
    """One audit: what to ask a fresh predictor about the artifact of a replicate.

    `seconds` are allowed on the course's clock beyond those of an evaluation.
    """

    spec: Spec
    stage: str
    claims: Claims
    gains: tuple[Floats, ...]
    questions: tuple[Question, ...]
    secret: bytes
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """How an audit went; without replays, `error` says why there are none."""

    execution: Execution
    replays: Replays | None
    error: CandidateError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamSpec:
    """One exam of a script that scores itself: train and score it on a text drawn from a known model."""

    spec: Spec
    stage: str
    secret: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """How an exam went; without one, `error` says why there is none."""

    execution: Execution
    exam: Exam | None
    error: CandidateError | None
