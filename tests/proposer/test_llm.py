"""The model client against a real server: answers, faults, and what each fault becomes."""

import datetime
import email.utils
from typing import Any, get_args

import pytest

from agentgolf.domain import ModelReply
from agentgolf.errors import ModelError, ModelUnavailableError, PromptTooLongError
from agentgolf.proposer import llm
from agentgolf.proposer.llm import Model, NoLog
from agentgolf.proposer.wire import Endpoint, Message, Wire
from tests.proposer.model_server import KEY, Served, Turn, serving

WIRES = get_args(Wire)
HELLO = [Message(role="system", content="be brief"), Message(role="user", content="hello")]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "FIRST_WAIT_SECONDS", 0.001)


def model(served: Served, wire: Wire, **changes: Any) -> Model:
    endpoint = Endpoint(model="tiny", api_key=KEY, base_url=served.url, wire=wire, **changes)
    return Model(endpoint)


def ask(turns: list[Turn], wire: Wire, **changes: Any) -> tuple[ModelReply, Served]:
    """The last turn is repeated for ever."""
    with serving(lambda _, number: turns[min(number, len(turns) - 1)]) as served:
        return model(served, wire, **changes).ask(HELLO, NoLog(), 0), served


@pytest.mark.parametrize("wire", WIRES)
def test_an_answer_is_streamed_and_counted(wire: Wire) -> None:
    reply, served = ask([Turn(text="hello yourself, good sir")], wire, reasoning_effort="low", max_output_tokens=99)
    assert reply.text == "hello yourself, good sir" and reply.finish == "stop" and reply.seconds > 0
    assert (reply.input_tokens, reply.output_tokens) == (100, 20)
    assert served.keys == [f"Bearer {KEY}"] and served.requests[0]["stream"] is True
    sent = served.requests[0]
    assert (sent["input"] if wire == "responses" else sent["messages"])[1] == {"role": "user", "content": "hello"}
    assert (sent["reasoning"] == {"effort": "low"}) if wire == "responses" else (sent["reasoning_effort"] == "low")


@pytest.mark.parametrize("wire", WIRES)
def test_what_the_server_had_read_before_is_counted_apart(wire: Wire) -> None:
    reply, _ = ask([Turn(text="hi", cached_tokens=80)], wire)
    assert (reply.input_tokens, reply.output_tokens, reply.cached_tokens) == (100, 20, 80)


@pytest.mark.parametrize("wire", WIRES)
def test_a_server_that_counts_nothing_is_no_trouble(wire: Wire) -> None:
    reply, _ = ask([Turn(text="hi", usage=False)], wire)
    assert (reply.text, reply.input_tokens, reply.output_tokens) == ("hi", None, None)


FAULTS = {
    "busy": Turn(status=429, text="slow down"),
    "broken": Turn(status=500, text="oops"),
    "gateway": Turn(status=502, text="<html>"),
    "cut": Turn(text="half of an answer", cut=True),
    "garbage": Turn(text="hello", garbage=True),
    "empty": Turn(text=""),
    "blank": Turn(text="  \n "),
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_may_pass_is_asked_again_and_no_partial_answer_is_used(wire: Wire, fault: str) -> None:
    reply, served = ask([FAULTS[fault], FAULTS[fault], Turn(text="at last")], wire)
    assert reply.text == "at last" and len(served.requests) == 3


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_pass_is_one_sentence_after_a_bounded_number(
    wire: Wire, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm, "ATTEMPTS", 3)
    with pytest.raises(ModelUnavailableError, match="did not answer in 3 attempts; the last: ") as caught:
        ask([FAULTS[fault]], wire)
    assert KEY not in str(caught.value) and "\n" not in str(caught.value)


def test_retry_after_is_honoured() -> None:
    turns = [Turn(status=429, text="slow down", headers={"Retry-After": "0.6"}), Turn(text="now")]
    _, served = ask(turns, "chat")
    assert served.times[1] - served.times[0] >= 0.6


def test_retry_after_may_be_a_date() -> None:
    soon = email.utils.format_datetime(datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2), usegmt=True)
    _, served = ask([Turn(status=429, text="slow down", headers={"Retry-After": soon}), Turn(text="now")], "chat")
    assert served.times[1] - served.times[0] >= 0.9  # a date has whole seconds


def test_a_server_that_asks_for_an_hour_is_not_waited_for() -> None:
    with pytest.raises(ModelUnavailableError, match=r"asks to wait 60 minutes \(HTTP 429: .*come back later\)"):
        ask([Turn(status=429, text="come back later", headers={"Retry-After": "3600"})], "chat")


@pytest.mark.parametrize("value", ["nan", "soon", "-5"])
def test_a_retry_after_that_says_nothing_is_passed_over(value: str) -> None:
    reply, _ = ask([Turn(status=503, text="busy", headers={"Retry-After": value}), Turn(text="now")], "chat")
    assert reply.text == "now"


def test_a_slow_stream_is_waited_for_and_a_dead_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    reply, _ = ask([Turn(text="slowly but surely", pause_seconds=0.15)], "chat", timeout_seconds=0.5)
    assert reply.text == "slowly but surely"
    monkeypatch.setattr(llm, "ATTEMPTS", 2)
    with pytest.raises(ModelUnavailableError):
        ask([Turn(text="never", pause_seconds=1.5)], "chat", timeout_seconds=0.5)


def test_a_server_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "ATTEMPTS", 2)
    with pytest.raises(ModelUnavailableError, match="http://127.0.0.1:9/v1 cannot be reached"):
        model(Served("http://127.0.0.1:9/v1"), "chat").ask(HELLO, NoLog(), 0)


@pytest.mark.parametrize(
    ("turn", "kind", "said"),
    [
        (
            Turn(status=401, text="Incorrect API key provided: sk-the"),
            ModelError,
            "refused the key for tiny .HTTP 401.; check",
        ),
        (Turn(status=404, text="no such model"), ModelError, "has no model 'tiny'"),
        (Turn(status=429, text="no money", code="insufficient_quota"), ModelError, "has no credit left"),
        (
            Turn(status=400, text="maximum context length is 8", code="context_length_exceeded"),
            PromptTooLongError,
            "longer than tiny",
        ),
        (
            Turn(status=400, text="the request exceeds the available context size"),
            PromptTooLongError,
            "longer than tiny",
        ),
        (Turn(status=400, text="temperature?"), ModelError, "refused the request .HTTP 400.: .*temperature"),
    ],
)
@pytest.mark.parametrize("wire", WIRES)
def test_what_asking_again_cannot_mend_is_asked_once(wire: Wire, turn: Turn, kind: type[ModelError], said: str) -> None:
    with serving(lambda *_: turn) as served:
        with pytest.raises(kind, match=said) as caught:
            model(served, wire).ask(HELLO, NoLog(), 0)
        assert len(served.requests) == 1 and KEY not in str(caught.value)


def test_a_reply_of_megabytes_is_cut_off() -> None:
    with pytest.raises(ModelError, match="passed 2,000,000 characters"):
        ask([Turn(text="x" * 3_000_000)], "chat")


class Memory(NoLog):
    def __init__(self) -> None:
        self.kept: dict[tuple[int, str], ModelReply] = {}
        self.open: dict[int, tuple[int, str]] = {}
        self.said: list[str] = []

    def recall(self, position: int, request_sha256: str) -> ModelReply | None:
        return self.kept.get((position, request_sha256))

    def sent(self, position: int, request: Any, request_sha256: str) -> int:
        self.open[len(self.open)] = (position, request_sha256)
        return len(self.open) - 1

    def answered(self, call: int, reply: ModelReply) -> None:
        self.kept[self.open[call]] = reply

    def failed(self, call: int, said: str) -> None:
        self.said.append(said)


def test_a_call_that_is_on_record_is_not_made_again() -> None:
    log = Memory()
    with serving(lambda _, number: Turn(text=f"answer {number}")) as served:
        first = model(served, "chat").ask(HELLO, log, 0)
        again = model(served, "chat").ask(HELLO, log, 0)
        other = model(served, "chat").ask([*HELLO, Message(role="user", content="more")], log, 1)
    assert first == again and other.text == "answer 1" and len(served.requests) == 2


def test_the_key_is_in_no_repr() -> None:
    endpoint = Endpoint(model="tiny", api_key=KEY)
    assert KEY not in repr(endpoint) and KEY not in str(Model(endpoint).__dict__)


@pytest.mark.parametrize("wire", WIRES)
def test_a_model_that_writes_for_ever_is_cut_off_and_what_it_wrote_is_used(wire: Wire) -> None:
    """The server keeps a stream alive, so no read ever times out."""
    reply, served = ask([Turn(text="word " * 4, pause_seconds=0.4)], wire, reply_seconds=0.9)
    assert reply.finish == "cut off" and reply.text.startswith("word") and len(served.requests) == 1


@pytest.mark.parametrize("wire", WIRES)
def test_a_model_that_only_thinks_for_ever_is_given_up(wire: Wire) -> None:
    with pytest.raises(ModelUnavailableError, match=r"wrote for 0\.3 s and came to no end"):
        ask([Turn(text=" " * 8, pause_seconds=0.2)], wire, reply_seconds=0.3)
