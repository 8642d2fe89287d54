"""agentgolf's own time a trial: all but training and scoring; utilisation and memory of the orchestrator.

    python -m benchmarks.overhead [--sandbox process|docker] [--trials 10]

Plays real trials of the embedded course's `smoke` track, one slot, each one replicate, and reads the ledger:
from one verdict to the next, less what the sandboxes took. A smoke trial trains for 6 seconds; the same
overhead beside the `sprint` track's 60 seconds gives the share of the budget that training and scoring get.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import psutil

from agentgolf.ledger.store import Ledger

SPRINT_SECONDS = 60.0


def play(folder: Path, sandbox: str, trials: int) -> int:
    """Run the trials; gives the largest resident memory of the orchestrator, in bytes."""
    lines = [
        {
            "hypothesis": f"rate {i}",
            "file": "train_gpt.py",
            "find": "EMBED_LR = 0.02",
            "replace": f"EMBED_LR = 0.0000{i + 1}",
        }
        for i in range(trials)
    ]
    (folder / "scaffold").mkdir()
    (folder / "scaffold" / "script.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "scaffold" / "scaffold.toml").write_text(
        'summary = "s"\nproposers = ["scripted"]\nscript = "script.jsonl"\n'
    )
    command = [
        sys.executable,
        "-m",
        "agentgolf.cli.app",
        "run",
        "--trials",
        str(trials),
        "--track",
        "smoke",
        "--jobs",
        "1",
        "--sandbox",
        sandbox,
        "--scaffold",
        str(folder / "scaffold"),
        "--runs",
        str(folder / "runs"),
    ]
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            peak = max(peak, process.memory_info().rss)
            process.wait(timeout=0.2)
        except (psutil.TimeoutExpired, psutil.NoSuchProcess):
            continue
    return peak


def overheads(folder: Path) -> list[tuple[float, float]]:
    """(overhead, sandbox time) of each candidate trial, in seconds."""
    with Ledger(folder / "runs", write=False) as ledger:
        trials = ledger.rows("SELECT id, decided_at FROM trials WHERE decided_at IS NOT NULL ORDER BY number")
        rows = ledger.rows(
            "SELECT r.for_trial_id AS trial, r.id, max(CASE role WHEN 'train' THEN e.wall_seconds END) AS train, "
            "max(CASE role WHEN 'train' THEN 0 ELSE e.wall_seconds END) AS score "
            "FROM executions e JOIN replicates r ON r.id = e.replicate_id GROUP BY r.id"
        )
    sandbox = {trial["id"]: sum(r["train"] + r["score"] for r in rows if r["trial"] == trial["id"]) for trial in trials}
    counts = {trial["id"]: sum(r["trial"] == trial["id"] for r in rows) for trial in trials}
    out = []
    for before, trial in zip(trials, trials[1:]):
        took = (
            datetime.fromisoformat(trial["decided_at"]) - datetime.fromisoformat(before["decided_at"])
        ).total_seconds()
        out.append(((took - sandbox[trial["id"]]) / counts[trial["id"]], sandbox[trial["id"]] / counts[trial["id"]]))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sandbox", default="process")
    parser.add_argument("--trials", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        peak = play(Path(folder), options.sandbox, options.trials)
        seen = overheads(Path(folder))
    own = [overhead for overhead, _ in seen]
    scoring = statistics.median(sandbox for _, sandbox in seen) - 6
    middle = statistics.median(own)
    print(f"{options.sandbox}, {len(own)} trials of one replicate")
    print(f"overhead a trial: median {middle:.2f} s, min {min(own):.2f}, max {max(own):.2f}")
    busy = SPRINT_SECONDS + scoring
    print(f"utilisation at 60 s of training: {busy / (busy + middle):.1%}")
    print(f"orchestrator memory: {peak / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
