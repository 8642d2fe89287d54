"""What a model answers: a hypothesis, a predicted gain and an edit, in text or as JSON."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentgolf.errors import PatchError
from agentgolf.proposer.edits import Piece, apply_pieces, apply_reply

MAX_HYPOTHESIS = 200
# Before the word no line ends, or an output of empty lines would take for ever.
_HYPOTHESIS = re.compile(r"^[^\w\n]*HYPOTHESIS\W*:\W*(.+)$", re.MULTILINE | re.IGNORECASE)
_GAIN = re.compile(r"^[^\w\n]*PREDICTED[ _]GAIN\W*:\W*([+-]?\d*\.?\d+)", re.MULTILINE | re.IGNORECASE)
_JSON = re.compile(r"\A\s*(?:```(?:json)?\s*)?(\{.*\})\s*(?:```)?\s*\Z", re.DOTALL)

_EDIT = {
    "type": "object",
    "properties": {
        "path": {"type": "string", "description": "the file to edit"},
        "search": {"type": "string", "description": "lines of the file exactly as they stand, enough to be unique"},
        "replace": {"type": "string", "description": "what shall stand there instead"},
    },
    "required": ["path", "search", "replace"],
    "additionalProperties": False,
}
EDITS = {"type": "array", "items": _EDIT, "description": "search/replace pieces; together they are one idea"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "hypothesis": {"type": "string", "description": "one line: what is changed and why it should help"},
        "predicted_gain_bpb": {"type": "number", "description": "expected gain in bits per byte"},
        "edits": EDITS,
    },
    "required": ["hypothesis", "predicted_gain_bpb", "edits"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`files` are all editable files after the edit."""

    hypothesis: str
    predicted_gain_bpb: float | None
    files: Mapping[str, str]


def read_answer(text: str, files: Mapping[str, str], said_before: str = "") -> Answer:
    """In whichever form it stands; who was asked for the edit alone has named the hypothesis in `said_before`.

    Raises `PatchError` when it holds no edit that fits.
    """
    whole = _JSON.match(text)
    if whole:
        try:
            return answer_of(json.loads(whole[1], strict=False), files)
        except ValueError as error:
            raise PatchError(f"the answer is not valid JSON: {error}") from error
    words = text if _HYPOTHESIS.search(text) or not said_before else said_before
    gain = _GAIN.search(words)
    return Answer(
        hypothesis=hypothesis_of(words),
        predicted_gain_bpb=float(gain[1]) if gain else None,
        files=apply_reply(text, files),
    )


def answer_of(given: Any, files: Mapping[str, str]) -> Answer:
    """From JSON that should follow `SCHEMA`. Raises `PatchError` that says what is missing."""
    if isinstance(given, dict) and isinstance(given.get("arguments"), dict):
        given = given["arguments"]  # a call of submit, written down instead of made
    if not isinstance(given, dict):
        raise PatchError("the answer must be an object with hypothesis, predicted_gain_bpb and edits")
    said, gain = given.get("hypothesis"), given.get("predicted_gain_bpb")
    if not isinstance(said, str) or not said.strip():
        raise PatchError("hypothesis is missing: one line that says what is changed and why it should help")
    known = isinstance(gain, int | float) and math.isfinite(gain)
    return Answer(
        hypothesis=_clean(said),
        predicted_gain_bpb=float(gain) if known and isinstance(gain, int | float) else None,
        files=edited(given.get("edits"), files),
    )


def edited(edits: Any, files: Mapping[str, str]) -> dict[str, str]:
    """The files after a list of search/replace pieces. Raises `PatchError`."""
    if isinstance(edits, dict):
        edits = [edits]
    if not isinstance(edits, list) or not edits:
        raise PatchError("edits is missing: a list of objects with path, search and replace")
    pieces = []
    for edit in edits:
        if not isinstance(edit, dict) or not all(isinstance(edit.get(key), str) for key in ("search", "replace")):
            raise PatchError("each of edits needs the strings path, search and replace")
        pieces.append(Piece(path=str(edit.get("path", "")), old=edit["search"], new=edit["replace"]))
    return apply_pieces(pieces, files)


def hypothesis_of(text: str) -> str:
    """The line after HYPOTHESIS:, else the first line with words, cleaned."""
    found = _HYPOTHESIS.search(text)
    return _clean(found[1] if found else next((row for row in text.splitlines() if re.search(r"\w{3}", row)), ""))


def last_hypothesis(text: str, form: str) -> str:
    """What stands after the last HYPOTHESIS:, cleaned; empty when there is only the prompt's `form` of it, or none."""
    found = [said for said in map(_clean, _HYPOTHESIS.findall(text)) if not said.startswith(form)]
    return found[-1] if found else ""


def _clean(line: str) -> str:
    one = " ".join(line.split()).strip(" *_`#")
    return "".join(c for c in one if c.isprintable())[:MAX_HYPOTHESIS] or "no hypothesis"
