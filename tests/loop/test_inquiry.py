"""`agentgolf audit` on recorded trials, and what the ledger keeps of it and of readings of held-out B."""

import sqlite3
from pathlib import Path

import pytest

from agentgolf.domain import Split
from agentgolf.errors import UsageError
from agentgolf.ledger.schema import MIGRATIONS
from agentgolf.ledger.store import LEDGER_FILE, Ledger
from agentgolf.loop.inquiry import AuditRequest, AuditResult, audit
from agentgolf.loop.observer import Observer
from agentgolf.loop.replay import ReplayRequest, find_target, replay
from tests.support import Fixture, edit, fake_sandbox

BETTER = edit("better", "QUALITY = 0.0", "QUALITY = 0.1")
PEEKS = edit("peeks", "QUALITY = 0.1", "QUALITY = 0.4  # fake: peek")


@pytest.fixture(scope="module")
def fixture(tmp_path_factory: pytest.TempPathFactory) -> Fixture:
    made = Fixture(tmp_path_factory.mktemp("inquiry"), [BETTER, PEEKS])
    made.play(trials=2)
    return made


def ask(
    fixture: Fixture, trial: str, *, replays: int | None = None, lockstep: bool = False, split: Split = Split.A
) -> AuditResult:
    with Ledger(fixture.runs, write=False) as ledger:
        run, row = find_target(ledger, trial)
        request = AuditRequest(run=run, trial=row, replays=replays, lockstep=lockstep, split=split)
        return audit(ledger, request, fixture.course, fake_sandbox(), fixture.slots(2), Observer())


def test_a_kept_trial_is_clean(fixture: Fixture) -> None:
    found = ask(fixture, "1")
    assert found.clean and found.leak_bound_bpb is not None and found.leak_bound_bpb < 0.002
    assert found.artifacts == 5 and abs(found.mean_nats) < 1e-6
    few = ask(fixture, "1", replays=3)
    assert not few.clean and few.leak_lower_bpb == 0, "too few to say"


def test_lockstep_needs_no_bound(fixture: Fixture) -> None:
    found = ask(fixture, "1", lockstep=True)
    assert found.clean and found.leak_bound_bpb is None and found.replayed_bpb == pytest.approx(found.claimed_bpb)
    cheat = ask(fixture, "2", lockstep=True)
    assert not cheat.clean and cheat.replayed_bpb is not None and cheat.replayed_bpb > cheat.claimed_bpb + 1


def test_a_cheat_is_convicted_again(fixture: Fixture) -> None:
    found = ask(fixture, "2")
    assert not found.clean and found.leak_lower_bpb is not None and found.leak_lower_bpb > 0.002


def test_what_was_never_scored_on_b_cannot_be_audited_on_b(fixture: Fixture) -> None:
    assert ask(fixture, "1", split=Split.B).clean
    with pytest.raises(UsageError, match="no scored artifact on held-out B .* only the incumbent and the baseline"):
        ask(fixture, "2", split=Split.B)


def test_every_reading_of_b_is_on_record(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, [BETTER])
    fixture.play(trials=1)

    def reads() -> list[str]:
        with Ledger(fixture.runs, write=False) as ledger:
            return sorted(row["read_by"] for row in ledger.rows("SELECT read_by FROM heldout_b_reads"))

    assert reads() == ["audit"] * 2 + ["run"] * 4
    ask(fixture, "1", split=Split.B)
    assert reads() == ["audit"] * 4 + ["run"] * 4
    with Ledger(fixture.runs, write=True) as held:  # a run in progress does not stand in the way
        run, row = find_target(held, "1")
        request = ReplayRequest(run=run, trial=row, seeds=(7,), onto=None, split_b=True)
        replay(held, request, fixture.course, fake_sandbox(), fixture.slots(1), Observer())
    assert reads() == ["audit"] * 4 + ["replay"] * 2 + ["run"] * 4


def test_an_older_ledger_is_brought_up_to_date_by_whoever_opens_it(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / LEDGER_FILE)
    connection.executescript(f"{MIGRATIONS[0]}\nPRAGMA user_version = 1;")
    connection.close()
    with Ledger(tmp_path, write=False) as ledger:
        assert ledger.rows("SELECT count(*) AS n FROM audits") == [{"n": 0}]
