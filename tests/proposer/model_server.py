"""A real HTTP server on the loopback that speaks both OpenAI protocols, and misbehaves on request."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-the-secret-key"


@dataclass(kw_only=True)
class Turn:
    """One answer; `tool_calls` are names and arguments. `status` other than 200 sends `text` as the error's message; `cut` ends a stream early."""

    text: str = ""
    tool_calls: list[tuple[str, str]] = field(default_factory=list)
    status: int = 200
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    garbage: bool = False
    usage: bool = True
    cached_tokens: int = 0
    pause_seconds: float = 0.0


@dataclass
class Served:
    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


@contextlib.contextmanager
def serving(answer: Callable[[dict[str, Any], int], Turn]) -> Iterator[Served]:
    """`answer` gets a request and how many came before it."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            number = len(served.requests)
            served.requests.append(body)
            served.keys.append(self.headers.get("Authorization", ""))
            served.times.append(time.monotonic())
            turn = answer(body, number)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if turn.status != 200:
                    self._send_error(turn)
                else:
                    self._stream(turn, self.path.endswith("/responses"), body["model"])

        def _send_error(self, turn: Turn) -> None:
            said = json.dumps({"error": {"message": turn.text, "code": turn.code, "type": "t", "param": None}}).encode()
            self.send_response(turn.status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(said)),
                **turn.headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        def _stream(self, turn: Turn, responses: bool, model: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            events = list(_responses(turn, model) if responses else _chat(turn, model))
            for event in events[: len(events) // 2] if turn.cut else events:
                time.sleep(turn.pause_seconds)
                name = f"event: {event['type']}\n" if responses else ""
                data = "{not json" if turn.garbage else json.dumps(event)
                self.wfile.write(f"{name}data: {data}\n\n".encode())
                self.wfile.flush()
            if not responses and not turn.cut:
                self.wfile.write(b"data: [DONE]\n\n")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Served(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


def _pieces(text: str) -> list[str]:
    size = max(1, len(text) // 4)
    return [text[i : i + size] for i in range(0, len(text), size)]


def _chat(turn: Turn, model: str) -> Iterator[dict[str, Any]]:
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": piece} for piece in _pieces(turn.text)]
    for index, (name, arguments) in enumerate(turn.tool_calls):
        head = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [head]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": part}}]} for part in _pieces(arguments)]
    for delta in deltas:
        yield {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    finish = "tool_calls" if turn.tool_calls else "stop"
    yield {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    if turn.usage:
        usage: dict[str, Any] = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        if turn.cached_tokens:
            usage["prompt_tokens_details"] = {"cached_tokens": turn.cached_tokens}
        yield {**base, "choices": [], "usage": usage}


def _responses(turn: Turn, model: str) -> Iterator[dict[str, Any]]:
    response: dict[str, Any] = {
        "id": "r", "object": "response", "created_at": 1, "model": model, "status": "in_progress", "output": [],
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None, "incomplete_details": None,
        "instructions": None, "metadata": {}, "temperature": 1, "top_p": 1, "usage": None,
    }  # fmt: skip
    yield {"type": "response.created", "sequence_number": 0, "response": response}
    for number, piece in enumerate(_pieces(turn.text), 1):
        yield {
            "type": "response.output_text.delta", "sequence_number": number, "item_id": "m", "output_index": 0,
            "content_index": 0, "delta": piece, "logprobs": [],
        }  # fmt: skip
    for number, (name, arguments) in enumerate(turn.tool_calls, 50):
        item = {
            "type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "name": name,
            "arguments": arguments, "status": "completed",
        }  # fmt: skip
        yield {"type": "response.output_item.done", "sequence_number": number, "output_index": 1, "item": item}
    usage = {
        "input_tokens": 100, "output_tokens": 20, "total_tokens": 120,
        "input_tokens_details": {"cached_tokens": turn.cached_tokens}, "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    done = {**response, "status": "completed", "usage": usage if turn.usage else None}
    yield {"type": "response.completed", "sequence_number": 99, "response": done}
