"""Reads the score that a script says it has, and checks what can be checked of it.

What a log says proves nothing: such a score is labelled wherever it appears.
"""

import math
import re
from dataclasses import dataclass

from agentgolf.domain import Outcome
from agentgolf.errors import CandidateError

# Scripts print rounded numbers, and may leave a tail of the text out.
BPB_TOLERANCE = 0.01
MAX_BPB, MAX_LOSS_NATS = 64.0, 64.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """`val_loss` is nats a token; `rounding_nats` by how much its printed digits may understate it."""

    val_bpb: float
    val_loss: float
    rounding_nats: float
    artifact_bytes: int


def read_report(log: str, *, val_bpb: str, val_loss: str, artifact_bytes: str) -> Reported:
    """The last number that each pattern finds. Raises `CandidateError` when one is missing or absurd."""
    loss = _last(log, "val_loss", val_loss, MAX_LOSS_NATS)
    return Reported(
        val_bpb=float(_last(log, "val_bpb", val_bpb, MAX_BPB)),
        val_loss=float(loss),
        rounding_nats=0.5 * 10.0 ** -len(loss.partition(".")[2]),
        artifact_bytes=int(float(_last(log, "artifact_bytes", artifact_bytes, 1e12))),
    )


def check_report(reported: Reported, *, tokens: int, text_bytes: int, counted_bytes: int) -> None:
    """Do loss, bpb and size agree with the raw counts and with the file that was collected?

    `tokens` predicted ones, `text_bytes` that they stand for, `counted_bytes` of artifact and code. Raises
    `CandidateError` with what does not agree.
    """
    follows = reported.val_loss / math.log(2) * tokens / text_bytes
    if abs(reported.val_bpb / follows - 1) > BPB_TOLERANCE:
        counted = text_bytes * follows / reported.val_bpb
        raise CandidateError(
            Outcome.INVALID,
            f"its val_bpb {reported.val_bpb:.4f} does not follow from its val_loss {reported.val_loss:.4f}: over "
            f"{tokens:,} tokens and {text_bytes:,} bytes that is {follows:.4f}; it must have counted "
            f"{counted / text_bytes:.3f} times the bytes",
        )
    if reported.artifact_bytes != counted_bytes:
        raise CandidateError(
            Outcome.INVALID,
            f"it reports {reported.artifact_bytes:,} bytes, and what was collected has {counted_bytes:,} with its code",
        )


def _last(log: str, name: str, pattern: str, most: float) -> str:
    found = re.findall(pattern, log)
    if not found:
        raise CandidateError(Outcome.INVALID, f"its log reports no {name} (pattern {pattern!r})")
    last = str(found[-1]).replace(",", "")
    if not re.fullmatch(r"\d+(\.\d+)?", last, re.ASCII) or not 0 < float(last) <= most:
        raise CandidateError(Outcome.INVALID, f"its log reports {name} as {last[:40]!r}, which is no such number")
    return last
