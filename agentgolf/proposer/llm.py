"""Asks a language model behind any OpenAI-compatible server, over the Responses or the Chat Completions protocol.

A call is written to the `CallLog` before it is sent and its reply before it is used; the same question in
the same place of the same trial is answered from the log, so a resume repeats no paid call. The key is
handed to the SDK and to nothing else.
"""

import contextlib
import email.utils
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import tenacity

from agentgolf.domain import ModelReply
from agentgolf.errors import ModelError, ModelUnavailableError, PromptTooLongError, UnsupportedFeatureError
from agentgolf.proposer.wire import CUT, BrokenStreamError, Endpoint, Message, Tool, read_stream, request_of

if TYPE_CHECKING:
    import openai

# What a server may lack, the request's key for it, and words of its refusal.
_FEATURES = (
    ("tools", "tools", ("tool", "function call", "jinja")),
    ("schemas", "response_format", ("response_format", "json_schema", "schema", "grammar", "structured")),
    ("schemas", "text", ("text.format", "json_schema", "schema", "grammar", "structured")),
)
ATTEMPTS = 8
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 2.0, 120.0
# A server that asks for more than this is taken for one that does not answer.
MAX_TOLD_SECONDS = 900.0


class CallLog(Protocol):
    """Where the calls of one trial are kept, in order."""

    def key(self, asked: str) -> str:
        """What stands for a request, or for a tool's arguments."""

    def recall(self, position: int, request_sha256: str) -> ModelReply | None:
        """The reply to this very request at this place of the conversation, if there is one."""

    def sent(self, position: int, request: Mapping[str, Any], request_sha256: str) -> int:
        """A request is about to go out; its number."""

    def recorded(self, position: int, request_sha256: str) -> ModelReply | None:
        """A reply from a recording that stands in for the model. Raises `ModelError` when it lacks this one."""

    def answered(self, call: int, reply: ModelReply) -> None: ...
    def failed(self, call: int, said: str) -> None: ...

    def tool(self, position: int, name: str, asked: str, use: Callable[[], str]) -> str:
        """What a tool said, when it was asked this at this place before; else what `use` says, kept first."""


class NoLog:
    """Keeps nothing."""

    def key(self, asked: str) -> str:
        return sha256_of(asked)

    def recall(self, position: int, request_sha256: str) -> ModelReply | None:
        return None

    def sent(self, position: int, request: Mapping[str, Any], request_sha256: str) -> int:
        return position

    def recorded(self, position: int, request_sha256: str) -> ModelReply | None:
        return None

    def answered(self, call: int, reply: ModelReply) -> None:
        pass

    def failed(self, call: int, said: str) -> None:
        pass

    def tool(self, position: int, name: str, asked: str, use: Callable[[], str]) -> str:
        return use()


class Model:
    """`ask` blocks until the model has answered, whatever that takes within bounds.

    `note` is told of every wait.
    """

    def __init__(self, endpoint: Endpoint, note: Callable[[str], None] = lambda _: None) -> None:
        self.endpoint, self._note = endpoint, note
        self._client: openai.OpenAI | None = None

    def close(self) -> None:
        """Hang up. A call that is still under way in another thread fails."""
        if self._client is not None:
            self._client.close()

    def ask(
        self,
        messages: Sequence[Message],
        log: CallLog,
        position: int,
        *,
        tools: Sequence[Tool] = (),
        schema: Mapping[str, Any] | None = None,
        must_call: bool = False,
    ) -> ModelReply:
        """The model's answer, `position`-th of the trial's conversation: text, calls of `tools`, or both.

        Raises `PromptTooLongError`, `UnsupportedFeatureError` when the server knows no tools or schemas,
        `ModelUnavailableError` after many attempts, and `ModelError` when asking again cannot help.
        """
        request = request_of(self.endpoint, messages, tools, schema, must_call=must_call)
        sha256 = log.key(json.dumps(request, sort_keys=True))
        known = log.recall(position, sha256)
        if known is not None:
            return known
        call = log.sent(position, request, sha256)
        try:
            reply = log.recorded(position, sha256) or self._with_retries(request)
        except ModelError as error:
            log.failed(call, str(error))
            raise
        log.answered(call, reply)
        return reply

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
            return told
        return float(min(FIRST_WAIT_SECONDS * 2 ** (state.attempt_number - 1), MAX_WAIT_SECONDS))

    def _once(self, request: Mapping[str, Any]) -> ModelReply:
        import httpx2
        import openai

        end, started = self.endpoint, time.monotonic()
        if self._client is None:  # making one reads all certificates of the machine
            self._client = openai.OpenAI(
                api_key=end.api_key, base_url=end.base_url, timeout=end.timeout_seconds, max_retries=0
            )
        client = self._client
        try:
            create: Any = client.responses.create if end.wire == "responses" else client.chat.completions.create
            # What has arrived when time is up is paid for, so it is used: a model can write for ever.
            read = read_stream(end.wire, create(**request), until=started + end.reply_seconds)
        except openai.APIStatusError as error:
            raise _status_error(error, end, asked=request) from error
        except (openai.APIConnectionError, openai.APITimeoutError) as error:
            raise _TransientError(f"{end.base_url or 'the server'} cannot be reached ({error})") from error
        except openai.APIError as error:  # a failure in the middle of a stream has no status
            raise _TransientError(f"the server broke off: {error.message[:300]}") from error
        except BrokenStreamError as error:
            raise _TransientError(str(error)) from error
        except (httpx2.HTTPError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise _TransientError(f"the server's stream broke: {error}") from error
        if read.finish == CUT and not read.text.strip() and not read.tool_calls:
            raise ModelUnavailableError(f"the model wrote for {end.reply_seconds:g} s and came to no end")
        if read.finish is None:
            raise _TransientError("the server's stream ended before its reply did")
        if not read.text.strip() and not read.tool_calls:
            raise _TransientError("the model's reply is empty")
        return ModelReply(
            text=read.text,
            input_tokens=read.usage.input,
            output_tokens=read.usage.output,
            cached_tokens=read.usage.cached,
            seconds=time.monotonic() - started,
            finish=read.finish,
            tool_calls=read.tool_calls,
        )


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class _TransientError(Exception):
    """Asking again may help."""

    def __init__(self, said: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(said)
        self.retry_after_seconds = retry_after_seconds


def _status_error(error: "openai.APIStatusError", end: Endpoint, asked: Mapping[str, Any]) -> Exception:
    """What a refusal means: wait, shorten, or give up."""
    said, status = str(error.message)[:300], error.status_code
    code = str(getattr(error, "code", "") or "")
    if status in (401, 403):
        return ModelError(f"the server refused the key for {end.model} (HTTP {status}); check the key's variable")
    for feature, key, words in _FEATURES:
        # A server that could not parse what its model wrote as a call does know tools.
        refused = any(word in said.lower() for word in words) and "parse" not in said.lower()
        if key in asked and status in (400, 404, 422, 500, 501) and refused:
            return UnsupportedFeatureError(f"the server knows no {feature}: {said}", feature)
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
        told = _retry_after(error.response.headers.get("retry-after"))
        if told is not None and told > MAX_TOLD_SECONDS:
            return ModelUnavailableError(f"the server asks to wait {told / 60:.0f} minutes (HTTP {status}: {said})")
        return _TransientError(f"HTTP {status}: {said}", told)
    return ModelError(f"the server refused the request (HTTP {status}): {said}")


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a number of them or from a date (RFC 9110, 10.2.3)."""
    if not value:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(value)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    with contextlib.suppress(ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None
