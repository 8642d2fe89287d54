"""No valid predictor beats the source of a text by much; pure functions.

For x drawn from Q and any sub-probability P: Pr[-log P(x) <= -log Q(x) - k nats] <= exp(-k) (Barron 1985;
Gruenwald 2007, section 3.3.1).
"""

import math

import numpy as np
import numpy.typing as npt

from agentgolf.domain import Exam


def examine(val_loss: float, q_nats: npt.NDArray[np.float64], tail_tokens: int) -> Exam:
    """`val_loss` nats a token, claimed; `q_nats` (n,) of every predicted token under Q.

    The script may have left out a tail of up to `tail_tokens`, we do not know which: the claim must beat Q
    over every possible length, and each length is a chance of its own (union bound).
    """
    tail = min(tail_tokens, len(q_nats) - 1)
    lengths = np.arange(len(q_nats) - tail, len(q_nats) + 1)
    totals = np.cumsum(q_nats)[lengths - 1]
    beaten = float((totals - val_loss * lengths).min())
    return Exam(
        tokens=len(q_nats),
        claimed_nats=val_loss * len(q_nats),
        q_nats=float(totals[-1]),
        beaten_nats=beaten,
        probability=min(1.0, math.exp(min(0.0, math.log(len(lengths)) - beaten))),
    )
