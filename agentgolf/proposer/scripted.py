"""Replays a file of proposals, one JSON object a line: hypothesis, and a diff or a replacement."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from agentgolf.domain import Proposal
from agentgolf.errors import ProposerExhaustedError, UsageError
from agentgolf.proposer.base import Context, unified_diff


class _Line(BaseModel):
    """`diff` is a unified diff; else `find` is replaced by `replace`, once, in `file`."""

    model_config = ConfigDict(extra="forbid")

    hypothesis: str
    technique: str = ""
    diff: str = ""
    file: str = ""
    find: str = ""
    replace: str = ""


class ScriptedProposer:
    name = "scripted"

    def __init__(self, path: Path) -> None:
        """Raises `UsageError`, with the line, when the file is missing or malformed."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise UsageError(f"the script of proposals {path} cannot be read: {error.strerror}") from error
        self._lines: list[_Line] = []
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    self._lines.append(_Line.model_validate(json.loads(line)))
                except (ValidationError, ValueError) as error:
                    first = str(error).splitlines()[0]
                    raise UsageError(f"{path}:{number}: not a proposal: {first}") from error

    def propose(self, context: Context) -> Proposal:
        """The line after the last one used: one a trial, whatever became of it."""
        used = sum(trial.proposer == self.name for trial in context.history)
        if used >= len(self._lines):
            raise ProposerExhaustedError("the script of proposals has been played to its end")
        line = self._lines[used]
        diff = line.diff
        if not diff:
            old = context.files.get(line.file, "")
            diff = unified_diff(line.file, old, old.replace(line.find, line.replace, 1))
        return Proposal(hypothesis=line.hypothesis, edits=(diff,), proposer=self.name, technique=line.technique)
