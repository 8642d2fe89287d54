"""Kills a run that a model proposes for at every kind of transition, before and after its commit: the end is the same, and no reply is paid for twice."""

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgolf.ledger.store import Ledger
from tests.loop.test_agent import Agent
from tests.loop.test_agent_tools import call, submit, told
from tests.loop.test_nothing_is_lost import play_and_die
from tests.proposer.model_server import Served, Turn, serving

CHOSEN = (
    "SELECT number, hypothesis, edits_json, outcome, verdict, round(val_bpb, 9) AS bpb, detail_json "
    "FROM trials ORDER BY number"
)


def script(request: dict[str, Any], _: int) -> Turn:
    """Tries an edit, then submits it; a lesson when asked for one. What it says depends on what it is asked alone."""
    text = request["messages"][-1]["content"]
    if "Write one line" in text:
        return Turn(text="quality pays")
    prompt = request["messages"][1]["content"]
    quality = re.search(r"^QUALITY = ([\d.]+)", prompt, re.MULTILINE)
    assert quality is not None
    new = f"QUALITY = {float(quality[1]) + 0.1:.1f}"
    if "Being measured now" in prompt:  # made ahead: it must not meet the first on the same line
        return submit("RATE = 0.5", "RATE = 0.4", "another rate")
    edit = {"path": "train.py", "search": quality[0], "replace": new}
    return submit(quality[0], new) if told(request) else call("smoke_test", edits=[edit])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """In a process of its own: a process that is to be forked should have no threads."""
    log, (ours, theirs) = tmp_path / "asked", os.pipe()
    pid = os.fork()
    if pid == 0:

        def answer(request: dict[str, Any], number: int) -> Turn:
            with log.open("a") as lines:
                lines.write(json.dumps(request, sort_keys=True) + "\n")
            return script(request, number)

        with serving(answer) as served:
            os.write(theirs, served.url.encode())
            os.close(theirs)
            threading.Event().wait()
    os.close(theirs)
    url = os.read(ours, 100).decode()
    os.close(ours)
    yield url, log
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.timeout(900)
def test_a_model_s_run_killed_anywhere_comes_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[str, Path]
) -> None:
    url, log = server

    def fresh(name: str) -> Agent:
        return Agent(tmp_path / name, Served(url), monkeypatch, scaffold="tool-agent", ahead=True, lessons=True)

    whole = fresh("whole")
    status, events = play_and_die(whole, None, trials=2)
    assert status == 0 and {"opened", "asked", "answered", "tool used", "learned"} <= set(events)
    expected = whole.rows(CHOSEN)
    assert [row["verdict"] for row in expected][:2] == ["keep", "keep"] and len(expected) == 3
    asked = len(log.read_text().splitlines())
    for die_at in sorted({kind: at for at, kind in enumerate(events, 1)}.values()):
        log.unlink()
        agent = fresh(f"killed-{die_at}")
        status, _ = play_and_die(agent, die_at, trials=2)
        assert status in (0, -signal.SIGKILL)
        assert play_and_die(agent, None, trials=2)[0] == 0
        assert agent.rows(CHOSEN) == expected, f"killed at event {die_at}, {events[die_at - 1]}"
        with Ledger(agent.runs, write=False) as ledger:
            paid = ledger.rows(
                "SELECT trial_number, position, count(*) AS n FROM calls WHERE state = 'answered' GROUP BY 1, 2"
            )
            lost = ledger.rows("SELECT count(*) AS n FROM calls WHERE state = 'sent'")[0]["n"]
        assert all(row["n"] == 1 for row in paid), f"killed at event {die_at}, {events[die_at - 1]}: {paid}"
        # What was on its way when the process died is asked again: of two that were, the proposal and the lesson.
        assert len(log.read_text().splitlines()) <= asked + lost and lost <= 2
