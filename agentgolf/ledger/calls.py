"""The calls of one trial to a language model, kept in the ledger."""

import json
from collections.abc import Mapping
from typing import Any

from agentgolf.domain import ModelReply
from agentgolf.errors import ProposerExhaustedError
from agentgolf.ledger.store import Ledger, Row, now

# US dollars a million tokens, in and out.
Prices = Mapping[str, tuple[float, float]]


class TrialCalls:
    """Serves as a proposer's `CallLog`. Refuses a new call once the run has spent what it may."""

    def __init__(self, ledger: Ledger, run: Row, trial_number: int, prices: Prices) -> None:
        self._ledger, self._run, self._number, self._prices = ledger, run, trial_number, prices

    def recall(self, position: int, request_sha256: str) -> ModelReply | None:
        rows = self._ledger.rows(
            "SELECT * FROM calls WHERE run_id = ? AND trial_number = ? AND position = ? AND request_sha256 = ? "
            "AND state = 'answered' ORDER BY id DESC LIMIT 1",
            self._run["id"],
            self._number,
            position,
            request_sha256,
        )
        return reply_of(self._ledger, rows[0]) if rows else None

    def sent(self, position: int, request: Mapping[str, Any], request_sha256: str) -> int:
        """Raises `ProposerExhaustedError` when the run's cost or tokens are used up."""
        self._check_spending()
        return self._ledger.call_sent(
            {
                "run_id": self._run["id"],
                "trial_number": self._number,
                "position": position,
                "model": request["model"],
                "request_sha256": request_sha256,
                "state": "sent",
                "sent_at": now(),
            },
            json.dumps(request, indent=1),
        )

    def answered(self, call: int, reply: ModelReply) -> None:
        price = self._prices.get(self._ledger.rows("SELECT model FROM calls WHERE id = ?", call)[0]["model"])
        known = price is not None and reply.input_tokens is not None and reply.output_tokens is not None
        self._ledger.call_ended(
            call,
            {
                "state": "answered",
                "finish": reply.finish,
                "input_tokens": reply.input_tokens,
                "output_tokens": reply.output_tokens,
                "cost_usd": (reply.input_tokens or 0) / 1e6 * price[0] + (reply.output_tokens or 0) / 1e6 * price[1]
                if known and price
                else None,
                "seconds": reply.seconds,
                "answered_at": now(),
            },
            reply.text,
        )

    def failed(self, call: int, said: str) -> None:
        self._ledger.call_ended(call, {"state": "failed", "said": said, "answered_at": now()}, None)

    def _check_spending(self) -> None:
        spent = self._ledger.rows(
            "SELECT coalesce(sum(cost_usd), 0) AS cost, coalesce(sum(input_tokens + output_tokens), 0) AS tokens "
            "FROM calls WHERE run_id = ?",
            self._run["id"],
        )[0]
        cost, tokens = self._run["max_cost_usd"], self._run["max_model_tokens"]
        if cost is not None and spent["cost"] >= cost:
            raise ProposerExhaustedError(f"the model has cost ${spent['cost']:.2f} of --max-cost ${cost:.2f}")
        if tokens is not None and spent["tokens"] >= tokens:
            raise ProposerExhaustedError(f"the model has used {spent['tokens']:,} of --max-tokens {tokens:,}")


def reply_of(ledger: Ledger, row: Row) -> ModelReply:
    return ModelReply(
        text=ledger.blobs.read(row["reply_blob"]).decode(),
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        seconds=row["seconds"],
        finish=row["finish"],
    )
