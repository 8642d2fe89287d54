"""Replays: asks a fresh predictor again, with the token in question and every later one withheld.

The order of questions makes a false answer impossible, whatever the candidate's process does: what is
asked about a token is always asked before that token is revealed. docs/threat-model.md derives the bound.
"""

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from agentgolf.domain import Replay, Replays
from agentgolf.scoring.claims import Claims, Floats, Ids
from agentgolf.scoring.scorer import chunks, nats


class Peeker(Protocol):
    def begin_document(self) -> None: ...
    def predict(self, ids: Ids) -> npt.NDArray[np.float32]: ...
    def peek(self, ids: Ids) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A token to ask about again; `times` counts how often it was drawn."""

    document: int
    position: int
    by_gain: bool
    times: int = 1


def generator(secret: bytes, artifact_sha256: str) -> np.random.Generator:
    """Chance that nobody without the secret can foresee, and that the artifact has a part in."""
    digest = hmac.new(secret, artifact_sha256.encode(), "sha256").digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def claimed_gains(claims: Claims, reference: Sequence[Floats]) -> tuple[Floats, ...]:
    """Nats that the candidate claims to save at each token over the reference; none below zero."""
    return tuple(np.maximum(paid - own, 0.0) for paid, own in zip(reference, claims.nats, strict=True))


def draw(gains: Sequence[Floats], rng: np.random.Generator, by_gain: int, anywhere: int) -> list[Question]:
    """`by_gain` tokens in proportion to their claimed gain and `anywhere` uniformly, each with replacement."""
    flat = np.concatenate(gains) if gains else np.empty(0)
    starts = np.concatenate(([0], np.cumsum([len(part) for part in gains])))
    if not len(flat):
        return []
    total = flat.sum()
    weighted = rng.choice(len(flat), by_gain, p=flat / total) if total > 0 else np.empty(0, np.int64)
    questions = []
    for picked, kind in ((weighted, True), (rng.integers(0, len(flat), anywhere), False)):
        for place, times in zip(*np.unique(picked, return_counts=True), strict=True):
            document = int(np.searchsorted(starts, place, side="right")) - 1
            questions.append(
                Question(document=document, position=int(place - starts[document]), by_gain=kind, times=int(times))
            )
    return questions


def every_token(claims: Claims) -> list[Question]:
    """Lockstep: each token is asked about before it is revealed."""
    return [
        Question(document=document, position=position, by_gain=False)
        for document, ids in enumerate(claims.ids)
        for position in range(len(ids))
    ]


def replay(
    predictor: Peeker,
    claims: Claims,
    gains: Sequence[Floats],
    questions: Sequence[Question],
    rng: np.random.Generator,
    on_replay: Callable[[int], None] = lambda done: None,
) -> Replays:
    """Walk through the documents as in the scoring pass and ask the questions on the way.

    Raises `CandidateError` when the predictor fails.
    """
    wanted: dict[int, list[Question]] = {}
    for question in sorted(questions, key=lambda q: (q.document, q.position)):
        wanted.setdefault(question.document, []).append(question)
    filler = np.unique(np.concatenate(claims.ids)) if claims.ids else np.empty(0, np.int32)
    items: list[Replay] = []
    for document in range(max(wanted, default=-1) + 1):
        predictor.begin_document()
        start = 0
        for chunk in chunks(claims.ids[document]):
            end = start + len(chunk)
            for question in (q for q in wanted.get(document, []) if start <= q.position < end):
                at = question.position - start
                asked = np.append(chunk[:at], rng.choice(filler)).astype(np.int32)
                again = float(nats(predictor.peek(asked).copy(), chunk[at : at + 1])[0])
                items.append(
                    Replay(
                        gain_nats=float(gains[document][question.position]),
                        difference_nats=again - float(claims.nats[document][question.position]),
                        by_gain=question.by_gain,
                        times=question.times,
                    )
                )
                on_replay(len(items))
            start = end
            predictor.predict(chunk)
    return Replays(
        items=tuple(items),
        tokens=claims.tokens,
        text_bytes=claims.text_bytes,
        claimed_nats=float(sum(part.sum() for part in gains)),
    )
