"""Replays over a real socket: what honest and peeking predictors answer when the rest is withheld."""

from typing import Any

import numpy as np
import pytest

from agentgolf.decide import leak
from agentgolf.domain import Replays
from agentgolf.errors import CandidateError
from agentgolf.scoring.audit import claimed_gains, draw, every_token, replay
from agentgolf.scoring.claims import Claims, claim, reference_nats
from agentgolf.scoring.scorer import encode_documents, score_documents
from tests.scoring.test_scoring import Uniform, served, serving

RNG = np.random.default_rng(5)
WORDS = [b"the ", b"quick ", b"brown ", b"fox ", b"jumps ", b"over ", b"lazy ", b"dogs. "]
DOCUMENTS = [b"".join(WORDS[i] for i in RNG.integers(0, 8, 400)) for _ in range(4)]
MIN_GAIN_BPB = 0.002


class Counting(Uniform):
    """An honest predictor that learns as it goes, within a document and from earlier ones."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = np.full((256, 256), 0.02)
        self.last = 0

    def begin_document(self) -> None:
        super().begin_document()
        self.last = 0

    def predict(self, tokens: Any) -> Any:
        rows = []
        for token in tokens:
            rows.append(np.log(self.counts[self.last] / self.counts[self.last].sum()))
            self.counts[self.last, token] += 1
            self.last = int(token)
        return np.array(rows, np.float32)


class Peeking(Counting):
    """Looks at the token in question at some positions, or at the one after it."""

    share, ahead = 0.01, 0

    def predict(self, tokens: Any) -> Any:
        logits = super().predict(tokens)
        for i in range(len(tokens) - self.ahead):
            if self.wants(i, tokens) and np.random.default_rng(i).random() < self.share:
                logits[i, tokens[i + self.ahead]] += 6
        return logits

    def wants(self, i: int, tokens: Any) -> bool:
        return True


class PeekingWhenUnwatched(Peeking):
    """Takes a short chunk for an audit, and behaves."""

    share = 0.05

    def wants(self, i: int, tokens: Any) -> bool:
        return len(tokens) > 1900


class Wordy(Counting):
    """Another tokenizer, whose tokens have texts of several bytes."""

    def encode(self, text: bytes) -> list[int]:
        words = text.split(b" ")
        return [WORDS.index(word + b" ") for word in words[:-1]]

    def decode(self, tokens: list[int]) -> bytes:
        return b"".join(WORDS[token] for token in tokens)


def claims_of(predictor: Any) -> Claims:
    with served(serving(predictor)) as channel:
        encoded = encode_documents(channel, DOCUMENTS)
        return claim(channel, DOCUMENTS, encoded, score_documents(channel, DOCUMENTS, encoded))


def audited(kind: type[Uniform], reference: Claims, by_gain: int = 200, seed: int = 0) -> Replays:
    claims = claims_of(kind())
    gains = claimed_gains(claims, reference_nats(claims, [reference]))
    rng = np.random.default_rng(seed)
    with served(serving(kind())) as channel:
        return replay(channel, claims, gains, draw(gains, rng, by_gain, 64), rng)


@pytest.fixture(scope="module")
def reference() -> Claims:
    return claims_of(Counting())


def test_claims_survive_storage(reference: Claims) -> None:
    again = Claims.from_bytes(reference.to_bytes())
    assert again.tokens == reference.tokens and again.text_bytes == sum(map(len, DOCUMENTS))
    assert all((a == b).all() for a, b in zip(again.ids, reference.ids, strict=True))
    np.testing.assert_allclose(np.concatenate(again.nats), np.concatenate(reference.nats), rtol=1e-6)


def test_an_honest_predictor_that_adapts_has_no_difference_at_all(reference: Claims) -> None:
    found = audited(Wordy, reference)
    assert found.claimed_nats > 0 and max(abs(item.difference_nats) for item in found.items) < 1e-6
    seen = leak.evaluate([found])
    assert (seen.lower_bpb, seen.overflows) == (0.0, 0) and abs(seen.mean_nats) < 1e-6
    assert seen.bound_bpb == pytest.approx(
        (found.claimed_nats * 4.7 / 200 + found.tokens * 0.002 * 7.6 / 64) / (np.log(2) * found.text_bytes), rel=0.05
    )


@pytest.mark.parametrize("kind", [Peeking, PeekingWhenUnwatched])
def test_one_who_peeks_now_and_then_is_seen(kind: type[Uniform], reference: Claims) -> None:
    seen = leak.evaluate([audited(kind, reference)])
    assert seen.lower_bpb > 0 and not seen.clean(MIN_GAIN_BPB)


def test_the_faked_gain_lies_between_the_bounds(reference: Claims) -> None:
    claimed, honest = claims_of(Peeking()), claims_of(Counting())
    faked = (np.concatenate(honest.nats) - np.concatenate(claimed.nats)).clip(0).sum() / np.log(2) / honest.text_bytes
    seen = leak.evaluate([audited(Peeking, reference)])
    assert seen.lower_bpb < faked < seen.bound_bpb


def test_lockstep_asks_every_token_and_finds_the_honest_score() -> None:
    documents = [DOCUMENTS[0][:300]]
    with served(serving(Peeking())) as channel:
        encoded = encode_documents(channel, documents)
        claims = claim(channel, documents, encoded, score_documents(channel, documents, encoded))
    gains = claimed_gains(claims, reference_nats(claims, []))
    with served(serving(Peeking())) as channel:
        found = replay(channel, claims, gains, every_token(claims), np.random.default_rng(0))
    with served(serving(Counting())) as channel:
        honest = score_documents(channel, documents, encode_documents(channel, documents))
    again = sum(part.sum() for part in claims.nats) + sum(item.difference_nats for item in found.items)
    # At 1% of the places the filler is peeked at instead, which costs a little more than honesty.
    assert len(found.items) == 300 and honest[0].sum() <= again < honest[0].sum() * 1.05


def test_tokens_are_drawn_where_the_gain_is_claimed() -> None:
    gains = (np.zeros(500), np.concatenate((np.zeros(100), np.full(10, 2.0), np.zeros(90))))
    drawn = draw(gains, np.random.default_rng(1), 50, 50)
    weighted = [question for question in drawn if question.by_gain]
    assert sum(q.times for q in weighted) == 50 and all(q.document == 1 and 100 <= q.position < 110 for q in weighted)
    assert {q.document for q in drawn if not q.by_gain} == {0, 1}


def test_nothing_of_the_token_or_after_it_is_sent_before_the_answer(reference: Claims) -> None:
    claims = claims_of(Counting())
    gains = claimed_gains(claims, reference_nats(claims, []))
    questions = draw(gains, np.random.default_rng(2), 30, 10)
    revealed: list[int] = []

    class Watching:
        def begin_document(self) -> None:
            revealed.append(0)

        def predict(self, ids: Any) -> Any:
            revealed[-1] += len(ids)

        def peek(self, ids: Any) -> Any:
            document = claims.ids[len(revealed) - 1]
            known = document[revealed[-1] : revealed[-1] + len(ids) - 1]
            assert (ids[:-1] == known).all()
            peeked.append((len(revealed) - 1, revealed[-1] + len(ids) - 1))
            return np.zeros((1, 256), np.float32)

    peeked: list[tuple[int, int]] = []
    replay(Watching(), claims, gains, questions, np.random.default_rng(3))
    assert peeked == sorted((q.document, q.position) for q in questions)


def test_a_tokenizer_without_texts_shares_a_document_out_evenly() -> None:
    class Stateful(Counting):
        def decode(self, tokens: list[int]) -> bytes:
            if len(tokens) == 1:
                raise ValueError("one token has no text")
            return bytes(tokens)

    claims = claims_of(Stateful())
    assert claims.text_bytes == sum(map(len, DOCUMENTS)) and set(np.concatenate(claims.lengths)) == {1}


def test_a_predictor_that_cannot_be_copied_says_so(reference: Claims) -> None:
    class Stuck(Counting):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("no copies")

    with pytest.raises(CandidateError, match="cannot be copied: TypeError: no copies"):
        audited(Stuck, claims_of(Wordy()))
