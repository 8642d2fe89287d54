"""Any coding agent's command line, run in a scratch folder: what it leaves there is the edit."""

import dataclasses
import json
import re

from agentgolf.domain import ModelReply, Proposal
from agentgolf.proposer.answers import hypothesis_of
from agentgolf.proposer.base import AgentEnd, AgentTask, Context, diffs_of, taken
from agentgolf.proposer.prompts import Prompts

POSITION = 1
MAX_LOG = 50_000
# Lines of a diff never begin like this.
MARK = "===== what the agent printed ====="


class CommandProposer:
    """`task` is the command line with its limits; files and prompt are filled in for each proposal."""

    name = "command"

    def __init__(self, prompts: Prompts, task: AgentTask) -> None:
        self._prompts, self._task = prompts, task

    def propose(self, context: Context) -> Proposal:
        """Its run is kept as a call; a resume finds it and does not repeat it."""
        prompt = self._prompts.render(
            "command.md",
            rules=context.rules,
            files=list(context.files),
            parent=context.parent,
            history=list(context.history),
            pending=list(context.pending),
            suggestion=context.suggestion.text if context.suggestion else "",
        )
        task = dataclasses.replace(self._task, prompt=prompt)
        request = {"model": f"command: {task.argv[0]}", "argv": list(task.argv), "messages": [_user(prompt)]}
        sha256 = context.calls.key(json.dumps(request, sort_keys=True))
        reply = context.calls.recall(POSITION, sha256)
        if reply is None:
            call = context.calls.sent(POSITION, request, sha256)
            reply = context.calls.recorded(POSITION, sha256) or _reply(context.workbench.run_agent(task))
            context.calls.answered(call, reply)
        diff, _, log = reply.text.partition(f"{MARK}\n")
        refused = context.workbench.twin((diff,), context.parent) if diff.strip() else None
        if not diff.strip():
            refused = f"the agent left no change ({reply.finish}); its last words: {log.strip()[-300:]}"
        return Proposal(
            hypothesis=_said(log),
            edits=(diff,) if not refused else (),
            proposer=self.name,
            detail={"ended": reply.finish, **taken(context)},
            refused=refused or "",
        )


def _user(prompt: str) -> dict[str, str]:
    return {"role": "user", "content": prompt}


def _reply(end: AgentEnd) -> ModelReply:
    diff = "".join(diffs_of(end.before, end.after))
    return ModelReply(
        text=f"{diff}{MARK}\n{end.log[-MAX_LOG:]}",
        input_tokens=None,
        output_tokens=None,
        seconds=end.seconds,
        finish=end.trouble or f"exit code {end.exit_code}",
        cost_usd=end.cost_usd,
    )


def _said(log: str) -> str:
    """Its hypothesis: the last line that names one, else its last words."""
    named = re.findall(r"^\W*HYPOTHESIS\W*:.*$", log, re.MULTILINE | re.IGNORECASE)
    rows = [row for row in log.splitlines() if re.search(r"\w{3}", row)]
    return hypothesis_of(named[-1] if named else rows[-1] if rows else "")
