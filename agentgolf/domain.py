"""The values that travel between stages. All are frozen; nothing here imports anything of ours."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Outcome(StrEnum):
    """What happened. Never mixed with `Verdict`, which is what we chose."""

    OK = "ok"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    OVERSIZED = "oversized"
    INVALID = "invalid"
    REJECTED = "rejected"
    INFRASTRUCTURE = "infrastructure"


class Verdict(StrEnum):
    KEEP = "keep"
    REVERT = "revert"
    UNDECIDED = "undecided"


class TrialState(StrEnum):
    PROPOSED = "proposed"
    APPLIED = "applied"
    DECIDED = "decided"


class ReplicateState(StrEnum):
    LAUNCHED = "launched"
    COLLECTED = "collected"
    SCORED = "scored"


class RunState(StrEnum):
    OPEN = "open"
    FINISHED = "finished"


class Split(StrEnum):
    """Which half of the held-out text. A guides the search; B is read only when a run ends."""

    A = "A"
    B = "B"


class Clock(StrEnum):
    """How a training budget is counted.

    cpu        CPU-seconds of the sandbox
    reference  CPU-seconds times the measured speed of the core (see docs/course.md)
    wall       seconds on the wall
    """

    CPU = "cpu"
    REFERENCE = "reference"
    WALL = "wall"


class Role(StrEnum):
    """What a sandboxed process is for."""

    TRAIN = "train"
    ENCODE = "encode"
    PREDICT = "predict"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A hypothesis and the raw edits that a proposer returned.

    `edits` are unified diffs, applied in order: each against the parent or, when `base` names another
    commit, against that one and then merged three-way onto the parent. `technique` names what was tried,
    for grouping; `detail` is the proposer's own (JSON-serializable) note, which it reads back later. A
    proposer that found no usable edit says why in `refused`: the trial is then rejected.
    """

    hypothesis: str
    edits: tuple[str, ...]
    proposer: str
    base: str = ""
    technique: str = ""
    detail: Mapping[str, object] = field(default_factory=dict)
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A parsed, guarded diff. `fingerprint` is equal for diffs that change the same lines alike."""

    diff: str
    files: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one sandboxed process may use. `budget_seconds` counts on `clock`; the rest is absolute."""

    clock: Clock
    budget_seconds: float
    grace_seconds: float
    wall_seconds: float
    memory_bytes: int
    scratch_bytes: int
    file_bytes: int
    max_pids: int = 64
    open_files: int = 256
    threads: int = 1
    gpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A place to run one sandbox: the cores it is pinned to, and the GPUs it holds."""

    cores: tuple[int, ...]
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How one sandboxed process went, as measured from outside.

    `clock_seconds` is what it used of its budget, on the course's clock.
    """

    role: Role
    outcome: Outcome
    exit_code: int | None
    wall_seconds: float
    cpu_seconds: float
    clock_seconds: float
    peak_memory_bytes: int
    log: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What was collected from a train sandbox. `counted_bytes` is what the cap is compared with."""

    path: Path
    sha256: str
    artifact_bytes: int
    code_bytes: int

    @property
    def counted_bytes(self) -> int:
        return self.artifact_bytes + self.code_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What agentgolf measured. Refuses NaN and infinities: SQLite would store NaN as NULL.

    `val_bpb` = total_nats / (ln 2 x text_bytes), over the raw bytes of one held-out half.
    """

    split: Split
    total_nats: float
    text_bytes: int
    tokens: int
    artifact_bytes: int
    train_seconds: float
    eval_seconds: float
    kind: str = "verified"

    def __post_init__(self) -> None:
        for name in ("total_nats", "train_seconds", "eval_seconds"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; a score must be finite")
        if self.text_bytes <= 0:
            raise ValueError("a score needs at least one byte of text")

    @property
    def val_bpb(self) -> float:
        return self.total_nats / (math.log(2) * self.text_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One token asked about again with the rest withheld.

    `gain_nats`: what the candidate claims to save there over the reference. `difference_nats`: how much
    more the token costs when nothing after it is known; an honest predictor has none. `by_gain`: drawn in
    proportion to `gain_nats` rather than anywhere; `times` as often as it was drawn.
    """

    gain_nats: float
    difference_nats: float
    by_gain: bool
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Replays:
    """The replays of one artifact. `claimed_nats` sums the claimed gains over all tokens of the text."""

    items: tuple[Replay, ...]
    tokens: int
    text_bytes: int
    claimed_nats: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """What a script claimed of a text drawn from Q. `beaten_nats`: by how much it claims to beat Q, at least.

    `probability`: a bound on the chance that any valid predictor would have claimed as much.
    """

    tokens: int
    claimed_nats: float
    q_nats: float
    beaten_nats: float
    probability: float

    @property
    def convicted(self) -> bool:
        return self.probability < 1e-9

    def said(self) -> str:
        claim = f"on {self.tokens:,} tokens drawn from a known model it claims {self.claimed_nats:,.0f} nats"
        if not self.convicted:
            return f"{claim}, the model itself pays {self.q_nats:,.0f}: nothing against it"
        return (
            f"{claim}, at least {self.beaten_nats:,.0f} fewer than the model that made the text; a valid predictor "
            f"does so with probability below {max(self.probability, 1e-300):.0e}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A language model's wish to use a tool; `arguments` is JSON, if the model is good."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """A language model's answer. Token counts are None where the server does not tell.

    `cached_tokens` of the input were read before and cost less. `cost_usd` only where it is told; else it follows from
    the tokens and the price table.
    """

    text: str
    input_tokens: int | None
    output_tokens: int | None
    seconds: float
    finish: str
    tool_calls: tuple[ToolCall, ...] = ()
    cached_tokens: int = 0
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSummary:
    """One trial as proposers and policies see it: the facts, no handles.

    `gain_bpb` is over its parent, between `gain_low` and `gain_high` at 95%. `lesson`: a proposer's line after it.
    """

    number: int
    parent: int | None
    proposer: str
    technique: str
    hypothesis: str
    fingerprint: str
    detail: Mapping[str, object]
    outcome: Outcome | None
    verdict: Verdict | None
    reason: str
    gain_bpb: float | None
    val_bpb: float | None
    counted_bytes: int | None
    gain_low: float | None = None
    gain_high: float | None = None
    lesson: str = ""

    @property
    def gain_said(self) -> str:
        """Its gain with the interval, for a prompt; empty when none was measured."""
        if self.gain_bpb is None:
            return ""
        known = self.gain_low is not None and self.gain_high is not None
        return f"gain {self.gain_bpb:+.4f}" + (f" [{self.gain_low:+.4f}, {self.gain_high:+.4f}]" if known else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """What people said of a run's trials: none may grow from a vetoed one; the search goes on from the pinned one."""

    vetoed: frozenset[int] = frozenset()
    pinned: int | None = None


def gain_bpb(best: float, new: float) -> float:
    """How much better `new` is than `best`: positive when its bits per byte are fewer."""
    return best - new
