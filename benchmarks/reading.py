"""How long `tree` of 10,000 trials and `--help` take, as whole processes.

python -m benchmarks.reading [--trials 10000]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agentgolf.domain import Outcome, Proposal, Score, Split, Verdict
from agentgolf.ledger.store import Decision, Ledger

RUNS = 5


def fill(folder: Path, count: int) -> None:
    """A ledger with so many decided trials, one replicate each, every fiftieth kept."""
    with Ledger(folder, write=True) as ledger:
        ledger.db.execute("PRAGMA synchronous = OFF")
        run = ledger.start_run(
            name="big",
            course="practice",
            track="sprint",
            course_sha256="",
            course_json="{}",
            course_folder="",
            scaffold="offline",
            sandbox="process",
            jobs=1,
            seed=0,
            budget_seconds=None,
            trials_limit=None,
            origin_commit="0" * 40,
            agentgolf_version="0",
        )
        parent = None
        with ledger.db.atomic():
            for number in range(count):
                proposal = Proposal(hypothesis=f"idea number {number}", edits=(), proposer="tuner", technique="tune")
                trial = ledger.propose(run, number, parent, proposal)
                ledger.apply(trial, commit=f"{number:040x}", tree=f"{number:040x}", fingerprint=f"{number}", diff="")
                replicate = ledger.launch(trial, trial, "search", 0, number, Split.A)
                bpb = 1.5 - number * 1e-5
                score = Score(
                    split=Split.A,
                    total_nats=bpb * 0.693147 * 1000,
                    text_bytes=1000,
                    tokens=1,
                    artifact_bytes=1,
                    train_seconds=60,
                    eval_seconds=3,
                )
                ledger.score(replicate, outcome=Outcome.OK, message="", score=score, executions={}, wall_seconds=65)
                kept = number % 50 == 0
                ledger.decide(
                    trial,
                    Decision(
                        outcome=Outcome.OK,
                        verdict=Verdict.KEEP if kept else Verdict.REVERT,
                        reason="because",
                        val_bpb=bpb,
                        gain_bpb=0.001,
                        gain_low=-0.01,
                        gain_high=0.01,
                        p_value=0.4,
                        counted_bytes=100_000,
                    ),
                    spent_seconds=65.0 * number,
                )
                parent = trial if kept else parent


def seconds(*args: str) -> float:
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "agentgolf.cli.app", *args], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), options.trials)
        print(f"medians of {RUNS} whole processes; a bare Python takes {_bare():.2f} s")
        print(f"agentgolf --help: {seconds('--help'):.2f} s")
        for extra in ((), ("--json",)):
            took = seconds("tree", "--runs", folder, *extra)
            print(f"agentgolf tree {' '.join(extra)} of {options.trials:,} trials: {took:.2f} s")


def _bare() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
