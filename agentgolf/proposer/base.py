"""What every proposer is given and gives."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agentgolf.domain import Outcome, Proposal, TrialSummary
from agentgolf.proposer.llm import CallLog, NoLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """An idea of a person's. Who takes it up puts its id into the proposal's detail, as `suggestion`."""

    id: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything a proposer may know. It holds no state of its own: a resume shows it the same again.

    `files` are the parent's editable files and `origin_files` the unmodified course's, as text by path;
    `origin` is the commit of the latter. `lineage` is the parent and its ancestors, newest first;
    `history` every decided trial of the run. `cap_bytes` is compared with `counted_bytes` of a trial.
    `rules` says in a few lines what is played for. Calls to a model go through `calls`. `suggestion` is the
    oldest idea of a person's that no trial has taken up.
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


class Proposer(Protocol):
    """Pure in its context: the same context gives the same proposal."""

    name: str

    def propose(self, context: Context) -> Proposal:
        """Raises `ProposerExhaustedError` when there is nothing left to propose."""


def unified_diff(path: str, old: str, new: str) -> str:
    """A diff that git applies; empty when nothing changes."""
    lines = difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{path}", f"b/{path}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def was_measured(trial: TrialSummary) -> bool:
    """Whether a trial got far enough to say something about its idea."""
    return trial.outcome not in (None, Outcome.REJECTED, Outcome.INFRASTRUCTURE)


def taken(context: Context) -> dict[str, object]:
    """What a proposal that takes the suggestion up adds to its detail."""
    return {"suggestion": context.suggestion.id} if context.suggestion else {}
