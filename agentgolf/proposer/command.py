"""Any coding agent's command line, run in a scratch folder: what it leaves there is the edit."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from agentgolf.domain import ModelReply, Proposal
from agentgolf.errors import EnvironmentNotReadyError, ModelError
from agentgolf.proposer.answers import last_hypothesis
from agentgolf.proposer.base import AgentEnd, AgentTask, Context, diffs_of, taken
from agentgolf.proposer.prompts import Prompts

POSITION = 1
MAX_LOG = 50_000
MAX_LAST_WORDS = 300
# Runs in a row that failed and left nothing, after which another would be no better.
MAX_FAILED = 3
# Lines of a diff never begin like this.
MARK = "===== what the agent printed ====="
# Stands in the prompt for the hypothesis; many an agent prints its prompt.
FORM = "what you changed"


class CommandProposer:
    """`task` is the command line with its limits; files and prompt are filled in for each proposal."""

    name = "command"

    def __init__(self, prompts: Prompts, task: AgentTask) -> None:
        self._prompts, self._task = prompts, task
        self._program = program_of(task.argv)
        self._failed = 0

    def propose(self, context: Context) -> Proposal:
        """Its run is kept as a call; a resume finds it and does not repeat it.

        Raises `ModelError` when the agent has failed several times in a row, `EnvironmentNotReadyError` when it
        cannot be started.
        """
        prompt = self._prompts.render(
            "command.md",
            rules=context.rules,
            files=list(context.files),
            parent=context.parent,
            history=list(context.history),
            pending=list(context.pending),
            suggestion=context.suggestion.text if context.suggestion else "",
            form=FORM,
        )
        reply = self._ask(context, dataclasses.replace(self._task, prompt=prompt))
        diff, _, log = reply.text.partition(f"{MARK}\n")
        refused = context.workbench.twin((diff,), context.parent) if diff.strip() else None
        if not diff.strip():
            refused = f"the agent left no change ({reply.finish}); its last words: {_last_words(log)}"
        return Proposal(
            hypothesis=last_hypothesis(_plain(log), FORM) or _unnamed(diff),
            edits=(diff,) if not refused else (),
            proposer=self.name,
            detail={"ended": reply.finish, **taken(context)},
            refused=refused or "",
        )

    def _ask(self, context: Context, task: AgentTask) -> ModelReply:
        request = {
            "model": f"command: {self._program}",
            "argv": list(task.argv),
            "messages": [{"role": "user", "content": task.prompt}],
        }
        sha256 = context.calls.key(json.dumps(request, sort_keys=True))
        known = context.calls.recall(POSITION, sha256)
        if known is not None:
            return known
        call = context.calls.sent(POSITION, request, sha256)
        reply = context.calls.recorded(POSITION, sha256)
        if reply is None:
            try:
                reply = _reply(context.workbench.run_agent(task))
            except EnvironmentNotReadyError as error:
                context.calls.failed(call, str(error))
                raise
        context.calls.answered(call, reply)
        self._count(reply)
        return reply

    def _count(self, reply: ModelReply) -> None:
        """A wrong key or a server that is gone would cost the run all its time, a rejected trial after the other."""
        left_nothing = reply.text.startswith(MARK)
        self._failed = self._failed + 1 if left_nothing and reply.finish != _exit(0) else 0
        if self._failed == MAX_FAILED:
            log = reply.text.removeprefix(f"{MARK}\n")
            raise ModelError(
                f"the coding agent {self._program} failed {MAX_FAILED} times in a row and changed nothing "
                f"({reply.finish}); its last words: {_last_words(log)}; mend that, then: agentgolf resume"
            )


def program_of(argv: tuple[str, ...] | list[str]) -> str:
    """The word that names the program, past `env` and the variables that it sets."""
    words = argv[1:] if argv[0] == "env" else argv
    return next((word for word in words if argv[0] != "env" or "=" not in word), argv[0])


def _exit(code: int | None) -> str:
    return f"exit code {code}"


def _reply(end: AgentEnd) -> ModelReply:
    diff = "".join(diffs_of(end.before, end.after))
    return ModelReply(
        text=f"{diff}{MARK}\n{end.log[-MAX_LOG:]}",
        input_tokens=None,
        output_tokens=None,
        seconds=end.seconds,
        finish=end.trouble or _exit(end.exit_code),
        cost_usd=end.cost_usd,
    )


def _last_words(log: str) -> str:
    words = " ".join(log.split())
    return words if len(words) <= MAX_LAST_WORDS else f"... {words[-MAX_LAST_WORDS:].partition(' ')[2]}"


def _unnamed(diff: str) -> str:
    """For an agent that did not say what it had in mind: the first line that it wrote."""
    rows = diff.splitlines()
    first = next((row[1:].strip() for row in rows if row.startswith("+") and not row.startswith("+++")), "")
    return f"no hypothesis; writes {first[:150]}" if first else "no hypothesis"


def _plain(log: str) -> str:
    """What is said in lines of JSON, as several agents print it, beside all other lines."""
    return "\n".join("\n".join(_strings_of(line)) if line.startswith("{") else line for line in log.splitlines())


def _strings_of(line: str) -> Iterator[str]:
    with contextlib.suppress(ValueError, RecursionError):
        yield from _strings(json.loads(line))
        return
    # A line that was cut.
    yield line.replace("\\n", "\n").replace('\\"', '"').rstrip('"}] ')


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(inner)
