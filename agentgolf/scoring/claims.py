"""What a candidate claims: the nats of every token of one scoring pass, and which bytes each token stands for."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agentgolf.errors import CandidateError
from agentgolf.scoring.scorer import Predictor

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
MAX_PIECE_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """A document an entry: token ids (n,), their nats (n,), the bytes of text that each stands for (n,)."""

    ids: tuple[Ids, ...]
    nats: tuple[Floats, ...]
    lengths: tuple[Ids, ...]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.ids))

    @property
    def text_bytes(self) -> int:
        return int(sum(lengths.sum() for lengths in self.lengths))

    def to_bytes(self) -> bytes:
        out = io.BytesIO()
        np.savez_compressed(
            out,
            counts=np.array([len(ids) for ids in self.ids], np.int64),
            ids=_joined(self.ids, np.int32),
            nats=_joined(self.nats, np.float32),
            lengths=_joined(self.lengths, np.int32),
        )
        return out.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> "Claims":
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            cuts = np.cumsum(stored["counts"])[:-1]
            ids, nats, lengths = (np.split(stored[key], cuts) for key in ("ids", "nats", "lengths"))
        return Claims(
            ids=tuple(part.astype(np.int32) for part in ids),
            nats=tuple(part.astype(np.float64) for part in nats),
            lengths=tuple(part.astype(np.int32) for part in lengths),
        )


def claim(predictor: Predictor, documents: Sequence[bytes], encoded: Sequence[Ids], nats: Sequence[Floats]) -> Claims:
    return Claims(ids=tuple(encoded), nats=tuple(nats), lengths=token_lengths(predictor, documents, encoded))


def token_lengths(predictor: Predictor, documents: Sequence[bytes], encoded: Sequence[Ids]) -> tuple[Ids, ...]:
    """Bytes that each token stands for, believed only where the tokens' own texts make up the documents.

    Else (a tokenizer whose tokens have no text of their own) a document is shared out evenly.
    """
    try:
        known = np.unique(np.concatenate(encoded)) if encoded else np.empty(0, np.int32)
        pieces = {int(i): predictor.decode(np.array([i], np.int32), MAX_PIECE_BYTES) for i in known}
    except CandidateError:
        pieces = {}
    lengths = []
    for document, ids in zip(documents, encoded, strict=True):
        texts = [pieces.get(int(i), b"") for i in ids]
        if b"".join(texts) == document:
            lengths.append(np.array([len(text) for text in texts], np.int32))
        else:
            edges = np.round(np.linspace(0, len(document), len(ids) + 1))
            lengths.append(np.diff(edges).astype(np.int32))
    return tuple(lengths)


def reference_nats(claims: Claims, references: Sequence[Claims]) -> tuple[Floats, ...]:
    """What the references' mean pays for the bytes of each of the candidate's tokens.

    Tokenizers may differ: within a reference's token its nats are shared out evenly over its bytes. Without
    a reference, eight bits a byte.
    """
    found = []
    for number, lengths in enumerate(claims.lengths):
        edges = np.concatenate(([0], np.cumsum(lengths)))
        paid = []
        for reference in references:
            known = np.concatenate(([0], np.cumsum(reference.lengths[number])))
            spent = np.concatenate(([0.0], np.cumsum(reference.nats[number])))
            paid.append(np.diff(np.interp(edges, known, spent)))
        found.append(np.mean(paid, axis=0) if paid else lengths * np.log(256.0))
    return tuple(found)


def _joined(parts: Sequence[npt.NDArray[np.generic]], kind: type[np.generic]) -> npt.NDArray[np.generic]:
    return np.concatenate([part.astype(kind) for part in parts]) if parts else np.empty(0, kind)
