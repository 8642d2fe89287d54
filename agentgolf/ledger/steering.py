"""What people say to a run: suggestions, vetoes and pins."""

from agentgolf.domain import Steering
from agentgolf.ledger.store import Ledger, Row, now


def suggest(ledger: Ledger, run_id: int, text: str) -> int:
    """Queue an idea; how many now wait."""
    ledger.insert("suggested", "suggestions", {"run_id": run_id, "text": text, "suggested_at": now()})
    return len(waiting_suggestions(ledger, run_id))


def waiting_suggestions(ledger: Ledger, run_id: int) -> list[Row]:
    """Those that no trial has taken up, oldest first."""
    return ledger.rows(
        "SELECT * FROM suggestions WHERE run_id = ?1 AND id NOT IN (SELECT json_extract(detail_json, '$.suggestion') "
        "FROM trials WHERE run_id = ?1 AND json_extract(detail_json, '$.suggestion') IS NOT NULL) ORDER BY id",
        run_id,
    )


def steer(ledger: Ledger, run_id: int, kind: str, trial_number: int) -> None:
    values = {"run_id": run_id, "kind": kind, "trial_number": trial_number, "said_at": now()}
    ledger.insert("steered", "steering", values)


def read_steering(ledger: Ledger, run_id: int) -> Steering:
    rows = ledger.rows("SELECT * FROM steering WHERE run_id = ? ORDER BY id", run_id)
    pins = [row for row in rows if row["kind"] != "veto"]
    return Steering(
        vetoed=frozenset(row["trial_number"] for row in rows if row["kind"] == "veto"),
        pinned=pins[-1]["trial_number"] if pins and pins[-1]["kind"] == "pin" else None,
    )
