"""Asks a language model behind any OpenAI-compatible server, over the Responses or the Chat Completions protocol.

A call is written to the `CallLog` before it is sent and its reply before it is used; the same question in
the same place of the same trial is answered from the log, so a resume repeats no paid call. The key is
handed to the SDK and to nothing else.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import tenacity

from agentgolf.domain import ModelReply
from agentgolf.errors import ModelError, ModelUnavailableError, PromptTooLongError

if TYPE_CHECKING:
    import openai

ATTEMPTS = 8
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 2.0, 120.0
MAX_REPLY_CHARACTERS = 2_000_000
Wire = Literal["responses", "chat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Which model, and where. Without `base_url` it is OpenAI's own server; `api_key` never shows in a repr."""

    model: str
    api_key: str = field(repr=False)
    base_url: str | None = None
    wire: Wire = "responses"
    reasoning_effort: str | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    timeout_seconds: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


class CallLog(Protocol):
    """Where the calls of one trial are kept, in order."""

    def recall(self, position: int, request_sha256: str) -> ModelReply | None:
        """The reply to this very request at this place of the conversation, if there is one."""

    def sent(self, position: int, request: Mapping[str, Any], request_sha256: str) -> int:
        """A request is about to go out; its number."""

    def answered(self, call: int, reply: ModelReply) -> None: ...
    def failed(self, call: int, said: str) -> None: ...


class NoLog:
    """Keeps nothing."""

    def recall(self, position: int, request_sha256: str) -> ModelReply | None:
        return None

    def sent(self, position: int, request: Mapping[str, Any], request_sha256: str) -> int:
        return position

    def answered(self, call: int, reply: ModelReply) -> None:
        pass

    def failed(self, call: int, said: str) -> None:
        pass


class Model:
    """`ask` blocks until the model has answered, whatever that takes within bounds.

    `note` is told of every wait.
    """

    def __init__(self, endpoint: Endpoint, note: Callable[[str], None] = lambda _: None) -> None:
        self.endpoint, self._note = endpoint, note

    def ask(self, messages: Sequence[Message], log: CallLog, position: int) -> ModelReply:
        """The model's answer, `position`-th of the trial's conversation.

        Raises `PromptTooLongError`, `ModelUnavailableError` after many attempts, and `ModelError` when asking
        again cannot help.
        """
        request = self._request(messages)
        sha256 = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        known = log.recall(position, sha256)
        if known is not None:
            return known
        call = log.sent(position, request, sha256)
        try:
            reply = self._with_retries(request)
        except ModelError as error:
            log.failed(call, str(error))
            raise
        log.answered(call, reply)
        return reply

    def _request(self, messages: Sequence[Message]) -> dict[str, Any]:
        end = self.endpoint
        optional: dict[str, Any]
        turns = [dataclasses.asdict(message) for message in messages]
        if end.wire == "responses":
            request: dict[str, Any] = {"model": end.model, "input": turns, "store": False}
            optional = {
                "reasoning": {"effort": end.reasoning_effort} if end.reasoning_effort else None,
                "max_output_tokens": end.max_output_tokens,
            }
        else:
            request = {"model": end.model, "messages": turns, "stream_options": {"include_usage": True}}
            optional = {"reasoning_effort": end.reasoning_effort, "max_tokens": end.max_output_tokens}
        optional["temperature"] = end.temperature
        return {**request, "stream": True, **{key: value for key, value in optional.items() if value is not None}}

    def _with_retries(self, request: Mapping[str, Any]) -> ModelReply:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransientError),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=self._wait,
            before_sleep=lambda state: self._note(
                f"the model: {state.outcome.exception() if state.outcome else ''}; asking again in "
                f"{state.next_action.sleep if state.next_action else 0:.0f} s"
            ),
            reraise=True,
        )
        try:
            return retrying(self._once, request)
        except _TransientError as error:
            raise ModelUnavailableError(
                f"the model did not answer in {ATTEMPTS} attempts; the last: {error}"
            ) from error

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        told = error.retry_after_seconds if isinstance(error, _TransientError) else None
        if told is not None:
            return min(told, MAX_WAIT_SECONDS)
        return float(min(FIRST_WAIT_SECONDS * 2 ** (state.attempt_number - 1), MAX_WAIT_SECONDS))

    def _once(self, request: Mapping[str, Any]) -> ModelReply:
        import httpx2
        import openai

        end, started = self.endpoint, time.monotonic()
        client = openai.OpenAI(api_key=end.api_key, base_url=end.base_url, timeout=end.timeout_seconds, max_retries=0)
        try:
            with client:
                create: Any = client.responses.create if end.wire == "responses" else client.chat.completions.create
                read = _read_responses if end.wire == "responses" else _read_chat
                text, finish, usage = read(create(**request))
        except openai.APIStatusError as error:
            raise _status_error(error, end) from error
        except (openai.APIConnectionError, openai.APITimeoutError) as error:
            raise _TransientError(f"{end.base_url or 'the server'} cannot be reached ({error})") from error
        except openai.APIError as error:  # a failure in the middle of a stream has no status
            raise _TransientError(f"the server broke off: {error.message[:300]}") from error
        except (httpx2.HTTPError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise _TransientError(f"the server's stream broke: {error}") from error
        if finish is None:
            raise _TransientError("the server's stream ended before its reply did")
        if not text.strip():
            raise _TransientError("the model's reply is empty")
        return ModelReply(
            text=text,
            input_tokens=usage[0],
            output_tokens=usage[1],
            seconds=time.monotonic() - started,
            finish=finish,
        )


class _TransientError(Exception):
    """Asking again may help."""

    def __init__(self, said: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(said)
        self.retry_after_seconds = retry_after_seconds


Streamed = tuple[str, str | None, tuple[int | None, int | None]]


def _read_chat(stream: Iterable[Any]) -> Streamed:
    parts = _Parts()
    finish: str | None = None
    usage: tuple[int | None, int | None] = (None, None)
    for chunk in stream:
        for choice in chunk.choices or []:
            parts.add(choice.delta.content if choice.delta else None)
            finish = choice.finish_reason or finish
        if chunk.usage is not None:
            usage = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
    return parts.text(), finish, usage


def _read_responses(stream: Iterable[Any]) -> Streamed:
    parts = _Parts()
    finish: str | None = None
    usage: tuple[int | None, int | None] = (None, None)
    for event in stream:
        if event.type == "response.output_text.delta":
            parts.add(event.delta)
        elif event.type in ("response.completed", "response.incomplete"):
            finish = "stop" if event.type == "response.completed" else "length"
            if event.response.usage is not None:
                usage = event.response.usage.input_tokens, event.response.usage.output_tokens
        elif event.type == "response.failed":
            said = event.response.error.message if event.response.error else "no reason given"
            raise _TransientError(f"the server gave up: {said[:300]}")
        elif event.type == "error":
            raise _TransientError(f"the server gave up: {str(event.message)[:300]}")
    return parts.text(), finish, usage


class _Parts:
    """Pieces of a reply, up to a bound."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._room = MAX_REPLY_CHARACTERS

    def add(self, text: str | None) -> None:
        self._parts.append(text or "")
        self._room -= len(text or "")
        if self._room < 0:
            raise ModelError(f"the model's reply passed {MAX_REPLY_CHARACTERS:,} characters and was cut off")

    def text(self) -> str:
        return "".join(self._parts)


def _status_error(error: "openai.APIStatusError", end: Endpoint) -> Exception:
    """What a refusal means: wait, shorten, or give up."""
    said, status = str(error.message)[:300], error.status_code
    code = str(getattr(error, "code", "") or "")
    if status in (401, 403):
        return ModelError(f"the server refused the key for {end.model} (HTTP {status}); check the key's variable")
    if status == 404:
        return ModelError(
            f"the server has no model {end.model!r}, or not at {end.base_url or 'its usual address'}: {said}"
        )
    if code == "insufficient_quota":
        return ModelError(f"the account behind the key has no credit left: {said}")
    long = "context_length" in code or any(words in said for words in ("context length", "context size", "too long"))
    if status in (400, 413, 422) and long:
        return PromptTooLongError(f"the prompt is longer than {end.model} can read: {said}")
    if status in (408, 409, 429) or status >= 500:
        return _TransientError(f"HTTP {status}: {said}", _retry_after(error.response.headers.get("retry-after")))
    return ModelError(f"the server refused the request (HTTP {status}): {said}")


def _retry_after(value: str | None) -> float | None:
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        return None
