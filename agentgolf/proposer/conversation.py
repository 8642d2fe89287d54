"""One trial's conversation with a model: what was said so far, and what is asked next."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentgolf.domain import ModelReply
from agentgolf.errors import PromptTooLongError
from agentgolf.proposer.base import UNUSABLE, Context
from agentgolf.proposer.llm import Model
from agentgolf.proposer.prompts import Prompts, as_data
from agentgolf.proposer.toolbox import Toolbox
from agentgolf.proposer.wire import Message

# How much of the history and of the playbook a prompt carries; the next level is tried when it is too long.
LEVELS = ((40, True), (12, True), (5, False), (0, False))


@dataclass(slots=True, kw_only=True)
class Conversation:
    """`form`: how the answer is asked for: text, json or tools. `position` counts every request of the trial."""

    model: Model
    prompts: Prompts
    context: Context
    playbook: tuple[Any, ...]
    form: str
    schema: Mapping[str, Any] | None = None
    position: int = 0
    messages: list[Message] = field(default_factory=list)

    def open(self, template: str, toolbox: Toolbox | None = None) -> ModelReply:
        """The first reply; what is too long is told again, shorter. Raises as `Model.ask` does."""
        for level, (trials, playbook) in enumerate(LEVELS):
            values = self.values(trials, playbook)
            self.messages = [
                Message(role="system", content=self.prompts.render("system.md", **self.values(0, False))),
                Message(role="user", content=self.prompts.render(template, **values)),
            ]
            try:
                return self._ask(toolbox)
            except PromptTooLongError:
                if level == len(LEVELS) - 1:
                    raise
        raise AssertionError("the last level either returns or raises")

    def say(self, text: str, toolbox: Toolbox | None = None) -> ModelReply:
        """The reply to one more turn."""
        self.messages.append(Message(role="user", content=text))
        return self._ask(toolbox)

    def use_tools(self, reply: ModelReply, toolbox: Toolbox) -> None:
        """Answer every call of a reply; what a tool says is data."""
        for call in reply.tool_calls:
            said = toolbox.use(call, self.position)
            content = f"<data>\n{as_data(said)}\n</data>"
            self.messages.append(Message(role="tool", content=content, tool_call_id=call.id))

    def go_on(self, toolbox: Toolbox) -> ModelReply:
        """The reply to what the tools said."""
        return self._ask(toolbox)

    def values(self, trials: int, playbook: bool) -> dict[str, Any]:
        context = self.context
        tried = [trial for trial in context.history if not trial.detail.get(UNUSABLE)]
        return {
            "rules": context.rules,
            "files": context.files,
            "parent": context.parent,
            "lineage": list(context.lineage),
            "history": tried[-trials:] if trials else [],
            "pending": list(context.pending),
            "playbook": list(self.playbook) if playbook else [],
            "cap_bytes": context.cap_bytes,
            "suggestion": context.suggestion.text if context.suggestion else "",
            "crash": context.crash,
            "form": self.form,
        }

    def _ask(self, toolbox: Toolbox | None) -> ModelReply:
        self.position += 1
        tools = toolbox.tools() if toolbox else ()
        reply = self.model.ask(
            self.messages,
            self.context.calls,
            self.position,
            tools=tools,
            schema=self.schema,
            must_call=toolbox is not None and toolbox.must_submit,
        )
        self.messages.append(Message(role="assistant", content=reply.text, tool_calls=reply.tool_calls))
        return reply
