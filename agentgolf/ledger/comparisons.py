"""Comparisons of scaffolds: which runs belong to one, and the baseline that they share."""

from agentgolf.errors import UsageError
from agentgolf.ledger.store import Ledger, Row, now


def start_comparison(ledger: Ledger, *, name: str, seed: int, repeats: int, baseline_run_id: int) -> Row:
    values = {
        "name": name,
        "seed": seed,
        "repeats": repeats,
        "baseline_run_id": baseline_run_id,
        "state": "open",
        "started_at": now(),
    }
    key = ledger.insert("comparison started", "comparisons", values)
    return ledger.rows("SELECT * FROM comparisons WHERE id = ?", key)[0]


def add_arm(ledger: Ledger, comparison_id: int, arm: str, repeat: int, run_id: int) -> None:
    values = {"comparison_id": comparison_id, "arm": arm, "repeat": repeat, "run_id": run_id}
    ledger.insert("arm added", "comparison_runs", values)


def finish_comparison(ledger: Ledger, comparison_id: int) -> None:
    ledger.update("comparison finished", "comparisons", comparison_id, {"state": "finished", "finished_at": now()})


def find_comparison(ledger: Ledger, name: str | None) -> Row:
    """The named comparison, or the newest. Raises `UsageError`."""
    rows = ledger.rows("SELECT * FROM comparisons WHERE ?1 IS NULL OR name = ?1 ORDER BY id DESC LIMIT 1", name)
    if not rows:
        said = f"there is no comparison {name!r}" if name else f"{ledger.path} has no comparison yet"
        raise UsageError(f"{said}; start one: agentgolf compare SCAFFOLD SCAFFOLD --budget 4h")
    return rows[0]


def comparison_of(ledger: Ledger, run_id: int) -> Row | None:
    """The comparison that a run belongs to, if any."""
    rows = ledger.rows(
        "SELECT * FROM comparisons WHERE baseline_run_id = ?1 "
        "OR id IN (SELECT comparison_id FROM comparison_runs WHERE run_id = ?1)",
        run_id,
    )
    return rows[0] if rows else None


def arm_rows(ledger: Ledger, comparison_id: int) -> list[Row]:
    """Its runs with `arm` and `repeat`, in the order of their making."""
    return ledger.rows(
        "SELECT runs.*, arm, repeat FROM comparison_runs JOIN runs ON runs.id = run_id WHERE comparison_id = ? "
        "ORDER BY repeat, runs.id",
        comparison_id,
    )


def share_baseline(ledger: Ledger, from_trial: int, to_trial: int) -> None:
    """Take over what another run measured of the same baseline. What is there already stays, so it can be repeated."""
    measured = "SELECT * FROM replicates WHERE trial_id = ? AND purpose = 'baseline' AND state = 'scored' ORDER BY id"
    there = {row["position"]: row["id"] for row in ledger.rows(measured, to_trial)}
    for row in ledger.rows(measured, from_trial):
        own = there.get(row["position"])
        if own is None:
            values = {key: value for key, value in row.items() if key != "id"}
            own = ledger.insert("shared", "replicates", {**values, "trial_id": to_trial, "for_trial_id": to_trial})
        done = {one["role"] for one in ledger.rows("SELECT role FROM executions WHERE replicate_id = ?", own)}
        for execution in ledger.rows("SELECT * FROM executions WHERE replicate_id = ?", row["id"]):
            if execution["role"] not in done:
                ledger.insert("shared", "executions", {**execution, "replicate_id": own})
