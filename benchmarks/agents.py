"""What a language model's latency and calls cost a run, beside the model itself.

    python -m benchmarks.agents [--latency 60] [--train 60] [--trials 10] [--calls 10000]

A real run in the process sandbox, one slot, proposed by a real HTTP server that takes --latency seconds for a reply.
The candidate sleeps through its --train seconds on the wall clock, so other work on the machine hardly matters.
Prints the share of the slot's time from the first trial to the last verdict in which it trained or scored; what a
proposal takes besides the model (a reply without latency, against the bare HTTP request); and what a call takes with
none and with --calls calls on record.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from agentgolf.domain import ModelReply
from agentgolf.ledger.calls import TrialCalls
from agentgolf.ledger.store import Ledger
from tests.cheats.test_attacks import CANDIDATE, COURSE
from tests.proposer.model_server import KEY, Turn, serving
from tests.support import make_course_folder

EDIT = "HYPOTHESIS: rate {n}\n<<<<<<< SEARCH\n{old}\n=======\nRATE = 0.5{n}\n>>>>>>> REPLACE\n"
SLEEPER = CANDIDATE.replace(
    "    # HOOK train\n", '    import time\n\n    time.sleep(float(os.environ["GOLF_BUDGET_SECONDS"]) - 1)\n'
).replace("import numpy as np\n", "import numpy as np\n\nRATE = 0.5\n", 1)


class Model:
    """Turns a number that does nothing, after a while."""

    def __init__(self, latency_seconds: float) -> None:
        self.latency_seconds, self.asked = latency_seconds, 0

    def __call__(self, request: dict[str, Any], number: int) -> Turn:
        time.sleep(self.latency_seconds)
        self.asked += 1
        text = request["messages"][-1]["content"]
        old = next((line for line in text.splitlines() if line.startswith("RATE = ")), None)
        if old is None:
            return Turn(text="the rate does nothing")
        return Turn(text=EDIT.format(n=self.asked, old=old))


def play(folder: Path, model: Model, *, train_seconds: float, trials: int, ahead: bool) -> None:
    """A run of so many trials; its ledger is in `folder`. Lessons are asked for as by default when it works ahead."""
    toml = COURSE.replace('clock = "cpu"', 'clock = "wall"').replace(
        "train_seconds = 5", f"train_seconds = {train_seconds}"
    )
    text = "".join(json.dumps({"text": f"document {i}: the quick brown fox"}) + "\n" for i in range(72))
    course = make_course_folder(folder / "course", toml, SLEEPER, text)
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "course"]):
        who = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
        subprocess.run(["git", "-C", str(course), *who, *command], check=True)
    scaffold = folder / "scaffold"
    scaffold.mkdir()
    (scaffold / "scaffold.toml").write_text(
        f'summary = "one reply"\nproposers = ["agent"]\nahead = {str(ahead).lower()}\n'
        f"[agent]\nlessons = {str(ahead).lower()}\n"
    )
    words = ["run", "--course", str(course), "--scaffold", str(scaffold), "--sandbox", "process", "--jobs", "1"]
    with serving(model) as served:
        subprocess.run(
            [sys.executable, "-m", "agentgolf.cli.app", *words, "--trials", str(trials), "--name", "r"],
            cwd=folder,
            env={**os.environ, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": served.url, "PYTHONPATH": str(Path.cwd())},
            check=False,
            capture_output=True,
        )


def utilisation(folder: Path) -> tuple[float, float, int]:
    """Share of the slot in use between the first trial's launch and the last verdict, those seconds, and the trials."""
    with Ledger(folder / "runs", write=False) as ledger:
        (span,) = ledger.rows(
            "SELECT 86400 * (max(julianday(decided_at)) - min(julianday(launched_at))) AS s, "
            "count(DISTINCT trials.id) AS n "
            "FROM trials JOIN replicates ON for_trial_id = trials.id WHERE number > 0"
        )
        (busy,) = ledger.rows(
            "SELECT sum(executions.wall_seconds) AS s FROM executions JOIN replicates ON replicates.id = replicate_id "
            "JOIN trials ON trials.id = for_trial_id WHERE number > 0 AND role IN ('train', 'predict')"
        )
    return busy["s"] / span["s"], span["s"], span["n"]


def overhead(folder: Path) -> list[float]:
    """Seconds from a verdict to the next trial's row, when nothing is made ahead and the model answers at once."""
    with Ledger(folder / "runs", write=False) as ledger:
        rows = ledger.rows(
            "SELECT 86400 * (julianday(now.proposed_at) - julianday(was.decided_at)) AS s FROM trials AS now "
            "JOIN trials AS was ON was.run_id = now.run_id AND was.number = now.number - 1"
        )
    return [row["s"] for row in rows]


def bare_request(times: int = 20) -> float:
    """Median seconds of the HTTP request alone, to the same server."""
    seen = []
    body = {"model": "m", "messages": [{"role": "user", "content": "RATE = 0.5\n"}], "stream": True}
    with serving(Model(0.0)) as served:
        for _ in range(times):
            started = time.monotonic()
            request = urllib.request.Request(f"{served.url}/chat/completions", json.dumps(body).encode())
            urllib.request.urlopen(request).read()
            seen.append(time.monotonic() - started)
    return statistics.median(seen)


def call_seconds(folder: Path, calls: int, sample: int = 200) -> tuple[float, float]:
    """Median seconds to look a call up, write it and its reply, with none and with so many on record."""
    with Ledger(folder / "runs", write=True) as ledger:
        row = ledger.rows("SELECT * FROM runs")[0]
        medians = []
        for before in (0, calls):
            done = ledger.rows("SELECT count(*) AS n FROM calls")[0]["n"]
            ledger.connection.execute("PRAGMA synchronous = OFF")  # filling up is not what is measured
            for number in range(done, before):
                _call(TrialCalls(ledger, row, 1000 + number // 10, {}), number % 10)
            ledger.connection.execute("PRAGMA synchronous = FULL")
            seen = []
            for number in range(sample):
                started = time.monotonic()
                _call(TrialCalls(ledger, row, 100_000 + before + number, {}), 1)
                seen.append(time.monotonic() - started)
            medians.append(statistics.median(seen))
    return medians[0], medians[1]


def _call(calls: TrialCalls, position: int) -> None:
    """As a proposer makes it, with a prompt as long as the embedded course's."""
    request = {"model": "m", "messages": [{"role": "user", "content": "x" * 25_000 + str(time.monotonic_ns())}]}
    key = calls.key(json.dumps(request))
    assert calls.recall(position, key) is None
    call = calls.sent(position, request, key)
    calls.answered(call, ModelReply(text="y" * 2000, input_tokens=6000, output_tokens=500, seconds=1.0, finish="stop"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=60.0)
    parser.add_argument("--train", type=float, default=60.0)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--calls", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        quick, slow = Path(scratch) / "quick", Path(scratch) / "slow"
        quick.mkdir()
        slow.mkdir()
        play(quick, Model(0.0), train_seconds=2, trials=10, ahead=False)
        seen, bare = overhead(quick), bare_request()
        whole = statistics.median(seen)
        print(
            f"a proposal: median {1000 * (whole - bare):.0f} ms besides the model "
            f"(from verdict to next trial {1000 * whole:.0f} ms, the HTTP request {1000 * bare:.0f} ms)"
        )
        none, many = call_seconds(quick, given.calls)
        print(f"a call: {1000 * none:.1f} ms on an empty record, {1000 * many:.1f} ms with {given.calls:,} calls on it")
        if given.trials:
            play(slow, Model(given.latency), train_seconds=given.train, trials=given.trials, ahead=True)
            share, seconds, trials = utilisation(slow)
            print(
                f"latency {given.latency:g} s, training {given.train:g} s: the slot trained or scored {share:.1%} of "
                f"{seconds:.0f} s ({trials} trials)"
            )


if __name__ == "__main__":
    main()
