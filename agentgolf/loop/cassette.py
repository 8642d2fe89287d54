"""Keeps a run's replies in a file, and plays them to another run that asks no model.

A line is one reply: trial, position, the hash of the request, and what came back.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentgolf.domain import ModelReply, ToolCall
from agentgolf.errors import ModelError, UsageError


class Recorder:
    """Appends every reply to a file as it arrives."""

    def __init__(self, path: Path) -> None:
        """Raises `UsageError` when the file cannot be written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise UsageError(f"the recording {path} cannot be written: {error.strerror}") from error
        self._path = path

    def keep(self, trial: int, position: int, request_sha256: str, reply: ModelReply) -> None:
        line = {
            "trial": trial,
            "position": position,
            "request_sha256": request_sha256,
            "text": reply.text,
            "tool_calls": [[call.id, call.name, call.arguments] for call in reply.tool_calls],
            "input_tokens": reply.input_tokens,
            "output_tokens": reply.output_tokens,
            "cached_tokens": reply.cached_tokens,
            "seconds": reply.seconds,
            "finish": reply.finish,
            "cost_usd": reply.cost_usd,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class Recording:
    """The replies of a file, by trial and position; of several at one place, the one to the very same request."""

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        """Raises `UsageError`, with the line, when the file is missing or malformed."""
        self._path, self._note = path, note
        self._replies: dict[tuple[int, int], dict[str, ModelReply]] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the recording {path} cannot be read: {error}") from error
        for number, line in enumerate(lines, 1):
            try:
                self._add(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(f"{path}:{number}: not a recorded reply ({type(error).__name__}: {error})") from error

    def _add(self, line: dict[str, Any]) -> None:
        reply = ModelReply(
            text=str(line["text"]),
            input_tokens=line["input_tokens"],
            output_tokens=line["output_tokens"],
            cached_tokens=int(line.get("cached_tokens", 0)),
            seconds=0.0,
            finish=str(line["finish"]),
            tool_calls=tuple(ToolCall(id=a, name=b, arguments=c) for a, b, c in line["tool_calls"]),
            cost_usd=0.0,
        )
        place = self._replies.setdefault((int(line["trial"]), int(line["position"])), {})
        place[str(line["request_sha256"])] = reply

    def reply(self, trial: int, position: int, request_sha256: str) -> ModelReply:
        """Raises `ModelError` when there is none for this place of the conversation."""
        found = self._replies.get((trial, position))
        if not found:
            raise ModelError(
                f"{self._path} has no reply for trial {trial} at place {position}: the run has left the recorded one; "
                "go on with the model: agentgolf resume"
            )
        if request_sha256 not in found:
            self._note(f"trial {trial} is asked a little differently than in {self._path}; its recorded reply serves")
            return list(found.values())[-1]
        return found[request_sha256]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape:
    """Where replies go, and where they come from; either may be missing."""

    recorder: Recorder | None = None
    recording: Recording | None = None


NO_TAPE = Tape()


def open_tape(record: Path | None, replay: Path | None, note: Callable[[str], None]) -> Tape:
    """Raises `UsageError` when either file is of no use."""
    return Tape(
        recording=Recording(replay, note) if replay is not None else None,
        recorder=Recorder(record) if record is not None else None,
    )
