"""Reads the ledger back as values: runs, trials and their replicates."""

import json
import re
from collections.abc import Sequence

from agentgolf.domain import Outcome, Replay, Replays, TrialSummary, Verdict
from agentgolf.errors import LedgerError, UsageError
from agentgolf.ledger.store import Ledger, Row


def find_run(ledger: Ledger, name: str | None) -> Row:
    """The run of that name, or the newest. Raises `UsageError`."""
    if name is None:
        rows = ledger.rows("SELECT * FROM runs ORDER BY id DESC LIMIT 1")
        missing = f"{ledger.path} has no run yet; start one: agentgolf run"
    else:
        rows = ledger.rows("SELECT * FROM runs WHERE name = ?", name)
        known = ", ".join(row["name"] for row in ledger.rows("SELECT name FROM runs ORDER BY id DESC LIMIT 5"))
        missing = f"there is no run {name!r}; the newest are: {known or 'none'}"
    if not rows:
        raise UsageError(missing)
    return rows[0]


def find_trial(ledger: Ledger, reference: str) -> tuple[Row, Row]:
    """The run and the trial that `7` (of the newest run) or `RUN:7` names. Raises `UsageError`."""
    match = re.fullmatch(r"(?:(.+):)?(\d+)", reference)
    if not match:
        raise UsageError(f"{reference!r} names no trial; write a number, such as 7, or RUN:7")
    run = find_run(ledger, match[1])
    rows = ledger.rows("SELECT * FROM trials WHERE run_id = ? AND number = ?", run["id"], int(match[2]))
    if not rows:
        last = ledger.rows("SELECT max(number) AS n FROM trials WHERE run_id = ?", run["id"])[0]["n"]
        raise UsageError(f"run {run['name']} has no trial {match[2]}; its last is {last}")
    return run, rows[0]


def trial_row(ledger: Ledger, trial_id: int) -> Row:
    return ledger.rows("SELECT * FROM trials WHERE id = ?", trial_id)[0]


def trial_rows(ledger: Ledger, run_id: int) -> list[Row]:
    return ledger.rows(
        "SELECT trials.*, parents.number AS parent, lessons.id AS lesson_id, lessons.text AS lesson "
        "FROM trials LEFT JOIN trials AS parents ON parents.id = trials.parent_id "
        "LEFT JOIN lessons ON lessons.trial_id = trials.id "
        "WHERE trials.run_id = ? ORDER BY trials.number",
        run_id,
    )


def summaries(rows: Sequence[Row]) -> list[TrialSummary]:
    """The decided trials among the rows, as proposers and policies see them."""
    return [
        TrialSummary(
            number=row["number"],
            parent=row["parent"],
            proposer=row["proposer"],
            technique=row["technique"],
            hypothesis=row["hypothesis"],
            fingerprint=row["fingerprint"] or "",
            detail=json.loads(row["detail_json"]),
            outcome=Outcome(row["outcome"]),
            verdict=Verdict(row["verdict"]),
            reason=row["reason"] or "",
            gain_bpb=row["gain_bpb"],
            val_bpb=row["val_bpb"],
            counted_bytes=row["counted_bytes"],
            gain_low=row["gain_low"],
            gain_high=row["gain_high"],
            lesson=row["lesson"] or "",
        )
        for row in rows
        if row["state"] == "decided"
    ]


def replicate_rows(ledger: Ledger, run_id: int) -> list[Row]:
    return ledger.rows(
        "SELECT replicates.*, trials.number AS trial, trials.outcome AS trial_outcome, owners.number AS for_trial, "
        "(SELECT log_sha256 FROM executions WHERE replicate_id = replicates.id AND role = 'train') AS log_sha256 "
        "FROM replicates "
        "JOIN trials ON trials.id = replicates.trial_id JOIN trials AS owners ON owners.id = replicates.for_trial_id "
        "WHERE trials.run_id = ? ORDER BY replicates.id",
        run_id,
    )


def scores_of(replicates: Sequence[Row], trial_id: int, heldout: str = "A") -> list[float]:
    """val_bpb of a trial's finished, successful replicates on one half, in the order of measurement."""
    return [
        row["val_bpb"]
        for row in replicates
        if row["trial_id"] == trial_id
        and row["heldout"] == heldout
        and row["outcome"] == Outcome.OK
        and row["state"] == "scored"
    ]


def audit_replays(ledger: Ledger, trial_id: int, stage: str) -> list[tuple[Row, Replays | None]]:
    """The audits of a trial's replicates at one stage, the newest of each replicate; None where one failed."""
    rows = ledger.rows(
        "SELECT audits.* FROM audits JOIN replicates ON replicates.id = replicate_id "
        "WHERE trial_id = ? AND stage = ? ORDER BY audits.id",
        trial_id,
        stage,
    )
    newest = {row["replicate_id"]: row for row in rows}
    return [(row, _replays(row) if row["outcome"] == Outcome.OK else None) for row in newest.values()]


def _replays(row: Row) -> Replays:
    return Replays(
        items=tuple(_replay(*item) for item in json.loads(row["differences_json"])),
        tokens=row["tokens"],
        text_bytes=row["text_bytes"],
        claimed_nats=row["claimed_nats"],
    )


def _replay(gain_nats: float, difference_nats: float, by_gain: bool, times: int) -> Replay:
    return Replay(gain_nats=gain_nats, difference_nats=difference_nats, by_gain=by_gain, times=times)


def noise_groups(replicates: Sequence[Row]) -> list[list[float]]:
    """Scores grouped by trial and held-out half, for pooling the seed noise over a run; none of invalid trials."""
    groups: dict[tuple[int, str], list[float]] = {}
    for row in replicates:
        if row["outcome"] == Outcome.OK and row["trial_outcome"] != Outcome.INVALID:
            groups.setdefault((row["trial_id"], row["heldout"]), []).append(row["val_bpb"])
    return list(groups.values())


def spent_seconds(ledger: Ledger, run_id: int) -> float:
    rows = ledger.rows("SELECT coalesce(sum(spent_seconds), 0) AS s FROM sessions WHERE run_id = ?", run_id)
    return float(rows[0]["s"])


def read_blob(ledger: Ledger, sha256: str | None) -> str:
    """A stored log or diff as text; empty without one. Raises `LedgerError` when its file is gone."""
    if not sha256:
        return ""
    try:
        return ledger.blobs.read(sha256).decode("utf-8", "replace")
    except OSError as error:
        raise LedgerError(f"the blob {sha256[:12]} is missing from {ledger.blobs.folder}") from error
