"""The tools of a tool-using agent: it reads, searches, looks back, tries briefly, and submits once."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentgolf.domain import ToolCall
from agentgolf.errors import PatchError
from agentgolf.proposer.answers import EDITS, SCHEMA, Answer, answer_of, edited
from agentgolf.proposer.base import Context
from agentgolf.proposer.catalogue import Technique
from agentgolf.proposer.wire import Tool

MAX_SAID = 12_000
MAX_HITS = 40
MAX_EDITS = 8


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


_TEXT, _NUMBER = {"type": "string"}, {"type": "integer"}
# A weak model that is held to a grammar can go on with the list for ever.
_FEW_EDITS = {**EDITS, "maxItems": MAX_EDITS}
TOOLS = {
    "read_file": Tool(
        name="read_file",
        description="Lines first to last of an editable file as it stands; last 0 is the end of the file.",
        parameters=_object(path=_TEXT, first=_NUMBER, last=_NUMBER),
    ),
    "search": Tool(
        name="search",
        description="Every line of the editable files that contains a text, with its number; case does not count.",
        parameters=_object(text=_TEXT),
    ),
    "history": Tool(
        name="history",
        description="One earlier trial whole: what it changed, what it gave, why it failed, the end of its log.",
        parameters=_object(trial=_NUMBER),
    ),
    "playbook": Tool(
        name="playbook",
        description="The page of a known technique, with a diff against the unmodified script. "
        "An empty name lists them all.",
        parameters=_object(technique=_TEXT),
    ),
    "smoke_test": Tool(
        name="smoke_test",
        description="Trains a few seconds with your edits and tells whether it runs. It costs time of the run.",
        parameters=_object(edits=_FEW_EDITS),
    ),
    "submit": Tool(
        name="submit",
        description="Hand in your one hypothesis with its edit. This ends your turn when the edit fits.",
        parameters={**SCHEMA, "properties": {**SCHEMA["properties"], "edits": _FEW_EDITS}},
    ),
}


@dataclass(slots=True, kw_only=True)
class Toolbox:
    """Serves one proposal. `answer` is set when a submitted edit has fitted; `refused` says why the last did not."""

    context: Context
    playbook: Sequence[Technique]
    smoke_tests: int
    smoke_seconds: float
    accept: Callable[[Answer], str | None]
    answer: Answer | None = None
    refused: str = "nothing was submitted"
    must_submit: bool = False
    _smoked: int = field(default=0)

    def tools(self) -> list[Tool]:
        """Those that are of use now; `submit` alone once it must submit."""
        if self.must_submit:
            return [TOOLS["submit"]]
        return [tool for name, tool in TOOLS.items() if name != "smoke_test" or self._smoked < self.smoke_tests]

    def use(self, call: ToolCall, position: int) -> str:
        """What the tool says. Bad arguments are answered, not raised."""
        kind = TOOLS.get(call.name)
        if kind is None:
            return f"there is no tool {call.name[:40]!r}; there are {', '.join(TOOLS)}"
        try:
            given = json.loads(call.arguments or "{}", strict=False)
        except ValueError as error:
            return f"the arguments of {call.name} are not valid JSON ({error}); call it again"
        if not isinstance(given, dict):
            return f"the arguments of {call.name} must be an object with {', '.join(kind.parameters['required'])}"
        try:
            said: str = getattr(self, f"_{call.name}")(given, position)
        except PatchError as error:
            if call.name == "submit":
                self.refused = str(error)
            said = f"refused: {error}"
        except (TypeError, ValueError, KeyError) as error:
            wanted = ", ".join(kind.parameters["required"])
            said = f"wrong arguments for {call.name} ({type(error).__name__}: {error}); it takes {wanted}"
        return said if len(said) <= MAX_SAID else f"{said[:MAX_SAID]}\n... {len(said) - MAX_SAID:,} more characters"

    def _read_file(self, given: Mapping[str, Any], _: int) -> str:
        files = self.context.files
        path = str(given.get("path") or next(iter(files)))
        if path not in files:
            return f"{path!r} is none of the editable files: {', '.join(files)}"
        lines = files[path].splitlines()
        first, last = max(1, int(given.get("first") or 1)), int(given.get("last") or 0) or len(lines)
        shown = "\n".join(lines[first - 1 : last])
        return f"{path}, lines {first} to {min(last, len(lines))} of {len(lines)}:\n{shown}"

    def _search(self, given: Mapping[str, Any], _: int) -> str:
        # Plain text, not a pattern: a pattern of a model's could keep the orchestrator busy for ever.
        wanted = str(given["text"]).lower()
        hits = [
            f"{path}:{number}: {line}"
            for path, text in self.context.files.items()
            for number, line in enumerate(text.splitlines(), 1)
            if wanted in line.lower()
        ]
        more = f"\n... {len(hits) - MAX_HITS} more" if len(hits) > MAX_HITS else ""
        return "\n".join(hits[:MAX_HITS]) + more if hits else "no line has it"

    def _history(self, given: Mapping[str, Any], _: int) -> str:
        return self.context.workbench.trial(int(given["trial"]))

    def _playbook(self, given: Mapping[str, Any], _: int) -> str:
        wanted = str(given.get("technique") or "").strip().lower()
        for technique in self.playbook:
            if wanted in (technique.name.lower(), technique.title.lower()):
                return f"{technique.title}\n\n{technique.body}\n\n{technique.diff}"
        return "\n".join(f"{technique.name}: {technique.title}" for technique in self.playbook)

    def _smoke_test(self, given: Mapping[str, Any], position: int) -> str:
        if self._smoked >= self.smoke_tests:
            return "no smoke test is left for this proposal; submit"
        files = edited(given.get("edits"), self.context.files)
        self._smoked += 1
        asked = json.dumps(files, sort_keys=True)
        return self.context.calls.tool(
            position, "smoke_test", asked, lambda: self.context.workbench.smoke_test(files, self.smoke_seconds)
        )

    def _submit(self, given: Mapping[str, Any], _: int) -> str:
        answer = answer_of(given, self.context.files)
        refused = self.accept(answer)
        if refused is not None:
            raise PatchError(refused)
        self.answer = answer
        return "submitted"
