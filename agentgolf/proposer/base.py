"""What every proposer is given and gives."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agentgolf.domain import Outcome, Proposal, TrialSummary
from agentgolf.errors import EnvironmentNotReadyError
from agentgolf.proposer.llm import CallLog, NoLog

# In a proposal's detail: the model came to no usable edit, so its idea was not tried.
UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """An idea of a person's. Who takes it up puts its id into the proposal's detail, as `suggestion`."""

    id: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """A trial of the same proposer's that did not finish: its diff and the cleaned end of its log.

    `attempt` counts the repairs of this change, from 1.
    """

    number: int
    attempt: int
    outcome: Outcome
    reason: str
    diff: str
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTask:
    """A coding agent's command line, to run in a folder of its own that holds the whole parent.

    `environment` names the variables of ours that it may see, `variables` are its own; `readable` are folders of the
    host that it needs. It runs in a container of `image`, or without one in bubblewrap.
    A line of its output that matches `cost_pattern` tells dollars; past `max_cost_usd` it is ended.
    """

    argv: tuple[str, ...]
    prompt: str
    seconds: float
    environment: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    readable: tuple[str, ...] = ()
    network: bool = True
    image: str = ""
    cost_pattern: str = ""
    max_cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEnd:
    """The regular text files of its folder before and after, what it printed, and why it was ended early."""

    before: Mapping[str, str]
    after: Mapping[str, str]
    log: str
    exit_code: int | None
    seconds: float
    cost_usd: float | None
    trouble: str = ""


class Workbench(Protocol):
    """What a proposer may have done for it while it thinks. Every text is cleaned and bounded."""

    def trial(self, number: int) -> str:
        """All that is known of a trial of this run: verdict, reason, diff and the end of its log."""

    def smoke_test(self, files: Mapping[str, str], seconds: float) -> str:
        """How a training of so many seconds with these editable files went."""

    def twin(self, edits: Sequence[str], parent: int) -> str | None:
        """Which trial on the same parent was nearly this one, and what became of it."""

    def run_agent(self, task: AgentTask) -> AgentEnd:
        """Raises `EnvironmentNotReadyError` when nothing here can hold it."""


class NoWorkbench:
    """Knows nothing and does nothing."""

    def trial(self, number: int) -> str:
        return f"there is no trial {number}"

    def smoke_test(self, files: Mapping[str, str], seconds: float) -> str:
        return "no smoke test can be run here"

    def twin(self, edits: Sequence[str], parent: int) -> str | None:
        return None

    def run_agent(self, task: AgentTask) -> AgentEnd:
        raise EnvironmentNotReadyError("no agent can be run here")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything a proposer may know. It holds no state of its own: a resume shows it the same again.

    `files` are the parent's editable files and `origin_files` the unmodified course's, as text by path;
    `origin` is the commit of the latter. `lineage` is the parent and its ancestors, newest first;
    `history` every decided trial of the run. `cap_bytes` is compared with `counted_bytes` of a trial.
    `rules` says in a few lines what is played for. Calls to a model go through `calls`. `suggestion` is the
    oldest idea of a person's that no trial has taken up; `crash` a change that waits to be repaired; `pending`
    the hypotheses of trials that are being measured.
    """

    run_seed: int
    number: int
    parent: int
    origin: str
    files: Mapping[str, str]
    origin_files: Mapping[str, str]
    lineage: Sequence[TrialSummary]
    history: Sequence[TrialSummary]
    cap_bytes: int
    rules: str = ""
    calls: CallLog = field(default_factory=NoLog)
    suggestion: Suggestion | None = None
    crash: Crash | None = None
    pending: Sequence[str] = ()
    workbench: Workbench = field(default_factory=NoWorkbench)


class Proposer(Protocol):
    """Pure in its context: the same context gives the same proposal."""

    name: str

    def propose(self, context: Context) -> Proposal:
        """Raises `ProposerExhaustedError` when there is nothing left to propose."""


def unified_diff(path: str, old: str | None, new: str | None) -> str:
    """A diff that git applies; None is a file that is not there. Empty when nothing changes."""
    names = ("/dev/null" if old is None else f"a/{path}", "/dev/null" if new is None else f"b/{path}")
    lines = difflib.unified_diff((old or "").splitlines(keepends=True), (new or "").splitlines(keepends=True), *names)
    text = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    if old is None or new is None:
        mode = "new file mode 100644" if old is None else "deleted file mode 100644"
        return f"diff --git a/{path} b/{path}\n{mode}\n{text}"
    return text


def was_measured(trial: TrialSummary) -> bool:
    """Whether a trial got far enough to say something about its idea."""
    return trial.outcome not in (None, Outcome.REJECTED, Outcome.INFRASTRUCTURE)


def taken(context: Context) -> dict[str, object]:
    """What a proposal adds to its detail: the suggestion that it takes up, the crash that it repairs."""
    if context.crash:
        return {"repairs": context.crash.number, "repair_attempt": context.crash.attempt}
    return {"suggestion": context.suggestion.id} if context.suggestion else {}


def diffs_of(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    """One diff for each file that differs, is new or is gone."""
    names = sorted(set(old) | set(new))
    return tuple(unified_diff(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name))
