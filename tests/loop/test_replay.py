"""Replaying a trial: the recorded score holds, changed seeds, and winning diffs on another commit."""

from pathlib import Path

import pytest

from agentgolf.errors import PatchError, UsageError
from agentgolf.ledger.store import Ledger
from agentgolf.loop.observer import Observer
from agentgolf.loop.replay import ReplayRequest, ReplayResult, find_target, parse_seeds, replay
from agentgolf.patch.workspace import GitStore
from tests.support import TRAIN_FILE, Fixture, dump, edit, fake_sandbox

LINES = [edit("better", "QUALITY = 0.0", "QUALITY = 0.1"), edit("and again", "QUALITY = 0.1", "QUALITY = 0.2")]


@pytest.fixture
def fixture(tmp_path: Path) -> Fixture:
    made = Fixture(tmp_path, LINES)
    made.play(trials=2)
    return made


def run(
    fixture: Fixture, target: str, *, seeds: str | None = None, onto: str | None = None, final: bool = False
) -> ReplayResult:
    with Ledger(fixture.runs, write=False) as ledger:
        row, trial = find_target(ledger, target)
        request = ReplayRequest(run=row, trial=trial, seeds=parse_seeds(seeds), onto=onto, split_b=final)
        return replay(ledger, request, fixture.course, fake_sandbox(), fixture.slots(2), Observer())


def test_the_recorded_seeds_give_the_recorded_score_and_the_ledger_stays(fixture: Fixture) -> None:
    before = dump(fixture.runs)
    result = run(fixture, "1")
    assert result.holds and result.replayed == pytest.approx(result.recorded) and len(result.seeds) == 3
    assert dump(fixture.runs) == before


def test_other_seeds_fall_in_the_interval(fixture: Fixture) -> None:
    result = run(fixture, "r:1", seeds="1,2,3")
    assert result.seeds == (1, 2, 3) and result.replayed != result.recorded and result.holds


def test_a_run_means_its_incumbent_and_final_gives_the_gain_on_b(fixture: Fixture) -> None:
    result = run(fixture, "r", final=True)
    assert (result.trial, result.split) == (2, "B")
    assert result.gain == pytest.approx(0.2, abs=0.01) and result.gain_low is not None and result.gain_low > 0
    assert result.recorded_gain == pytest.approx(result.gain)


def test_a_score_that_does_not_come_back_is_said(fixture: Fixture) -> None:
    with Ledger(fixture.runs, write=True) as ledger:
        ledger.db.execute("DROP TRIGGER scored_replicates_stay")
        ledger.db.execute("UPDATE replicates SET val_bpb = val_bpb - 0.5 WHERE trial_id = 2 AND purpose = 'search'")
    assert not run(fixture, "1").holds


def test_winning_diffs_go_onto_another_commit_in_order(fixture: Fixture) -> None:
    store = GitStore(fixture.runs / "r" / "store.git")
    other = store.commit_files({"train.py": TRAIN_FILE.replace("RATE = 0.5", "RATE = 0.8").encode()}, "other")
    result = run(fixture, "2", onto=other)
    assert result.commit and b"QUALITY = 0.2" in store.files(result.commit)["train.py"]
    assert b"RATE = 0.8" in store.files(result.commit)["train.py"]
    clash = store.commit_files({"train.py": TRAIN_FILE.replace("QUALITY = 0.0", "QUALITY = 0.9").encode()}, "clash")
    with pytest.raises(PatchError, match="trial 1 .* does not go onto"):
        run(fixture, "2", onto=clash)


def test_an_unknown_commit_and_bad_seeds_are_one_sentence(fixture: Fixture) -> None:
    with pytest.raises(UsageError, match="PATH@REF"):
        run(fixture, "2", onto="nowhere")
    with pytest.raises(UsageError, match="1,2,3"):
        parse_seeds("a,b")
