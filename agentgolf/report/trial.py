"""One trial in full, and the boards of all runs."""

import json
from typing import Any

from rich.syntax import Syntax

from agentgolf.ledger.lineage import find_trial, read_blob
from agentgolf.ledger.store import Ledger
from agentgolf.report.tables import console, interval, number, print_lines, safe, table

SHOWN_DIFF_LINES = 60


def trial_details(ledger: Ledger, reference: str) -> dict[str, Any]:
    """Everything the ledger holds of a trial, blobs read."""
    run, trial = find_trial(ledger, reference)
    replicates = ledger.rows(
        "SELECT replicates.*, owners.number AS for_trial FROM replicates JOIN trials AS owners "
        "ON owners.id = replicates.for_trial_id WHERE replicates.trial_id = ? ORDER BY replicates.id",
        trial["id"],
    )
    executions = ledger.rows(
        "SELECT executions.*, purpose, position, seed FROM executions JOIN replicates ON replicates.id = replicate_id "
        "WHERE replicates.trial_id = ? ORDER BY replicate_id, role DESC",
        trial["id"],
    )
    said = ledger.rows("SELECT text FROM suggestions WHERE id = json_extract(?, '$.suggestion')", trial["detail_json"])
    parent = ledger.rows("SELECT number FROM trials WHERE id = ?", trial["parent_id"])
    return {
        "run": run["name"],
        "trial": trial["number"],
        "parent": parent[0]["number"] if parent else None,
        **{
            key: trial[key]
            for key in (
                "state",
                "proposer",
                "technique",
                "hypothesis",
                "outcome",
                "verdict",
                "reason",
                "val_bpb",
                "gain_bpb",
                "gain_low",
                "gain_high",
                "p_value",
                "counted_bytes",
                "leak_bound_bpb",
                "leak_mean_nats",
                "leak_upper_nats",
                "leak_replays",
                "commit_sha",
                "proposed_at",
                "decided_at",
            )
        },
        "detail": json.loads(trial["detail_json"]),
        "suggestion": said[0]["text"] if said else "",
        "diff": read_blob(ledger, trial["diff_sha256"]),
        "edits": json.loads(trial["edits_json"]),
        "replicates": replicates,
        "executions": [{**row, "log": read_blob(ledger, row["log_sha256"])} for row in executions],
    }


def print_trial(details: dict[str, Any]) -> None:
    gain = f"{number(details['gain_bpb'], sign=True)} {interval(details['gain_low'], details['gain_high'])}"
    rows = [
        (
            "trial",
            f"{details['run']}:{details['trial']}"
            + (f", child of {details['parent']}" if details["parent"] is not None else ""),
        ),
        ("hypothesis", safe(details["hypothesis"])),
        ("proposed by", details["proposer"] + (f" ({safe(details['technique'])})" if details["technique"] else "")),
        *([("suggested", safe(details["suggestion"]))] if details["suggestion"] else []),
        (
            "verdict",
            f"{details['verdict'] or details['state']} ({details['outcome'] or 'open'}): {safe(details['reason'])}",
        ),
    ]
    if details["val_bpb"] is not None:
        kinds = {row["score_kind"] for row in details["replicates"]}
        label = "  (self-reported)" if "self_reported" in kinds else ""
        rows.append(("val_bpb", number(details["val_bpb"]) + label))
    if details["gain_bpb"] is not None:
        rows.append(("gain", f"{gain} over its parent, p = {details['p_value']:.2g}"))
    if details["leak_replays"]:
        rows.append(
            (
                "causality",
                f"{details['leak_replays']:,} replays: mean difference {details['leak_mean_nats']:+.6f} nats, at most "
                f"{details['leak_upper_nats']:.6f}; leak bound {details['leak_bound_bpb']:.5f} bpb",
            )
        )
    if details["counted_bytes"]:
        rows.append(("bytes", f"{details['counted_bytes']:,} (artifact + code)"))
    if details["commit_sha"]:
        rows.append(("commit", details["commit_sha"]))
    print_lines(rows)
    if details["replicates"]:
        cells = [
            [
                f"{row['purpose']} {row['position'] + 1}"
                + (f" for {row['for_trial']}" if row["for_trial"] != details["trial"] else ""),
                str(row["seed"]),
                row["heldout"],
                row["outcome"] or row["state"],
                number(row["val_bpb"], 5),
                number(row["train_seconds"], 1),
                number(row["eval_seconds"], 1),
                number(row["wall_seconds"], 1),
            ]
            for row in details["replicates"]
        ]
        columns = [
            ("replicate", "left"),
            ("seed", "right"),
            ("half", "left"),
            ("outcome", "left"),
            ("val_bpb", "right"),
            ("train s", "right"),
            ("eval s", "right"),
            ("wall s", "right"),
        ]
        console().print(table(columns, cells))
        for row in details["replicates"]:
            if row["message"]:
                console().print(f"[red]{row['purpose']} {row['position'] + 1}:[/red] {safe(row['message'])}")
    if details["diff"]:
        lines = details["diff"].splitlines()
        shown = "\n".join(safe_line for safe_line in lines[:SHOWN_DIFF_LINES])
        console().print(Syntax(shown, "diff", background_color="default", word_wrap=True))
        if len(lines) > SHOWN_DIFF_LINES:
            console().print(f"... {len(lines) - SHOWN_DIFF_LINES} more lines: agentgolf show {details['trial']} --diff")


def board_rows(ledger: Ledger, course: str | None, track: str | None) -> list[dict[str, Any]]:
    """One board a course and track: kept candidates of every run, verified scores before self-reported."""
    rows = ledger.rows(
        "SELECT runs.course, runs.track, runs.name AS run, trials.number AS trial, trials.hypothesis, trials.val_bpb, "
        "trials.counted_bytes, trials.commit_sha, "
        "(SELECT avg(val_bpb) FROM replicates r WHERE r.trial_id = trials.id AND r.heldout = 'B') AS heldout_b_bpb, "
        "(SELECT min(score_kind) FROM replicates r WHERE r.trial_id = trials.id) AS score_kind "
        "FROM trials JOIN runs ON runs.id = trials.run_id WHERE trials.verdict = 'keep' "
        "AND (?1 IS NULL OR runs.course = ?1) AND (?2 IS NULL OR runs.track = ?2) "
        "ORDER BY runs.course, runs.track, score_kind != 'verified', trials.val_bpb",
        course,
        track,
    )
    boards: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        boards.setdefault((row["course"], row["track"]), []).append(row)
    return [{"course": key[0], "track": key[1], "rows": found} for key, found in boards.items()]
