"""The two protocols of OpenAI-compatible servers: what a request looks like, and how its stream is read."""

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agentgolf.domain import ToolCall
from agentgolf.errors import ModelError

MAX_REPLY_CHARACTERS = 2_000_000
# How a reply ended that took too long.
CUT = "cut off"
Wire = Literal["responses", "chat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Which model, and where. Without `base_url` it is OpenAI's own server; `api_key` never shows in a repr.

    `timeout_seconds`: of silence. `reply_seconds`: for a whole reply, which is then cut off.
    """

    model: str
    api_key: str = field(repr=False)
    base_url: str | None = None
    wire: Wire = "responses"
    reasoning_effort: str | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    timeout_seconds: float = 600.0
    reply_seconds: float = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn. `tool_calls` are an assistant's; a `tool` message answers the call `tool_call_id`."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """What a model may call; `parameters` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the server counts them, None where it does not tell; `cached` of the `input` it had read before."""

    input: int | None = None
    output: int | None = None
    cached: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """A whole stream. `finish` is None when it ended before the reply did."""

    text: str
    finish: str | None
    usage: Usage
    tool_calls: tuple[ToolCall, ...]


class BrokenStreamError(Exception):
    """The server gave up in the middle of a reply."""


def request_of(
    end: Endpoint,
    messages: Sequence[Message],
    tools: Sequence[Tool],
    schema: Mapping[str, Any] | None,
    *,
    must_call: bool = False,
) -> dict[str, Any]:
    """What is sent. With a `schema` the reply must be JSON that it describes; with `must_call`, a call of a tool."""
    optional: dict[str, Any]
    if end.wire == "responses":
        items = [item for message in messages for item in _responses_items(message)]
        request: dict[str, Any] = {"model": end.model, "input": items, "store": False}
        form = {"type": "json_schema", "name": "reply", "schema": schema, "strict": True}
        optional = {
            "reasoning": {"effort": end.reasoning_effort} if end.reasoning_effort else None,
            "max_output_tokens": end.max_output_tokens,
            "tools": [{"type": "function", **_described(tool), "strict": False} for tool in tools] or None,
            "text": {"format": form} if schema else None,
        }
    else:
        turns = [_chat_turn(message) for message in messages]
        request = {"model": end.model, "messages": turns, "stream_options": {"include_usage": True}}
        form = {"name": "reply", "schema": schema, "strict": True}
        optional = {
            "reasoning_effort": end.reasoning_effort,
            "max_tokens": end.max_output_tokens,
            "tools": [{"type": "function", "function": _described(tool)} for tool in tools] or None,
            "response_format": {"type": "json_schema", "json_schema": form} if schema else None,
        }
    optional["temperature"] = end.temperature
    optional["tool_choice"] = "required" if must_call and tools else None
    return {**request, "stream": True, **{key: value for key, value in optional.items() if value is not None}}


def _described(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters}


def _chat_turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _responses_items(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": message.content}]
    said = [{"role": message.role, "content": message.content}] if message.content or not message.tool_calls else []
    return said + [
        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls
    ]


def read_stream(wire: Wire, stream: Any, until: float = math.inf) -> Streamed:
    """What has arrived by the end of the stream, or until then by the monotonic clock; `finish` is then `CUT`.

    Raises `BrokenStreamError` when the server says that it failed, `ModelError` past the bound on a reply.
    """
    late: list[bool] = []

    def events() -> Iterator[Any]:
        for event in stream:
            yield event
            if time.monotonic() > until:
                late.append(True)
                stream.close()
                return

    read = _read_responses(events()) if wire == "responses" else _read_chat(events())
    return dataclasses.replace(read, finish=CUT) if late and read.finish is None else read


def _read_chat(stream: Iterable[Any]) -> Streamed:
    parts = _Parts()
    calls: dict[int, dict[str, str]] = {}
    finish: str | None = None
    usage = Usage()
    for chunk in stream:
        for choice in chunk.choices or []:
            parts.add(choice.delta.content if choice.delta else None)
            for piece in (choice.delta.tool_calls or []) if choice.delta else []:
                call = calls.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
                call["id"] = piece.id or call["id"]
                if piece.function is not None:
                    call["name"] += piece.function.name or ""
                    call["arguments"] += parts.counted(piece.function.arguments)
            finish = choice.finish_reason or finish
        if chunk.usage is not None:
            told = chunk.usage.prompt_tokens_details
            usage = Usage(
                input=chunk.usage.prompt_tokens,
                output=chunk.usage.completion_tokens,
                cached=(told.cached_tokens if told else None) or 0,
            )
    made = [
        ToolCall(id=call["id"] or f"call_{at}", name=call["name"], arguments=call["arguments"])
        for at, call in sorted(calls.items())
    ]
    return Streamed(text=parts.text(), finish=finish, usage=usage, tool_calls=tuple(made))


def _read_responses(stream: Iterable[Any]) -> Streamed:
    parts = _Parts()
    calls: list[ToolCall] = []
    finish: str | None = None
    usage = Usage()
    for event in stream:
        if event.type == "response.output_text.delta":
            parts.add(event.delta)
        elif event.type == "response.output_item.done" and event.item.type == "function_call":
            arguments = parts.counted(event.item.arguments)
            calls.append(ToolCall(id=event.item.call_id, name=event.item.name, arguments=arguments))
        elif event.type in ("response.completed", "response.incomplete"):
            finish = "stop" if event.type == "response.completed" else "length"
            if event.response.usage is not None:
                counted = event.response.usage
                told = getattr(counted, "input_tokens_details", None)  # not every compatible server has it
                usage = Usage(
                    input=counted.input_tokens,
                    output=counted.output_tokens,
                    cached=(told.cached_tokens if told else None) or 0,
                )
        elif event.type == "response.failed":
            said = event.response.error.message if event.response.error else "no reason given"
            raise BrokenStreamError(f"the server gave up: {said[:300]}")
        elif event.type == "error":
            raise BrokenStreamError(f"the server gave up: {str(event.message)[:300]}")
    return Streamed(text=parts.text(), finish=finish, usage=usage, tool_calls=tuple(calls))


class _Parts:
    """Pieces of a reply, up to a bound."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._room = MAX_REPLY_CHARACTERS

    def add(self, text: str | None) -> None:
        self._parts.append(self.counted(text))

    def counted(self, text: str | None) -> str:
        self._room -= len(text or "")
        if self._room < 0:
            raise ModelError(f"the model's reply passed {MAX_REPLY_CHARACTERS:,} characters and was cut off")
        return text or ""

    def text(self) -> str:
        return "".join(self._parts)
