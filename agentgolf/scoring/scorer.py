"""The trusted scorer: targets, softmax, byte count. Plain numpy, on the host, outside every sandbox.

Normalization, the byte count and scoring each token once hold by construction: the predictor gives
logits, and everything else happens here, left to right, over raw bytes that it never had.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from agentgolf.domain import Outcome
from agentgolf.errors import CandidateError

# Tokens of one question: bounds the memory of the answer (4 bytes x vocabulary x this).
CHUNK_TOKENS = 2048


class Encoder(Protocol):
    def encode(self, text: bytes) -> npt.NDArray[np.int32]: ...


class Predictor(Protocol):
    def begin_document(self) -> None: ...
    def predict(self, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]: ...
    def decode(self, ids: npt.NDArray[np.int32], length: int) -> bytes: ...


def encode_documents(encoder: Encoder, documents: Sequence[bytes]) -> list[npt.NDArray[np.int32]]:
    return [encoder.encode(document) for document in documents]


def nats(logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """-log softmax(logits)[target], (n,), of each row of logits (n, vocab); targets (n,)."""
    top = logits.max(axis=1, keepdims=True)
    shifted = logits - top
    picked = shifted[np.arange(len(targets)), targets].astype(np.float64)
    np.exp(shifted, out=shifted)
    return np.asarray(np.log(shifted.sum(axis=1, dtype=np.float64)) - picked)


def chunks(ids: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int32]]:
    """A document as it is asked about."""
    return [ids[start : start + CHUNK_TOKENS] for start in range(0, len(ids), CHUNK_TOKENS)]


def score_documents(
    predictor: Predictor, documents: Sequence[bytes], encoded: Sequence[npt.NDArray[np.int32]]
) -> list[npt.NDArray[np.float64]]:
    """Nats of each token of each document, scored once, left to right, before anything can adapt to it.

    Then checks, in the predictor's own process, which had nothing but tokens, that they decode to the
    text: a lossy tokenizer is `invalid`.
    """
    scores = []
    for ids in encoded:
        predictor.begin_document()
        parts = [nats(predictor.predict(chunk), chunk) for chunk in chunks(ids)]
        scores.append(np.concatenate(parts) if parts else np.empty(0))
    for number, (document, ids) in enumerate(zip(documents, encoded, strict=True)):
        if predictor.decode(ids, len(document)) != document:
            raise CandidateError(
                Outcome.INVALID,
                f"the tokenizer is lossy: held-out document {number} does not decode to its text",
            )
    return scores
