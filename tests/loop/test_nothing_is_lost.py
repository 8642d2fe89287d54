"""Kills a real process at every transition, and again while it recovers; the end must be the same."""

import functools
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from agentgolf.errors import AgentgolfError, DiskFullError, EnvironmentNotReadyError, LedgerBusyError
from agentgolf.ledger.failures import disk_error
from agentgolf.ledger.store import LEDGER_FILE, Ledger
from agentgolf.loop.cleanup import cleanup
from tests.support import COURSE, Fixture, dump, edit, fake_sandbox

LINES = [
    edit("better", "QUALITY = 0.0", "QUALITY = 0.1"),
    edit("crash", "RATE = 0.5", "# fake: crash\nRATE = 0.5"),
    {"hypothesis": "not a diff", "diff": "hello"},
]
PLAYS_AT_ONCE = 4
SMALL = COURSE.replace("looks = [1, 3]", "looks = [1, 2]").replace("baseline_replicates = 3", "baseline_replicates = 2")


def play_and_die(fixture: Fixture, die_at: int | None, trials: int = 3) -> tuple[int, list[str]]:
    """Play in a child that kills itself at the given event; gives its exit status and the events it saw."""
    seen_path = fixture.runs.parent / "seen"
    pid = os.fork()
    if pid == 0:
        events = 0

        def on_transition(what: str) -> None:
            nonlocal events
            events += 1
            with seen_path.open("a") as seen:
                seen.write(what + "\n")
            if events == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            fixture.play(trials=trials, on_transition=on_transition)
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(pid, 0)[1]
    seen = seen_path.read_text().splitlines() if seen_path.exists() else []
    seen_path.unlink(missing_ok=True)
    return os.waitstatus_to_exitcode(status), seen


def moments(events: list[str]) -> list[int]:
    """After every transition, and just before the first commit of each kind."""
    firsts = {events.index(what) + 1 for what in set(events) if what.startswith("before")}
    return sorted(firsts | {n for n, what in enumerate(events, 1) if not what.startswith("before")})


def without_folder(tables: dict[str, list[dict[str, object]]]) -> dict[str, list[dict[str, object]]]:
    """The scaffold's path differs between two fixtures, and only that."""
    return {**tables, "runs": [{k: v for k, v in row.items() if k != "scaffold"} for row in tables["runs"]]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[dict[str, object]]], list[str]]:
    """The uninterrupted run: its ledger and its events."""
    fixture = Fixture(tmp_path_factory.mktemp("whole"), LINES, SMALL)
    status, events = play_and_die(fixture, None)
    assert status == 0
    return without_folder(dump(fixture.runs)), events


def test_every_transition_happens(whole: tuple[dict[str, list[dict[str, object]]], list[str]]) -> None:
    _, events = whole
    wanted = {"proposed", "applied", "launched", "collected", "scored", "decided", "run started", "run finished"}
    assert wanted <= set(events) and {f"before {what}" for what in wanted} <= set(events)


@pytest.mark.timeout(900)
def test_killed_at_any_transition_and_again_in_recovery_the_end_is_the_same(
    tmp_path: Path, whole: tuple[dict[str, list[dict[str, object]]], list[str]]
) -> None:
    expected, events = whole
    # The plays wait more than they work. Fresh processes, since a thread may not fork.
    with ProcessPoolExecutor(PLAYS_AT_ONCE, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(functools.partial(_killed_and_resumed, tmp_path, expected, events), moments(events)))


def _killed_and_resumed(
    root: Path, expected: dict[str, list[dict[str, object]]], events: list[str], die_at: int
) -> None:
    fixture = Fixture(root / str(die_at), LINES, SMALL)
    killed, seen = play_and_die(fixture, die_at)
    assert killed == -signal.SIGKILL and seen == events[:die_at]
    # In recovery it dies again, a little later each time, before it may finish.
    again, _ = play_and_die(fixture, 1 + die_at % 5)
    assert again in (-signal.SIGKILL, 0)
    finished, _ = play_and_die(fixture, None)
    assert finished == 0
    assert without_folder(dump(fixture.runs)) == expected, f"killed at event {die_at}: {events[die_at - 1]}"
    with Ledger(fixture.runs, write=True) as ledger:
        cleanup(ledger, dry_run=False)
        assert cleanup(ledger, dry_run=True) == []
    assert not list((fixture.runs / "r" / "work").glob("*"))
    shutil.rmtree(root / str(die_at))


def test_nothing_finished_is_trained_twice(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, LINES, SMALL)
    died = [False]

    class DieError(Exception):
        pass

    def on_transition(what: str) -> None:
        if what == "collected" and not died[0]:
            died[0] = True
            raise DieError

    first, second = fake_sandbox(), fake_sandbox()
    with pytest.raises(DieError):
        fixture.play(trials=3, sandbox=first, on_transition=on_transition)
    fixture.play(trials=3, sandbox=second)
    trained = [name for name in first.started + second.started if name.endswith("-train")]
    assert len(trained) == len(set(trained))


def fill_disk(after: int) -> Callable[[str], None]:
    """SQLite's own error for a full disk, at the n-th transition."""
    count = 0

    def on_transition(what: str) -> None:
        nonlocal count
        count += what.startswith("before")
        if count == after:
            raise sqlite3.OperationalError("database or disk is full")

    return on_transition


@pytest.mark.parametrize("after", [4, 7, 12])
def test_a_full_disk_is_one_sentence_and_loses_nothing(
    tmp_path: Path, after: int, whole: tuple[dict[str, list[dict[str, object]]], list[str]]
) -> None:
    fixture = Fixture(tmp_path, LINES, SMALL)
    with pytest.raises(DiskFullError, match="disk of .* is full; free some space, then: agentgolf resume"):
        fixture.play(trials=3, on_transition=fill_disk(after))
    fixture.play(trials=3)
    assert without_folder(dump(fixture.runs)) == whole[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_really_full_disk(tmp_path: Path, whole: tuple[dict[str, list[dict[str, object]]], list[str]]) -> None:
    """The ledger's folder on a file system of its own, which fills up; then it is given more room."""
    fixture = Fixture(tmp_path, LINES, SMALL)
    fixture.runs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(fixture.runs)], check=True)
    try:
        with pytest.raises((DiskFullError, EnvironmentNotReadyError, OSError)) as caught:
            fixture.play(trials=3)
        error = caught.value
        assert isinstance(error, AgentgolfError) or (isinstance(error, OSError) and disk_error(error)), error
        assert "full" in str(error) or "No space left" in str(error)
        subprocess.run(["mount", "-o", "remount,size=50m", str(fixture.runs)], check=True)
        fixture.play(trials=3)
        assert without_folder(dump(fixture.runs)) == whole[0]
    finally:
        subprocess.run(["umount", str(fixture.runs)], check=True)


def test_a_locked_ledger_is_one_sentence_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: tuple[dict[str, list[dict[str, object]]], list[str]]
) -> None:
    monkeypatch.setattr("agentgolf.ledger.store.BUSY_SECONDS", 0.1)
    fixture = Fixture(tmp_path, LINES, SMALL)
    blockers: list[sqlite3.Connection] = []

    def on_transition(what: str) -> None:
        if what == "collected" and not blockers:
            other = sqlite3.connect(fixture.runs / LEDGER_FILE, isolation_level=None, check_same_thread=False)
            other.execute("BEGIN IMMEDIATE")
            blockers.append(other)

    with pytest.raises(LedgerBusyError, match="locked; close it, then: agentgolf resume"):
        fixture.play(trials=3, on_transition=on_transition)
    blockers[0].close()
    fixture.play(trials=3)
    assert without_folder(dump(fixture.runs)) == whole[0]


def test_a_second_process_is_turned_away(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, LINES, SMALL)
    with Ledger(fixture.runs, write=True), pytest.raises(LedgerBusyError, match=f"process {os.getpid()}"):
        Ledger(fixture.runs, write=True)
