"""The loop from the first baseline to the final, with a fake sandbox and a real ledger and git store."""

from collections.abc import Callable
from pathlib import Path

import git
import pytest

from agentgolf.domain import Outcome
from agentgolf.errors import AgentgolfError, InfrastructureError, InterruptedRunError
from agentgolf.ledger.lineage import replicate_rows, trial_rows
from agentgolf.ledger.store import Ledger, Row
from agentgolf.loop.observer import Observer
from tests.support import COURSE, Fixture, dump, edit, fake_sandbox

BETTER = edit("better", "QUALITY = 0.0", "QUALITY = 0.1")


def rows_of(fixture: Fixture) -> tuple[list[Row], list[Row]]:
    with Ledger(fixture.runs, write=False) as ledger:
        return trial_rows(ledger, 1), replicate_rows(ledger, 1)


def test_a_real_gain_is_kept_and_becomes_the_parent(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, [BETTER, edit("better still", "QUALITY = 0.1", "QUALITY = 0.3")])
    fixture.play(trials=2)
    trials, _ = rows_of(fixture)
    assert [(t["number"], t["parent"], t["verdict"]) for t in trials] == [
        (0, None, "keep"),
        (1, 0, "keep"),
        (2, 1, "keep"),
    ]
    assert trials[1]["gain_bpb"] == pytest.approx(0.1, abs=0.01)
    assert trials[2]["gain_low"] > 0


def test_the_kept_commit_is_the_branch_and_reverted_ones_stay_reachable(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, [BETTER, edit("worse", "QUALITY = 0.1", "QUALITY = 0.0001")])
    fixture.play(trials=2)
    trials, _ = rows_of(fixture)
    with git.Repo(fixture.runs / "r" / "store.git") as repo:
        assert repo.git.rev_parse("refs/heads/agentgolf/r") == trials[1]["commit_sha"]
        assert repo.git.rev_parse("refs/agentgolf/trials/2") == trials[2]["commit_sha"]
    assert trials[2]["verdict"] == "revert"


def test_a_hopeless_first_replicate_ends_the_trial(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, [edit("nothing", "RATE = 0.5", "RATE = 0.4"), edit("worse", "RATE = 0.5", "RATE = 9")])
    fixture.play(trials=2)
    trials, replicates = rows_of(fixture)
    assert [t["verdict"] for t in trials[1:]] == ["revert", "revert"]
    assert min(sum(r["trial"] == n and r["purpose"] == "search" for r in replicates) for n in (1, 2)) == 1


def test_incumbent_is_measured_again_beside_the_candidate(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, [BETTER])
    fixture.play(trials=1, jobs=2)
    _, replicates = rows_of(fixture)
    order = [(r["purpose"], r["trial"]) for r in replicates if r["purpose"] in ("search", "paired")]
    assert order == [("search", 1), ("paired", 0)] * 3


def test_the_final_is_on_fresh_seeds_and_the_other_half(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, [BETTER])
    fixture.play(trials=1)
    _, replicates = rows_of(fixture)
    final = [r for r in replicates if r["purpose"] == "final"]
    assert {r["heldout"] for r in final} == {"B"} and len(final) == 4
    assert not {r["seed"] for r in final} & {r["seed"] for r in replicates if r["purpose"] != "final"}
    assert all(r["heldout"] == "A" for r in replicates if r["purpose"] != "final")


def test_held_out_b_is_not_read_when_nothing_was_kept(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, [edit("crash", "RATE", "# fake: crash\nRATE")])
    fixture.play(trials=1)
    _, replicates = rows_of(fixture)
    assert all(r["heldout"] == "A" for r in replicates)


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        ("crash", Outcome.CRASHED),
        ("timeout", Outcome.TIMED_OUT),
        ("memory", Outcome.OUT_OF_MEMORY),
        ("huge", Outcome.OVERSIZED),
        ("lossy", Outcome.INVALID),
        ("nan", Outcome.INVALID),
        ("shape", Outcome.INVALID),
    ],
)
def test_failures_have_their_outcome_and_no_score(tmp_path: Path, word: str, outcome: Outcome) -> None:
    fixture = Fixture(tmp_path, [edit(word, "RATE = 0.5", f"# fake: {word}\nRATE = 0.5")])
    fixture.play(trials=1)
    trials, replicates = rows_of(fixture)
    assert (trials[1]["outcome"], trials[1]["verdict"], trials[1]["val_bpb"]) == (outcome, "revert", None)
    assert trials[1]["reason"]
    assert all(r["val_bpb"] is None for r in replicates if r["trial"] == 1)


def test_rejected_edits_cost_no_training(tmp_path: Path) -> None:
    lines = [
        {"hypothesis": "not a diff", "diff": "hello"},
        {"hypothesis": "frozen", "diff": "--- a/course.toml\n+++ b/course.toml\n@@ -1 +1 @@\n-x\n+y\n"},
        {"hypothesis": "does not apply", "diff": "--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-x\n+y\n"},
        edit("nothing", "absent", "present"),
        edit("once", "RATE = 0.5", "RATE = 0.6"),
        edit("twice", "RATE = 0.5", "RATE = 0.6"),
    ]
    fixture = Fixture(tmp_path, lines)
    fixture.play(trials=6)
    trials, replicates = rows_of(fixture)
    assert [t["outcome"] for t in trials[1:]] == ["rejected"] * 4 + ["ok", "rejected"]
    assert "freezes" in trials[2]["reason"] and "trial 5" in trials[6]["reason"]
    assert {r["trial"] for r in replicates} == {0, 5}


def test_a_used_up_script_ends_the_search(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, [BETTER])
    fixture.play(trials=None)
    trials, _ = rows_of(fixture)
    assert len(trials) == 2


def test_a_baseline_that_does_not_train_is_one_clear_error(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, [])
    (tmp_path / "course" / "repo" / "train.py").write_text("# fake: crash\n")
    with pytest.raises(AgentgolfError, match="the baseline does not finish"):
        fixture.play(trials=1)


def test_two_slots_give_the_same_lineage_as_a_resume(tmp_path: Path) -> None:
    lines = [BETTER, edit("x", "RATE = 0.5", "RATE = 0.7")]
    first, second = Fixture(tmp_path / "a", lines), Fixture(tmp_path / "b", lines)
    first.play(trials=2, jobs=2)
    second.play(trials=2, jobs=2)
    a, b = dump(first.runs), dump(second.runs)
    assert a["trials"] == b["trials"] and a["replicates"] == b["replicates"]


class Notes(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class StopAt(Observer):
    """Asks to stop when a trial reaches its first scoring."""

    def __init__(self, trial: int) -> None:
        self.trial = trial
        self.stop: Callable[[], object] = list  # until the test knows the crew

    def stage(self, trial: int, what: str) -> None:
        if trial == self.trial and what.startswith("scoring"):
            self.stop()


def test_a_stop_is_resumable_to_the_same_end(tmp_path: Path) -> None:
    lines = [BETTER, edit("x", "RATE = 0.5", "RATE = 0.7")]
    whole, stopped = Fixture(tmp_path / "a", lines), Fixture(tmp_path / "b", lines)
    whole.play(trials=2)
    observer = StopAt(1)
    with Ledger(stopped.runs, write=True) as ledger:
        row = stopped.create(ledger, trials=2)
        with stopped.campaign(ledger, row, fake_sandbox(), observer) as campaign:
            observer.stop = campaign.crew.stop
            with pytest.raises(InterruptedRunError):
                campaign.run()
    stopped.play(trials=2)
    strip = [{k: v for k, v in row.items() if k != "scaffold"} for row in dump(whole.runs)["runs"]]
    assert strip == [{k: v for k, v in row.items() if k != "scaffold"} for row in dump(stopped.runs)["runs"]]
    for table in ("trials", "replicates", "executions", "blobs"):
        assert dump(whole.runs)[table] == dump(stopped.runs)[table]


def test_an_engine_that_comes_back_costs_nothing_but_time(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, [BETTER])
    sandbox = fake_sandbox(fail_next=2)
    observer = Notes()
    with Ledger(fixture.runs, write=True) as ledger:
        row = fixture.create(ledger, trials=1)
        with fixture.campaign(ledger, row, sandbox, observer) as campaign:
            campaign.crew.retry_wait_seconds = 0.01
            campaign.run()
    trials, _ = rows_of(fixture)
    assert trials[1]["verdict"] == "keep"
    assert sum("trying again" in note for note in observer.notes) == 2


def test_an_engine_that_stays_away_stops_the_run_resumable(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, [BETTER])
    with Ledger(fixture.runs, write=True) as ledger:
        row = fixture.create(ledger, trials=1)
        with fixture.campaign(ledger, row, fake_sandbox(fail_next=99)) as campaign:
            campaign.crew.retry_wait_seconds = 0.01
            with pytest.raises(InfrastructureError):
                campaign.run()
    fixture.play(trials=1)
    trials, replicates = rows_of(fixture)
    assert trials[1]["verdict"] == "keep"
    assert all(r["outcome"] == "ok" for r in replicates)


def test_a_spent_budget_is_not_given_back(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, [BETTER], COURSE.replace("train_seconds = 5", "train_seconds = 1"))
    with Ledger(fixture.runs, write=True) as ledger:
        row = fixture.create(ledger, trials=None, budget=1000.0)
        with fixture.campaign(ledger, row, fake_sandbox()) as campaign:
            campaign.budget.beat(force=True)
            ledger.db.execute("UPDATE sessions SET spent_seconds = 1000.0")
    fixture.play(trials=None)
    trials, _ = rows_of(fixture)
    assert len(trials) == 1, "nothing is left: not even one trial may start"


def test_a_peeking_candidate_is_invalid_and_has_no_score(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, [BETTER, edit("peeks", "QUALITY = 0.1", "QUALITY = 0.4  # fake: peek")])
    fixture.play(trials=2)
    trials, _ = rows_of(fixture)
    kept, cheat = trials[1], trials[2]
    assert kept["verdict"] == "keep" and 0 < kept["leak_bound_bpb"] < 0.002 and kept["leak_replays"] > 100
    assert (cheat["outcome"], cheat["verdict"], cheat["val_bpb"], cheat["gain_bpb"]) == (
        "invalid",
        "revert",
        None,
        None,
    )
    assert cheat["reason"].startswith("it peeks: with later tokens withheld at least 0.")
    with Ledger(fixture.runs, write=False) as ledger:
        run = ledger.rows("SELECT * FROM runs")[0]
        stages = [row["stage"] for row in ledger.rows("SELECT stage FROM causality ORDER BY stage")]
    assert run["final_trouble"] == "" and 0 < run["final_leak_bound_bpb"] < 0.002
    # The cheat is convicted by a small audit of one artifact; the other is asked about all three of its own.
    assert stages == ["final"] * 2 + ["keep"] * 3 + ["ordinary"] * 2


def test_a_resume_on_another_image_is_said(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, [BETTER])
    first, other = fake_sandbox(), fake_sandbox()
    first.image_id, other.image_id = "", "sha256:other"
    with Ledger(fixture.runs, write=True) as ledger:
        row = fixture.create(ledger, trials=1)
        assert row["image_id"] == ""
        for sandbox, notes in ((first, Notes()), (other, Notes())):
            with fixture.campaign(ledger, row, sandbox, notes):
                pass
            said = any("not the one that this run began with" in note for note in notes.notes)
            assert said is (sandbox is other)
