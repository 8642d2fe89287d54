"""The calls of one trial to a language model, and to tools with an effect, kept in the ledger."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from agentgolf.domain import ModelReply, ToolCall
from agentgolf.errors import ProposerExhaustedError
from agentgolf.ledger.store import Ledger, Row, now

# US dollars a million tokens: in, out, and in when the server had read them before.
Prices = Mapping[str, tuple[float, float, float]]


class TrialCalls:
    """Refuses a new call once the run has spent what it may. Belongs to the thread that writes the ledger."""

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
        cost = reply.cost_usd
        if cost is None and price is not None and reply.input_tokens is not None and reply.output_tokens is not None:
            cached = min(reply.cached_tokens, reply.input_tokens)
            parts = zip((reply.input_tokens - cached, reply.output_tokens, cached), price, strict=True)
            cost = sum(tokens / 1e6 * dollars for tokens, dollars in parts)
        self._ledger.call_ended(
            call,
            {
                "state": "answered",
                "finish": reply.finish,
                "input_tokens": reply.input_tokens,
                "output_tokens": reply.output_tokens,
                "cached_tokens": reply.cached_tokens,
                "cost_usd": cost,
                "seconds": reply.seconds,
                "tool_calls_json": json.dumps([asdict(one) for one in reply.tool_calls]) if reply.tool_calls else None,
                "answered_at": now(),
            },
            reply.text,
        )

    def failed(self, call: int, said: str) -> None:
        self._ledger.call_ended(call, {"state": "failed", "said": said, "answered_at": now()}, None)

    @staticmethod
    def key(asked: str) -> str:
        """What stands for a request, or for a tool's arguments."""
        return hashlib.sha256(asked.encode()).hexdigest()

    def recall_tool(self, position: int, name: str, asked_sha256: str) -> str | None:
        rows = self._ledger.rows(
            "SELECT said FROM tool_uses WHERE run_id = ? AND trial_number = ? AND position = ? AND tool = ? "
            "AND asked_sha256 = ?",
            self._run["id"],
            self._number,
            position,
            name,
            asked_sha256,
        )
        return str(rows[0]["said"]) if rows else None

    def keep_tool(self, position: int, name: str, asked_sha256: str, said: str, seconds: float) -> None:
        values = {
            "run_id": self._run["id"],
            "trial_number": self._number,
            "position": position,
            "tool": name,
            "asked_sha256": asked_sha256,
            "said": said,
            "seconds": seconds,
            "used_at": now(),
        }
        self._ledger.insert("tool used", "tool_uses", values)

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
        cached_tokens=row["cached_tokens"] or 0,
        seconds=row["seconds"],
        finish=row["finish"],
        tool_calls=tuple(ToolCall(**one) for one in json.loads(row["tool_calls_json"] or "[]")),
    )
