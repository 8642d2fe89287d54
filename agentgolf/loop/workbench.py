"""What is done for a proposer while it thinks: looking back, a short training, a coding agent's run."""

import contextlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentgolf.decide.policy import feedback
from agentgolf.domain import Outcome, Split, TrialSummary
from agentgolf.ledger.lineage import read_blob, summaries, trial_rows
from agentgolf.ledger.store import Ledger, Row
from agentgolf.loop.crew import Crew
from agentgolf.loop.mailbox import Mailbox
from agentgolf.loop.specs import Spec
from agentgolf.patch.parse import parse_diff
from agentgolf.patch.similar import distance
from agentgolf.patch.workspace import scratch_checkout
from agentgolf.proposer.base import AgentEnd, AgentTask
from agentgolf.proposer.keys import look_up
from agentgolf.sandbox.agent_container import run_contained
from agentgolf.sandbox.base import clean
from agentgolf.sandbox.errand import HOME_DIR, TASK_FILE, Ended, Errand, left_files
from agentgolf.sandbox.jail import run_jailed

LOG_LINES, LOG_CHARACTERS = 40, 4_000
# Of a diff as long as a technique's, this is a changed number or two.
NEAR = 0.05


@dataclass(slots=True, kw_only=True)
class LoopWorkbench:
    """Serves one proposal. May be used from any thread; what touches the ledger goes through the mailbox.

    `files` are the whole parent, `number` is the trial that is being proposed; scores are rounded to `noise_bpb`.
    """

    row: Row
    ledger: Ledger
    crew: Crew
    mailbox: Mailbox
    number: int
    files: Mapping[str, bytes]
    noise_bpb: float
    _smoked: int = field(default=0)

    def trial(self, number: int) -> str:
        return self.mailbox.call(lambda: self._trial(number))

    def _trial(self, number: int) -> str:
        rows = [row for row in trial_rows(self.ledger, self.row["id"]) if row["number"] == number]
        seen = self._seen(rows)
        if not seen:
            return f"there is no finished trial {number}"
        row, (trial,) = rows[0], seen
        gain = f", {trial.gain_said} bpb" if trial.gain_said else ""
        lines = [f"trial {number}: {trial.hypothesis}", f"{trial.outcome}, {trial.verdict}{gain}: {trial.reason}"]
        if trial.lesson:
            lines.append(f"lesson: {trial.lesson}")
        diff = read_blob(self.ledger, row["diff_sha256"])
        return "\n".join([*lines, "", diff, "the end of its log:", log_tail(self.ledger, row["id"])])

    def smoke_test(self, files: Mapping[str, str], seconds: float) -> str:
        self._smoked += 1
        spec = Spec(
            replicate_id=-(100 * self.number + self._smoked),
            trial=self.number,
            seed=0,
            split=Split.A,
            files={**self.files, **{name: text.encode() for name, text in files.items()}},
            label="smoke test",
        )
        trained = self.crew.smoke(spec, seconds)
        if trained.error is not None:
            return f"{trained.error.outcome}: {trained.error}\n{tail(trained.execution.log)}"
        counted = trained.artifact.counted_bytes if trained.artifact else 0
        used = f"{trained.execution.clock_seconds:.1f} seconds of training"
        return f"it runs: {used}, {counted:,} bytes counted\n{tail(trained.execution.log)}"

    def twin(self, edits: Sequence[str], parent: int) -> str | None:
        diff = "".join(edits)
        return self.mailbox.call(lambda: self._twin(diff, parent))

    def _twin(self, diff: str, parent: int) -> str | None:
        fingerprint = parse_diff(diff).fingerprint
        for row in reversed(trial_rows(self.ledger, self.row["id"])):
            if row["parent"] != parent or not row["fingerprint"]:
                continue
            said = next((f"{one.verdict}: {one.reason}" for one in self._seen([row])), "which is being measured")
            if row["fingerprint"] == fingerprint:
                return f"this is trial {row['number']} again ({said}); propose something else"
            # What crashed may be tried again, mended.
            measured = row["outcome"] in (None, Outcome.OK)
            if measured and distance(diff, read_blob(self.ledger, row["diff_sha256"])) < NEAR:
                return f"this is nearly trial {row['number']} again ({said}); propose something that differs more"
        return None

    def _seen(self, rows: Sequence[Row]) -> list[TrialSummary]:
        """The decided ones, as a proposer may see them."""
        return feedback(summaries(rows), self.noise_bpb)

    def run_agent(self, task: AgentTask) -> AgentEnd:
        """In a scratch folder under git, so that the agent finds what it knows."""
        spent: list[float] = []

        def look(line: str) -> str | None:
            for found in re.findall(task.cost_pattern, line) if task.cost_pattern else ():
                with contextlib.suppress(ValueError, TypeError):
                    spent.append(float(found))
            if task.max_cost_usd is not None and spent and max(spent) > task.max_cost_usd:
                return f"it had cost ${max(spent):.2f} of ${task.max_cost_usd:.2f}"
            return None

        with tempfile.TemporaryDirectory(prefix="agentgolf-") as scratch:
            work, prompt = Path(scratch) / "work", Path(scratch) / "task.md"
            scratch_checkout(work, self.files)
            before = left_files(work)
            prompt.write_text(f"{task.prompt}\n", encoding="utf-8")
            most = "" if task.max_cost_usd is None else f"{task.max_cost_usd:g}"
            values = {"{prompt}": task.prompt, "{task}": TASK_FILE, "{max_cost}": most}
            ended = self._run(
                Errand(
                    argv=[_filled(word, values) for word in task.argv],
                    work=work,
                    task=prompt,
                    environment={
                        **{name: value for name in task.environment if (value := look_up(name)) is not None},
                        **task.variables,
                    },
                    readable=[Path(path).expanduser() for path in task.readable],
                    network=task.network,
                    seconds=task.seconds,
                    stop=self.crew.killed.is_set,
                    on_line=look,
                ),
                task.image,
            )
            for line in ended.log.splitlines():  # a very long line was handed on cut
                look(line)
            after = left_files(work)
        return AgentEnd(
            before=before,
            after=after,
            log=ended.log.replace(HOME_DIR, "~"),
            exit_code=ended.exit_code,
            seconds=ended.seconds,
            cost_usd=max(spent, default=None),
            trouble=ended.trouble,
        )

    def _run(self, errand: Errand, image: str) -> Ended:
        if not image:
            return run_jailed(errand)
        run, ledger = str(self.row["name"]), self.ledger.tag
        name = f"agentgolf-{ledger}-{run}-agent{self.number}"
        return run_contained(errand, image, name, {"run": run, "ledger": ledger, "trial": str(self.number)})


def _filled(word: str, values: Mapping[str, str]) -> str:
    return re.sub("|".join(map(re.escape, values)), lambda found: values[found[0]], word)


def log_tail(ledger: Ledger, trial_id: int) -> str:
    """The end of a trial's newest log, cleaned; of the replicate that failed, if one did."""
    rows = ledger.rows(
        "SELECT executions.log_sha256 FROM executions JOIN replicates ON replicates.id = replicate_id "
        "WHERE replicates.trial_id = ? AND replicates.for_trial_id = ? "
        "ORDER BY executions.outcome = 'ok', replicates.id DESC, role = 'train' DESC LIMIT 1",
        trial_id,
        trial_id,
    )
    return tail(read_blob(ledger, rows[0]["log_sha256"])) if rows else ""


def tail(log: str) -> str:
    return clean("\n".join(log.splitlines()[-LOG_LINES:]))[-LOG_CHARACTERS:]
