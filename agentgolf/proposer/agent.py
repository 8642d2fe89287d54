"""A language model that answers with one hypothesis and one edit; a reply that cannot be used goes back to it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from agentgolf.domain import Proposal
from agentgolf.errors import ModelUnavailableError, PatchError, PromptTooLongError, UsageError
from agentgolf.proposer.base import Context, Proposer, taken, unified_diff
from agentgolf.proposer.catalogue import Technique
from agentgolf.proposer.edits import apply_reply
from agentgolf.proposer.llm import Message, Model

MAX_HYPOTHESIS = 200
# How much of the history and of the playbook a prompt carries; the next level is tried when it is too long.
LEVELS = ((40, True), (12, True), (5, False), (0, False))
_CLOSING = re.compile(r"<\s*/\s*(data)", re.IGNORECASE)
_HYPOTHESIS = re.compile(r"^\W*HYPOTHESIS\W*:\W*(.+)$", re.MULTILINE | re.IGNORECASE)
_GAIN = re.compile(r"^\W*PREDICTED[ _]GAIN\W*:\W*([+-]?\d*\.?\d+)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """A scaffold's templates, rendered strictly: an unknown name in one is an error, not a blank.

    What the scaffold's folder lacks is taken from `common`. The filter `data` is for what a candidate may have
    written: it cannot close the <data> around it.
    """

    folder: Path
    common: Path

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file() or (self.common / name).is_file()

    def render(self, name: str, **values: Any) -> str:
        """Raises `UsageError` with the file and what is wrong in it."""
        environment = Environment(
            loader=FileSystemLoader([self.folder, self.common]),
            undefined=StrictUndefined,
            trim_blocks=True,
            autoescape=False,
        )
        environment.filters["data"] = lambda text: _CLOSING.sub(r"<\\/\1", str(text))
        try:
            return environment.get_template(name).render(**values).strip()
        except (TemplateError, UnicodeDecodeError) as error:
            line = f":{error.lineno}" if hasattr(error, "lineno") else ""
            place = getattr(error, "filename", None) or self.folder / name
            raise UsageError(f"{place}{line}: {error or type(error).__name__}") from error


class AgentProposer:
    """Asks the `steps`, templates, one after the other; the last reply holds the edit.

    `repairs`: how often a reply without a usable edit goes back. `fallback` proposes while no model answers.
    """

    name = "agent"

    def __init__(
        self,
        model: Model,
        prompts: Prompts,
        playbook: Sequence[Technique],
        *,
        steps: Sequence[str],
        repairs: int,
        fallback: Proposer | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._model, self._prompts, self._playbook = model, prompts, playbook
        self._steps, self._repairs, self._fallback, self._note = steps, repairs, fallback, note

    def propose(self, context: Context) -> Proposal:
        """Raises `ModelError` when the server refuses what no waiting mends, such as a key."""
        try:
            return self._converse(context)
        except ModelUnavailableError as error:
            if self._fallback is None:
                raise
            self._note(f"{error}; an offline proposer stands in for this trial")
            return self._fallback.propose(context)

    def _converse(self, context: Context) -> Proposal:
        messages, text = self._open(context)
        values = self._values(context, LEVELS[0][0], LEVELS[0][1])
        for step in self._steps[1:]:
            text = self._go_on(messages, text, self._prompts.render(step, **values), context)
        for attempt in range(self._repairs + 1):
            try:
                changed = apply_reply(text, context.files)
                return self._proposal(context, text, changed, attempt)
            except PatchError as error:
                refused = str(error)
            if attempt < self._repairs:
                text = self._go_on(messages, text, self._prompts.render("repair.md", refused=refused), context)
        return Proposal(
            hypothesis=_hypothesis(text),
            edits=(),
            proposer=self.name,
            detail={"attempts": self._repairs + 1, **taken(context)},
            refused=f"no usable edit in {self._repairs + 1} replies; the last: {refused}",
        )

    def _go_on(self, messages: list[Message], said: str, ask: str, context: Context) -> str:
        """The next reply; what was said and asked joins the conversation."""
        messages.append(Message(role="assistant", content=said))
        messages.append(Message(role="user", content=ask))
        return self._model.ask(messages, context.calls, len(LEVELS) + len(messages)).text

    def _open(self, context: Context) -> tuple[list[Message], str]:
        """The conversation so far and the model's first reply; what is too long is told again, shorter."""
        for level, (trials, playbook) in enumerate(LEVELS):
            messages = [
                Message(role="system", content=self._prompts.render("system.md", **self._values(context, 0, False))),
                Message(
                    role="user", content=self._prompts.render(self._steps[0], **self._values(context, trials, playbook))
                ),
            ]
            try:
                return messages, self._model.ask(messages, context.calls, level).text
            except PromptTooLongError:
                if level == len(LEVELS) - 1:
                    raise
        raise AssertionError("the last level either returns or raises")

    def _values(self, context: Context, trials: int, playbook: bool) -> dict[str, Any]:
        return {
            "rules": context.rules,
            "files": context.files,
            "parent": context.parent,
            "lineage": list(context.lineage),
            "history": list(context.history[-trials:]) if trials else [],
            "playbook": list(self._playbook) if playbook else [],
            "cap_bytes": context.cap_bytes,
            "suggestion": context.suggestion.text if context.suggestion else "",
        }

    def _proposal(self, context: Context, text: str, changed: dict[str, str], attempt: int) -> Proposal:
        diffs = [unified_diff(path, context.files[path], new) for path, new in changed.items()]
        gain = _GAIN.search(text)
        return Proposal(
            hypothesis=_hypothesis(text),
            edits=("".join(diffs),),
            proposer=self.name,
            detail={"attempts": attempt + 1, "predicted_gain_bpb": float(gain[1]) if gain else None, **taken(context)},
        )


def _hypothesis(text: str) -> str:
    """The line after HYPOTHESIS:, else the first line with words, cleaned."""
    found = _HYPOTHESIS.search(text)
    line = found[1] if found else next((row for row in text.splitlines() if re.search(r"\w{3}", row)), "no hypothesis")
    return "".join(c for c in line.strip(" *_`#") if c.isprintable())[:MAX_HYPOTHESIS] or "no hypothesis"
