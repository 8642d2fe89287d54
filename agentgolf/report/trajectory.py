"""The conversation that led to a trial: every request and reply, as they were sent."""

import json
from typing import Any

from rich.markup import escape
from rich.rule import Rule

from agentgolf.ledger.lineage import find_trial, read_blob
from agentgolf.ledger.store import Ledger
from agentgolf.report.tables import console, number

SHOWN = (
    "position",
    "model",
    "state",
    "said",
    "finish",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cost_usd",
    "seconds",
    "tool_calls_json",
    "sent_at",
)


def trajectory(ledger: Ledger, reference: str) -> list[dict[str, Any]]:
    """The calls of a trial in order. Each has only the messages that the call before it did not have."""
    run, trial = find_trial(ledger, reference)
    rows = ledger.rows(
        "SELECT * FROM calls WHERE run_id = ? AND trial_number = ? ORDER BY id", run["id"], trial["number"]
    )
    calls, shown = [], 0
    for row in rows:
        request = json.loads(read_blob(ledger, row["request_blob"]))
        messages = request.get("messages") or request.get("input") or []
        again = shown if len(messages) > shown else 0
        calls.append(
            {
                **{key: row[key] for key in SHOWN},
                "messages": messages[again:],
                "reply": read_blob(ledger, row["reply_blob"]),
            }
        )
        shown = len(messages)
    return calls


def print_trajectory(calls: list[dict[str, Any]]) -> None:
    if not calls:
        console().print("no model was asked for this trial")
    for count, call in enumerate(calls, 1):
        for message in call["messages"]:
            if message.get("role") != "assistant" and message.get("type") != "function_call":  # shown as replies
                role = message.get("role") or "tool"
                _part(f"{role} to {call['model']}, call {count}", message.get("content") or message.get("output") or "")
        again = f" ({call['cached_tokens']:,} known)" if call["cached_tokens"] else ""
        known = call["input_tokens"] is not None
        tokens = f"{call['input_tokens']:,} tokens in{again}, {call['output_tokens'] or 0:,} out, " if known else ""
        cost = f", ${call['cost_usd']:.4f}" if call["cost_usd"] is not None else ""
        if call["state"] == "answered":
            _part(f"reply, call {count}: {tokens}{number(call['seconds'], 1)} s{cost}", _said(call))
        else:
            _part(f"call {count} {call['state']}", call["said"] or "no answer is on record")


def _said(call: dict[str, Any]) -> str:
    """What the model wrote, and the tools that it called."""
    used = json.loads(call["tool_calls_json"] or "[]")
    return "\n".join([call["reply"]] * bool(call["reply"]) + [f"{one['name']} {_laid_out(one)}" for one in used])


def _laid_out(call: dict[str, str]) -> str:
    """A tool's arguments, long texts with their own line breaks."""
    try:
        given = json.loads(call["arguments"], strict=False)
    except ValueError:
        return call["arguments"]
    return json.dumps(given, indent=1, ensure_ascii=False).replace("\\n", "\n")


def _part(title: str, text: str) -> None:
    console().print(Rule(escape(title), align="left"))
    shown = "".join(c for c in text if c in "\n\t" or c.isprintable())
    console().print(shown, markup=False, highlight=False)
