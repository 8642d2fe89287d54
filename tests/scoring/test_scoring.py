"""The trusted scorer, over a real socket, against honest and dishonest predictors."""

import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from agentgolf.domain import Outcome, Score, Split
from agentgolf.errors import CandidateError
from agentgolf.scoring import predictor as harness
from agentgolf.scoring.channel import Channel
from agentgolf.scoring.scorer import CHUNK_TOKENS, encode_documents, nats, score_documents

DOCUMENTS = [b"hello world", b"\x00\xff bytes \x80", b"x" * 5000, b""]


class Uniform:
    """Bytes as tokens, every one as likely."""

    vocab_size = 256

    def __init__(self) -> None:
        self.asked: list[int] = []

    def encode(self, text: bytes) -> list[int]:
        return list(text)

    def decode(self, tokens: list[int]) -> bytes:
        return bytes(tokens)

    def begin_document(self) -> None:
        self.asked.append(0)

    def predict(self, tokens: Any) -> Any:
        self.asked[-1] += len(tokens)
        return np.zeros((len(tokens), 256), np.float32)


@contextmanager
def served(serve: Callable[[Any], None], deadline_seconds: float = 10.0) -> Iterator[Channel]:
    """A channel with `serve(socket path)` in a thread at its other end."""
    with Channel() as channel:
        thread = threading.Thread(target=serve, args=(channel.folder / harness.SOCKET,), daemon=True)
        thread.start()
        channel.accept(lambda: not thread.is_alive(), time.monotonic() + deadline_seconds)
        yield channel
    thread.join(timeout=5)


def serving(predictor: Any) -> Callable[[Any], None]:
    return lambda path: harness.serve(path, predictor, lambda ids: ids)


def score(predictor: Any) -> list[float]:
    with served(serving(predictor)) as channel:
        return [float(part.sum()) for part in score_documents(channel, DOCUMENTS, encode_documents(channel, DOCUMENTS))]


def test_a_uniform_predictor_pays_eight_bits_a_byte_for_each_token_once() -> None:
    predictor = Uniform()
    scores = score(predictor)
    assert scores == pytest.approx([len(d) * math.log(256) for d in DOCUMENTS])
    assert predictor.asked == [len(d) for d in DOCUMENTS]
    total = Score(
        split=Split.A,
        total_nats=sum(scores),
        text_bytes=sum(map(len, DOCUMENTS)),
        tokens=1,
        artifact_bytes=1,
        train_seconds=1,
        eval_seconds=1,
    )
    assert total.val_bpb == pytest.approx(8.0)


def test_nats_are_those_of_a_softmax() -> None:
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(50, 300)) * 30).astype(np.float32)
    targets = rng.integers(0, 300, 50).astype(np.int32)
    expected = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(50), targets].sum()
    assert nats(logits, targets).sum() == pytest.approx(expected, rel=1e-6)


def test_large_logits_do_not_overflow() -> None:
    assert nats(np.array([[1e30, 0.0]], np.float32), np.array([0], np.int32)) == 0.0


def test_no_question_is_longer_than_a_chunk() -> None:
    predictor = Uniform()
    longest = 0
    original = predictor.predict

    def predict(tokens: Any) -> Any:
        nonlocal longest
        longest = max(longest, len(tokens))
        return original(tokens)

    predictor.predict = predict  # type: ignore[method-assign]
    score(predictor)
    assert longest == CHUNK_TOKENS


class Lossy(Uniform):
    def encode(self, text: bytes) -> list[int]:
        return list(text.lower().replace(b"h", b"j"))


class NotFinite(Uniform):
    def predict(self, tokens: Any) -> Any:
        logits = super().predict(tokens)
        logits[-1, 3] = np.inf
        return logits


class WrongShape(Uniform):
    def predict(self, tokens: Any) -> Any:
        return super().predict(tokens)[:, :100]


class TooFewRows(Uniform):
    def predict(self, tokens: Any) -> Any:
        return super().predict(tokens)[1:]


class OutOfRange(Uniform):
    def encode(self, text: bytes) -> list[int]:
        return [300 for _ in text]


class Raises(Uniform):
    def predict(self, tokens: Any) -> Any:
        raise RuntimeError("out of cheese")


class HugeVocabulary(Uniform):
    vocab_size = 1 << 24


class Bomb(Uniform):
    def encode(self, text: bytes) -> list[int]:
        return [1] * (100 * len(text) + 1000)


class Talkative(Uniform):
    def decode(self, tokens: list[int]) -> bytes:
        return bytes(10_000_000)


@pytest.mark.parametrize(
    ("kind", "outcome", "said"),
    [
        (Lossy, Outcome.INVALID, "tokenizer is lossy"),
        (NotFinite, Outcome.INVALID, "not finite"),
        (WrongShape, Outcome.INVALID, r"shape \(11, 100\), not \(11, 256\)"),
        (TooFewRows, Outcome.INVALID, "shape"),
        (OutOfRange, Outcome.INVALID, "token outside 0..255"),
        (Raises, Outcome.CRASHED, "RuntimeError: out of cheese"),
        (HugeVocabulary, Outcome.INVALID, "vocab_size"),
        (Bomb, Outcome.INVALID, "something else"),
        (Talkative, Outcome.INVALID, "something else"),
    ],
)
def test_each_breach_has_its_outcome_and_sentence(kind: type[Uniform], outcome: Outcome, said: str) -> None:
    with pytest.raises(CandidateError, match=said) as caught:
        score(kind())
    assert caught.value.outcome is outcome


def test_a_predictor_that_hangs_up_is_a_crash() -> None:
    def serve(path: Any) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.recv(100)

    with pytest.raises(CandidateError, match="ended before it had answered") as caught, served(serve):
        pass
    assert caught.value.outcome is Outcome.CRASHED


def test_a_predictor_that_never_connects_or_never_answers_times_out() -> None:
    release = threading.Event()

    def silent(path: Any) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            release.wait(20)

    for serve in (lambda path: release.wait(20), silent):
        with pytest.raises(CandidateError) as caught, served(serve, deadline_seconds=0.5):  # type: ignore[arg-type]
            pass
        assert caught.value.outcome is Outcome.TIMED_OUT
    release.set()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.booleans())
def test_garbage_on_the_wire_is_a_candidate_error_and_never_a_hang(garbage: bytes, framed: bool) -> None:
    def serve(path: Any) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(struct.pack("<4sII", b"DONE", 256, 0))
            connection.sendall(struct.pack("<4sII", b"TOKS", 0, len(garbage)) + garbage if framed else garbage)

    try:
        with served(serve, deadline_seconds=2.0) as channel:
            ids = channel.encode(b"hello")
            assert framed and len(ids) * 4 == len(garbage)
    except CandidateError:
        pass


def test_the_score_refuses_what_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="total_nats"):
        Score(
            split=Split.A,
            total_nats=math.nan,
            text_bytes=1,
            tokens=1,
            artifact_bytes=1,
            train_seconds=1,
            eval_seconds=1,
        )
