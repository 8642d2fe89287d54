"""Suggestions, vetoes and pins, said while a run is under way."""

import sys
from pathlib import Path

import pytest

from agentgolf.cli.app import main
from agentgolf.domain import Proposal
from agentgolf.ledger.lineage import find_run, summaries, trial_rows
from agentgolf.ledger.steering import waiting_suggestions
from agentgolf.ledger.store import Ledger
from agentgolf.proposer.base import Context, Suggestion
from agentgolf.proposer.catalogue import Technique
from agentgolf.proposer.playbook import PlaybookProposer
from agentgolf.report.summary import summarize
from agentgolf.report.tree import tree_rows
from tests.loop.test_agent import Agent, improve, prompt_of
from tests.proposer.model_server import serving
from tests.support import Fixture, edit, fake_sandbox

STEPS = [
    edit("first", "QUALITY = 0.0", "QUALITY = 0.1"),
    edit("second", "QUALITY = 0.1", "QUALITY = 0.2"),
    edit("third", "QUALITY = 0.1", "QUALITY = 0.3"),
]


def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["agentgolf", *map(str, words)])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out + err


def test_a_veto_in_a_running_run_turns_the_search_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fixture = Fixture(tmp_path, STEPS)

    def on_transition(what: str) -> None:
        with Ledger(fixture.runs, write=False) as ledger:
            decided = ledger.rows("SELECT number FROM trials WHERE state = 'decided'")
        if what == "decided" and len(decided) == 3:
            assert say(monkeypatch, capsys, "veto", "r:2", "--runs", fixture.runs) == (
                0,
                "r:2 is vetoed; the search goes on beside it\n",
            )

    fixture.play(trials=3, on_transition=on_transition)
    with Ledger(fixture.runs, write=False) as ledger:
        rows = trial_rows(ledger, 1)
        assert [(r["number"], r["parent"], r["verdict"]) for r in rows] == [
            (0, None, "keep"), (1, 0, "keep"), (2, 1, "keep"), (3, 1, "keep"),
        ]  # fmt: skip
        summary = summarize(ledger, None)
        assert (summary.incumbent, summary.final_replicates) == (3, 2)
        marks = {row["trial"]: (row["kept_path"], row["steering"]) for row in tree_rows(ledger, None)[1]}
        assert marks == {0: (True, ""), 1: (True, ""), 2: (False, "vetoed"), 3: (True, "")}


def test_a_pin_makes_the_search_start_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = edit("worse", "QUALITY = 0.1", "QUALITY = 0.05")
    fixture = Fixture(tmp_path, [STEPS[0], worse, edit("from there", "QUALITY = 0.05", "QUALITY = 0.4")])

    def on_transition(what: str) -> None:
        with Ledger(fixture.runs, write=False) as ledger:
            decided = ledger.rows("SELECT number FROM trials WHERE state = 'decided'")
        if what == "decided" and len(decided) == 3:
            assert say(monkeypatch, capsys, "pin", "r:2", "--runs", fixture.runs)[0] == 0

    fixture.play(trials=3, on_transition=on_transition)
    with Ledger(fixture.runs, write=False) as ledger:
        assert [(r["number"], r["parent"], r["verdict"]) for r in trial_rows(ledger, 1)][2:] == [
            (2, 1, "revert"), (3, 2, "keep"),
        ]  # fmt: skip
        assert summarize(ledger, None).incumbent == 3


def test_a_model_takes_a_suggestion_up_once_and_is_credited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(improve) as served:
        agent = Agent(tmp_path, served, monkeypatch)
        with Ledger(agent.runs, write=True) as ledger:
            agent.create(ledger, trials=2)
        code, out = say(monkeypatch, capsys, "suggest", "try  a wider\nembedding", "--runs", agent.runs)
        assert (code, out) == (0, "queued for r; 1 waiting\n")
        agent.play(trials=2)
    assert "A researcher suggests: try a wider embedding" in prompt_of(served.requests[0])
    assert "suggests" not in prompt_of(served.requests[1])
    with Ledger(agent.runs, write=False) as ledger:
        assert waiting_suggestions(ledger, 1) == []
        assert [row["suggestion"] for row in tree_rows(ledger, None)[1]] == ["", "try a wider embedding", ""]
    assert "try a wider embedding" in say(monkeypatch, capsys, "show", "1", "--runs", agent.runs)[1]


def test_the_playbook_finds_the_technique_that_is_meant() -> None:
    names = {
        "sliding_window": "sliding-window evaluation",
        "xsa": "exclusive self attention",
        "wider_mlp": "MLP three times the width",
    }
    playbook = PlaybookProposer(
        [
            Technique(name=name, title=title, order=i, bytes="neither", body="", diff="d")
            for i, (name, title) in enumerate(names.items())
        ]
    )

    def proposed(text: str) -> Proposal:
        return playbook.propose(
            Context(
                run_seed=0,
                number=1,
                parent=0,
                origin="o",
                files={},
                origin_files={},
                lineage=[],
                history=[],
                cap_bytes=1,
                suggestion=Suggestion(id=7, text=text),
            )
        )

    assert proposed("try exclusive self attention (XSA)").technique == "xsa"
    assert proposed("a wider MLP").detail["suggestion"] == 7
    other = proposed("a better learning rate")
    assert other.technique == "sliding_window" and "suggestion" not in other.detail


def test_what_cannot_be_steered_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fixture = Fixture(tmp_path, [edit("crash", "RATE = 0.5", "RATE = 0.5  # fake: crash")])
    with Ledger(fixture.runs, write=True) as ledger:
        row = fixture.create(ledger, trials=1)
        with fixture.campaign(ledger, row, fake_sandbox()) as campaign:
            campaign._baseline()
            trial = campaign._next_trial()
            assert trial is not None
            campaign._play(trial)
    runs = ("--runs", fixture.runs)
    for words, sentence in (
        (("veto", "0"), "the baseline cannot be vetoed"),
        (("pin", "1"), "trial 1 has no score to search from (crashed)"),
        (("pin",), "name a trial to pin, or say --off"),
        (("suggest", "  "), "between 1 and 2,000 characters"),
        (("veto", "9"), "has no trial 9"),
    ):
        code, out = say(monkeypatch, capsys, *words, *runs)
        assert code == 2 and sentence in out, out
    assert say(monkeypatch, capsys, "pin", "--off", *runs)[0] == 0
    fixture.play(trials=1)
    code, out = say(monkeypatch, capsys, "suggest", "too late", *runs)
    assert code == 2 and "is finished" in out
    with Ledger(fixture.runs, write=False) as ledger:
        assert len(summaries(trial_rows(ledger, find_run(ledger, None)["id"]))) == 2
