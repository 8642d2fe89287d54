"""What a run tells whoever watches it. The loop calls; a view overrides what it shows."""

import re
from dataclasses import dataclass

from agentgolf.ledger.store import Row

_CURVE = re.compile(r"step:(\d+)\b.*?share:([0-9.]+).*?train_loss:([0-9.]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One printed line of a training script: for the eye only, never for the score."""

    step: int
    share: float
    train_loss: float


def curve_point(line: str) -> CurvePoint | None:
    match = _CURVE.search(line)
    if not match:
        return None
    return CurvePoint(step=int(match[1]), share=float(match[2]), train_loss=float(match[3]))


class Observer:
    """Watches nothing. Methods may be called from any thread."""

    def stage(self, trial: int, what: str) -> None:
        """A trial has reached a stage; `what` is a few words."""

    def curve(self, trial: int, label: str, point: CurvePoint) -> None:
        """A running training printed its progress."""

    def replicate(self, row: Row) -> None:
        """A replicate is finished."""

    def decided(self, row: Row) -> None:
        """A trial is finished."""

    def note(self, text: str) -> None:
        """Something that the user should know."""
