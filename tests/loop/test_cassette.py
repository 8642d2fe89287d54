"""A run's replies kept in a file, and played again without a model."""

import json
from pathlib import Path

import pytest

from agentgolf.errors import ModelError, UsageError
from agentgolf.ledger.store import Ledger
from agentgolf.loop import session
from agentgolf.loop.cassette import open_tape
from agentgolf.loop.observer import Observer
from agentgolf.proposer import keys
from tests.loop.test_agent import Agent, improve
from tests.loop.test_agent_tools import Notes, submit
from tests.proposer.model_server import serving
from tests.support import fake_sandbox


def play(agent: Agent, observer: Observer, record: Path | None = None, replay: Path | None = None) -> None:
    with Ledger(agent.runs, write=True) as ledger:
        rows = ledger.rows("SELECT * FROM runs")
        row = rows[0] if rows else agent.create(ledger, trials=2)
        tape = open_tape(record, replay, observer.note)
        slots = agent.slots(1)
        with session.open_campaign(ledger, row, agent.course, fake_sandbox(), slots, observer, None, tape) as campaign:
            campaign.run()


def test_a_recorded_run_plays_again_without_model_or_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tape = tmp_path / "replies.jsonl"
    with serving(improve) as served:
        first = Agent(tmp_path / "first", served, monkeypatch, lessons=True)
        play(first, Observer(), record=tape)
        asked = len(served.requests)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        keys.forget()
        monkeypatch.delenv("OPENAI_BASE_URL")
        second = Agent(tmp_path / "second", served, monkeypatch, lessons=True)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        keys.forget()
        monkeypatch.delenv("OPENAI_BASE_URL")
        play(second, Observer(), replay=tape)
        assert len(served.requests) == asked
    chosen = "SELECT hypothesis, edits_json, verdict FROM trials ORDER BY number"
    assert first.rows(chosen) == second.rows(chosen) and len(first.rows(chosen)) == 3
    assert second.rows("SELECT sum(cost_usd) AS cost FROM calls") == [{"cost": 0.0}]


def test_a_run_that_leaves_the_recorded_one_says_so_and_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape, notes = tmp_path / "replies.jsonl", Notes()
    with serving(improve) as served:
        play(Agent(tmp_path / "first", served, monkeypatch), Observer(), record=tape)
        lines = [json.loads(line) for line in tape.read_text().splitlines()]
        lines[0]["request_sha256"] = "another"
        tape.write_text(json.dumps(lines[0]) + "\n")
        second = Agent(tmp_path / "second", served, monkeypatch)
        with pytest.raises(ModelError, match=r"has no reply for trial 2 at place 1.*agentgolf resume"):
            play(second, notes, replay=tape)
        assert any("asked a little differently" in note for note in notes.notes)
        play(second, Observer())
    assert len(second.rows("SELECT 1 FROM trials WHERE verdict = 'keep'")) == 3


def test_tool_calls_are_recorded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tape = tmp_path / "replies.jsonl"
    script = [submit("QUALITY = 0.0", "QUALITY = 0.1"), submit("QUALITY = 0.1", "QUALITY = 0.2")]
    with serving(lambda _, number: script[number]) as served:
        play(Agent(tmp_path / "first", served, monkeypatch, scaffold="tool-agent"), Observer(), record=tape)
        second = Agent(tmp_path / "second", served, monkeypatch, scaffold="tool-agent")
        play(second, Observer(), replay=tape)
        assert len(served.requests) == 2
    assert len(second.rows("SELECT 1 FROM trials WHERE verdict = 'keep'")) == 3


@pytest.mark.parametrize("text", [None, "{not json\n", '{"trial": 1}\n', "[]\n"])
def test_a_recording_of_no_use_is_one_sentence(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "replies.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=r"replies\.jsonl"):
        open_tape(None, path, lambda _: None)
