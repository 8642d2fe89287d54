"""A small course whose candidates a fake sandbox can play, and the pieces to run it with."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentgolf.config import Settings
from agentgolf.course import Course, load_course
from agentgolf.domain import Outcome, Slot, TrialSummary, Verdict
from agentgolf.ledger.store import Ledger, Row
from agentgolf.loop import session
from agentgolf.loop.campaign import Campaign
from agentgolf.loop.observer import Observer
from agentgolf.sandbox.base import Sandbox
from agentgolf.sandbox.fake import FakeSandbox

TRAIN_FILE = '"""A candidate that only the fake sandbox can train."""\n\nQUALITY = 0.0\n\nRATE = 0.5\n'
TEXT = "".join(f"document {i}: the quick brown fox jumps over the lazy dog {i * 7}\n" for i in range(12))

DATA = """\
[data]
file = "text.txt"
sha256 = "{sha256}"
format = "lines"
heldout_a_documents = 3
heldout_b_documents = 3
"""


def course_toml(name: str, *, head: str, text: str, looks: str, baseline: int, track: str) -> str:
    """A course of one track, played on `repo/train.py`; `{sha256}` in `text` is filled in when it is written."""
    return f"""\
name = "{name}"
repo = "repo"
editable = ["train.py"]
counted = ["train.py"]
train = ["python", "train.py"]
{head}
default_track = "main"

{text}
[decision]
min_gain_bpb = 0.002
level = 0.05
looks = {looks}
baseline_replicates = {baseline}
final_replicates = 2

[tracks.main]
clock = "cpu"
{track}"""


COURSE = course_toml(
    "tiny",
    head='predictor = "train"\nimage = "none"',
    text=DATA,
    looks="[1, 3]",
    baseline=3,
    track="train_seconds = 5\ngrace_seconds = 1\neval_seconds = 5\nartifact_cap_bytes = 100_000\n",
)


def make_course_folder(
    folder: Path,
    course_toml: str = COURSE,
    train_file: str = TRAIN_FILE,
    text: str = TEXT,
    more_files: Mapping[str, str] | None = None,
) -> Path:
    """A course folder, not under git: opened directly, as the shipped one is."""
    (folder / "repo").mkdir(parents=True)
    for name, content in {"train.py": train_file, **(more_files or {})}.items():
        (folder / "repo" / name).write_text(content)
    (folder / "text.txt").write_text(text)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    (folder / "course.toml").write_text(course_toml.replace("{sha256}", sha256))
    return folder


def edit(hypothesis: str, find: str, replace: str) -> dict[str, str]:
    return {"hypothesis": hypothesis, "file": "train.py", "find": find, "replace": replace}


def make_scaffold(folder: Path, lines: Sequence[dict[str, str]]) -> Path:
    """A scaffold that replays these proposals."""
    folder.mkdir(parents=True)
    (folder / "script.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "scaffold.toml").write_text('summary = "a script"\nproposers = ["scripted"]\nscript = "script.jsonl"\n')
    return folder


def trial_summary(**changes: Any) -> TrialSummary:
    """A decided trial, reverted without a score unless it is said otherwise."""
    given: dict[str, Any] = {
        "number": 1, "parent": 0, "proposer": "p", "technique": "", "hypothesis": "", "fingerprint": "", "detail": {},
        "outcome": Outcome.OK, "verdict": Verdict.REVERT, "reason": "", "gain_bpb": None, "val_bpb": None,
        "counted_bytes": None,
    }  # fmt: skip
    return TrialSummary(**{**given, **changes})


def fake_sandbox(fail_next: int = 0) -> FakeSandbox:
    """A fake whose predictors know the tiny course's text."""
    return FakeSandbox([line.encode() for line in TEXT.splitlines()], fail_next)


class Fixture:
    """One ledger, one tiny course, one scripted scaffold."""

    def __init__(
        self,
        folder: Path,
        lines: Sequence[dict[str, str]],
        course_toml: str = COURSE,
        train_file: str = TRAIN_FILE,
        text: str = TEXT,
        more_files: Mapping[str, str] | None = None,
    ) -> None:
        self.runs = folder / "runs"
        folder_ = make_course_folder(folder / "course", course_toml, train_file, text, more_files)
        self.course: Course = load_course(folder_)
        self.settings = Settings(
            runs=self.runs, course=str(folder / "course"), scaffold=str(make_scaffold(folder / "scaffold", lines))
        )

    def create(self, ledger: Ledger, *, trials: int | None, jobs: int = 1, budget: float | None = None) -> Row:
        request = session.RunRequest(settings=self.settings, budget_seconds=budget, trials=trials, name="r")
        return session.create_run(ledger, request, self.course, self.slots(jobs), fake_sandbox())

    def slots(self, jobs: int) -> list[Slot]:
        return [Slot(cores=(0,)) for _ in range(jobs)]

    @contextlib.contextmanager
    def campaign(
        self, ledger: Ledger, row: Row, sandbox: Sandbox, observer: Observer | None = None
    ) -> Iterator[Campaign]:
        slots = self.slots(row["jobs"])
        prices = self.settings.prices
        with session.open_campaign(
            ledger, row, self.course, sandbox, slots, observer or Observer(), prices
        ) as campaign:
            yield campaign

    def play(
        self,
        *,
        trials: int | None,
        jobs: int = 1,
        sandbox: Sandbox | None = None,
        on_transition: Callable[[str], None] | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Start the run, or go on with it, to its end."""
        with Ledger(self.runs, write=True, on_transition=on_transition) as ledger:
            rows = ledger.rows("SELECT * FROM runs")
            row = rows[0] if rows else self.create(ledger, trials=trials, jobs=jobs)
            if row["state"] == "finished":
                return
            with self.campaign(ledger, row, sandbox or fake_sandbox(), observer) as campaign:
                campaign.run()


TIMES = ("_at", "_seconds")
# Which tokens an audit asks about is drawn afresh each time, from a secret that nobody can know before.
CHANCE = {"secret", "differences_json", "leak_bound_bpb", "leak_mean_nats", "leak_upper_nats", "final_leak_bound_bpb"}


def dump(ledger_folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every table but the sessions, without the columns that hold times or what was drawn for audits."""
    with Ledger(ledger_folder, write=False) as ledger:
        return {
            table: [
                {
                    key: value
                    for key, value in row.items()
                    if not key.endswith(TIMES) and key not in CHANCE and key != "course_folder"
                }
                for row in ledger.rows(f"SELECT * FROM {table} ORDER BY 1, 2")
            ]
            for table in ("runs", "trials", "replicates", "executions", "audits", "blobs")
        }
