"""Agents with tools, working ahead, learning and mending: a real server answers, the whole loop turns."""

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agentgolf.errors import InterruptedRunError
from agentgolf.ledger.store import Ledger
from agentgolf.loop.observer import Observer
from agentgolf.report.trajectory import print_trajectory, trajectory
from tests.loop.test_agent import Agent, improve, prompt_of
from tests.proposer.model_server import KEY, Turn, serving
from tests.support import fake_sandbox

WIRES = ("chat", "responses")


def call(name: str, **arguments: Any) -> Turn:
    return Turn(tool_calls=[(name, json.dumps(arguments))])


def submit(search: str, replace: str, hypothesis: str = "more quality") -> Turn:
    edit = {"path": "train.py", "search": search, "replace": replace}
    return call("submit", hypothesis=hypothesis, predicted_gain_bpb=0.1, edits=[edit])


def told(request: dict[str, Any]) -> list[str]:
    """What the tools have said so far in a conversation, in either protocol."""
    turns = request.get("messages") or request["input"]
    chat = [turn["content"] for turn in turns if turn.get("role") == "tool"]
    return chat or [turn["output"] for turn in turns if turn.get("type") == "function_call_output"]


class Notes(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("wire", WIRES)
def test_an_agent_reads_searches_looks_back_tries_and_submits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wire: str
) -> None:
    better = {"path": "train.py", "search": "QUALITY = 0.0", "replace": "QUALITY = 0.1"}
    crash = {"path": "train.py", "search": "RATE = 0.5", "replace": "RATE = 0.5  # fake: crash"}
    script = [
        call("read_file", path="train.py", first=3, last=3),
        call("search", text="rate"),
        call("history", trial=0),
        call("playbook", technique=""),
        call("playbook", technique="weight_decay"),
        call("smoke_test", edits=[crash]),
        call("smoke_test", edits=[better]),
        submit("QUALITY = 0.0", "QUALITY = 0.1"),
    ]
    with serving(lambda _, number: script[number]) as served:
        agent = Agent(tmp_path, served, monkeypatch, scaffold="tool-agent", wire=wire)
        agent.play(trials=1)
    assert agent.rows("SELECT verdict FROM trials WHERE number = 1") == [{"verdict": "keep"}]
    said = told(served.requests[-1])
    assert "lines 3 to 3 of 5:\nQUALITY = 0.0\n" in said[0] and "train.py:5: RATE = 0.5" in said[1]
    assert "the baseline" in said[2] and "sliding_window: " in said[3] and "--- a/" in said[4]
    assert "crashed" in said[5] and "it runs: " in said[6] and "bytes counted" in said[6]
    assert all(text.startswith("<data>\n") and text.endswith("\n</data>") for text in said)
    offered = [tool.get("name") or tool["function"]["name"] for tool in served.requests[-1]["tools"]]
    assert "submit" in offered and "smoke_test" not in offered  # its two tests are used up
    assert len(agent.rows("SELECT * FROM tool_uses")) == 2


@pytest.mark.parametrize(
    ("turn", "answered"),
    [
        (Turn(tool_calls=[("submit", "{not json")]), "not valid JSON"),
        (Turn(tool_calls=[("submit", "[1]")]), "must be an object"),
        (Turn(tool_calls=[("dig", "{}")]), "there is no tool 'dig'"),
        (Turn(tool_calls=[("history", '{"trial": "seven"}')]), "wrong arguments for history"),
        (Turn(tool_calls=[("search", "{}")]), "wrong arguments for search"),
        (Turn(tool_calls=[("read_file", '{"path": "/etc/passwd"}')]), "none of the editable files"),
        (submit("QUALITY = 7", "QUALITY = 8"), "these lines are not there"),
        (submit("QUALITY = 0.0", "QUALITY = 0.0"), "changes nothing"),
        (call("submit", hypothesis="", edits=[]), "hypothesis is missing"),
        (call("submit", hypothesis="x", edits="all of it"), "edits is missing"),
        (call("submit", hypothesis="x", edits=[{"path": "train.py"}]), "search and replace"),
    ],
)
def test_a_bad_tool_call_is_answered_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: Turn, answered: str
) -> None:
    script = [turn, submit("QUALITY = 0.0", "QUALITY = 0.1")]
    with serving(lambda _, number: script[number]) as served:
        agent = Agent(tmp_path, served, monkeypatch, scaffold="tool-agent")
        agent.play(trials=1)
    assert answered in told(served.requests[-1])[0]
    assert agent.rows("SELECT verdict FROM trials WHERE number = 1") == [{"verdict": "keep"}]


def test_an_agent_that_writes_its_edit_down_instead_of_calling_submit_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = [Turn(text="I would change the quality."), improve({"messages": [{"content": "QUALITY = 0.0"}]})]
    with serving(lambda _, number: script[number]) as served:
        agent = Agent(tmp_path, served, monkeypatch, scaffold="tool-agent")
        agent.play(trials=1)
    assert agent.rows("SELECT verdict FROM trials WHERE number = 1") == [{"verdict": "keep"}]
    assert "Nothing is submitted yet" in prompt_of(served.requests[1])
    assert "<<<<<<< SEARCH" in prompt_of(served.requests[1])
    assert served.requests[0]["tools"] == served.requests[1]["tools"]  # or the server reads the whole prompt again


def test_an_agent_that_never_submits_is_a_rejected_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda *_: call("search", text="x")) as served:
        agent = Agent(tmp_path, served, monkeypatch, scaffold="tool-agent", more="turns = 4")
        agent.play(trials=1)
    (trial,) = agent.rows("SELECT * FROM trials WHERE number = 1")
    assert trial["outcome"] == "rejected" and "no usable edit in 4 replies" in trial["reason"]
    assert len(served.requests) == 4
    # In the end it may do nothing else.
    assert [request.get("tool_choice") for request in served.requests] == [None, None, "required", "required"]
    assert len(served.requests[-1]["tools"]) == 1


def test_a_model_that_only_talks_about_its_tools_is_asked_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: dict[str, Any], _: int) -> Turn:
        return Turn(text="submit({'hypothesis': 'x'})") if "tools" in request else improve(request)

    notes = Notes()
    with serving(answer) as served:
        agent = Agent(tmp_path, served, monkeypatch, scaffold="tool-agent")
        agent.play(trials=2, observer=notes)
    assert [row["verdict"] for row in agent.rows("SELECT verdict FROM trials")] == ["keep"] * 3
    assert ["tools" in request for request in served.requests] == [True, True, False, False]
    assert any("talks about its tools and calls none; going on without" in note for note in notes.notes)
    assert "smoke_test" not in prompt_of(served.requests[-1])


def test_a_server_without_tools_is_asked_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: dict[str, Any], _: int) -> Turn:
        return Turn(status=400, text="this model does not support tools") if "tools" in request else improve(request)

    notes = Notes()
    with serving(answer) as served:
        agent = Agent(tmp_path, served, monkeypatch, scaffold="tool-agent")
        agent.play(trials=2, observer=notes)
    verdicts = [row["verdict"] for row in agent.rows("SELECT verdict FROM trials WHERE number > 0")]
    assert verdicts == ["keep", "keep"] and any("knows no tools" in note for note in notes.notes)
    assert ["tools" in request for request in served.requests] == [True, False, False]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("knows", [True, False])
def test_a_structured_answer_is_asked_for_and_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wire: str, knows: bool
) -> None:
    key = "text" if wire == "responses" else "response_format"

    def answer(request: dict[str, Any], _: int) -> Turn:
        if key not in request:
            return improve(request)
        if not knows:
            return Turn(status=400, text="json_schema is not supported here")
        edit = {"path": "train.py", "search": "QUALITY = 0.0", "replace": "QUALITY = 0.1"}
        return Turn(text=json.dumps({"hypothesis": "h", "predicted_gain_bpb": 0.1, "edits": [edit]}))

    with serving(answer) as served:
        agent = Agent(tmp_path, served, monkeypatch, more="structured = true", wire=wire)
        agent.play(trials=1)
    assert agent.rows("SELECT verdict FROM trials WHERE number = 1") == [{"verdict": "keep"}]
    assert [key in request for request in served.requests] == ([True] if knows else [True, False])


def test_a_resume_repeats_neither_a_paid_call_nor_a_smoke_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    better = {"path": "train.py", "search": "QUALITY = 0.0", "replace": "QUALITY = 0.1"}
    script = [call("smoke_test", edits=[better]), submit("QUALITY = 0.0", "QUALITY = 0.1")]

    class DieError(Exception):
        pass

    def die(what: str) -> None:
        if what == "tool used":
            raise DieError

    with serving(lambda _, number: script[number]) as served:
        agent = Agent(tmp_path, served, monkeypatch, scaffold="tool-agent")
        with pytest.raises(DieError):
            agent.play(trials=1, on_transition=die)
        agent.play(trials=1)
    assert agent.rows("SELECT verdict FROM trials WHERE number = 1") == [{"verdict": "keep"}]
    assert len(served.requests) == 2 and len(agent.rows("SELECT * FROM tool_uses")) == 1


def test_what_was_tried_is_refused_with_a_pointer_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worse = Turn(text="HYPOTHESIS: w\n<<<<<<< SEARCH\nRATE = 0.5\n=======\nRATE = 0.7\n>>>>>>> REPLACE\n")

    def answer(request: dict[str, Any], number: int) -> Turn:
        if number < 2:
            return worse
        assert "this is trial 1 again (revert: " in prompt_of(request)
        return improve(request)

    with serving(answer) as served:
        agent = Agent(tmp_path, served, monkeypatch)
        agent.play(trials=2)
    assert [row["verdict"] for row in agent.rows("SELECT verdict FROM trials")] == ["keep", "revert", "keep"]


def test_a_crash_goes_back_with_its_log_so_many_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crashing = (
        "HYPOTHESIS: a new rate\n<<<<<<< SEARCH\nRATE = 0.5\n=======\nRATE = {}  # fake: crash\n>>>>>>> REPLACE\n"
    )

    def answer(request: dict[str, Any], number: int) -> Turn:
        prompt = prompt_of(request)
        if number in (1, 2):
            assert f"Your change of trial {number} did not finish: crashed" in prompt
            assert "+RATE = 0." in prompt and "</data>" in prompt
        if number == 3:
            assert "did not finish" not in prompt
            return improve(request)
        return Turn(text=crashing.format(0.6 + number / 10))

    with serving(answer) as served:
        agent = Agent(tmp_path, served, monkeypatch, more="crash_repairs = 2")
        agent.play(trials=4)
    details = [json.loads(row["detail_json"]) for row in agent.rows("SELECT * FROM trials WHERE number > 0")]
    assert [(d.get("repairs"), d.get("repair_attempt")) for d in details] == [
        (None, None),
        (1, 1),
        (2, 2),
        (None, None),
    ]
    assert len(served.requests) == 4


def test_a_lesson_is_written_after_the_verdict_and_read_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: dict[str, Any], _: int) -> Turn:
        if "Write one line" in prompt_of(request):
            return Turn(text="**Quality pays; turn it up.**\nand more that nobody asked for")
        time.sleep(0.2)  # so that the lesson, asked at the same time, is there before the next but one
        return improve(request)

    with serving(answer) as served:
        agent = Agent(tmp_path, served, monkeypatch, lessons=True)
        agent.play(trials=3)
    lessons = agent.rows("SELECT text FROM lessons ORDER BY id")
    assert lessons[0]["text"] == "Quality pays; turn it up."
    assert "Lesson: Quality pays; turn it up." in json.dumps(served.requests[-1]) or any(
        "Lesson: Quality pays" in prompt_of(request) for request in served.requests
    )


def test_a_proposal_made_while_another_was_kept_is_merged_onto_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is made on the baseline while the first, which is kept, is measured."""

    def answer(request: dict[str, Any], number: int) -> Turn:
        if number == 0:
            return improve(request)
        assert "QUALITY = 0.0" in prompt_of(request)
        if number == 1:
            assert "Being measured now" in prompt_of(request) and "- more quality" in prompt_of(request)
        return Turn(text="HYPOTHESIS: rate\n<<<<<<< SEARCH\nRATE = 0.5\n=======\nRATE = 0.4\n>>>>>>> REPLACE\n")

    with serving(answer) as served:
        agent = Agent(tmp_path, served, monkeypatch, ahead=True)
        agent.play(trials=2)
    first, second = agent.rows("SELECT * FROM trials WHERE number > 0 ORDER BY number")
    assert first["verdict"] == "keep" and second["parent_id"] == first["id"] and second["state"] == "decided"
    with Ledger(agent.runs, write=False) as ledger:
        diff = ledger.blobs.read(second["diff_sha256"]).decode()
    assert "+RATE = 0.4" in diff and "QUALITY" not in diff.replace(" QUALITY = 0.1", "")


def test_a_proposal_that_conflicts_with_what_was_kept_meanwhile_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: dict[str, Any], number: int) -> Turn:
        quality = "0.1" if number == 0 else "0.3"
        return Turn(
            text=f"HYPOTHESIS: q\n<<<<<<< SEARCH\nQUALITY = 0.0\n=======\nQUALITY = {quality}\n>>>>>>> REPLACE\n"
        )

    with serving(answer) as served:
        agent = Agent(tmp_path, served, monkeypatch, ahead=True)
        agent.play(trials=2)
    (second,) = agent.rows("SELECT * FROM trials WHERE number = 2")
    assert second["outcome"] == "rejected" and "conflict" in second["reason"]


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_while_the_model_thinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, presses: int) -> None:
    """Once: the reply, which is paid for, still arrives and is kept. Twice: at once."""
    asked, go_on = threading.Event(), threading.Event()

    def answer(request: dict[str, Any], _: int) -> Turn:
        asked.set()
        go_on.wait(20)
        return improve(request)

    with serving(answer) as served:
        agent = Agent(tmp_path, served, monkeypatch)
        with Ledger(agent.runs, write=True) as ledger:
            row = agent.create(ledger, trials=1)
            with (
                pytest.raises(InterruptedRunError),
                agent.campaign(ledger, row, fake_sandbox(), Observer()) as campaign,
            ):

                def press() -> None:
                    asked.wait(20)
                    campaign.crew.stop()
                    if presses == 2:
                        campaign.crew.stop_now()
                    else:
                        time.sleep(0.3)
                        go_on.set()

                presser = threading.Thread(target=press)
                presser.start()
                started = time.monotonic()
                campaign.run()
        assert presses == 1 or time.monotonic() - started < 10
        presser.join()
        go_on.set()
        states = [row["state"] for row in agent.rows("SELECT state FROM calls")]
        assert states == (["answered"] if presses == 1 else ["sent"])
        agent.play(trials=1)
    assert agent.rows("SELECT verdict FROM trials WHERE number = 1") == [{"verdict": "keep"}]
    assert len(served.requests) == presses


@pytest.mark.parametrize("wire", WIRES)
def test_a_conversation_with_tools_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wire: str
) -> None:
    script = [call("search", text="rate"), submit("QUALITY = 0.0", "QUALITY = 0.1")]
    with serving(lambda _, number: script[number]) as served:
        agent = Agent(tmp_path, served, monkeypatch, scaffold="tool-agent", wire=wire)
        agent.play(trials=1)
    with Ledger(agent.runs, write=False) as ledger:
        print_trajectory(trajectory(ledger, "1"))
    shown = capsys.readouterr().out
    assert shown.index('search {\n "text": "rate"') < shown.index("train.py:5: RATE = 0.5") < shown.index("submit {")
    assert '"replace": "QUALITY = 0.1"' in shown and shown.count("system to gpt-5-mini") == 1


def test_no_child_process_inherits_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def look(*_: object) -> str:
        seen.append(subprocess.run(["env"], capture_output=True, text=True, check=True).stdout)
        return "ok"

    with serving(improve) as served:
        agent = Agent(tmp_path, served, monkeypatch)
        monkeypatch.setattr(Notes, "decided", look)
        agent.play(trials=1, observer=Notes())
    assert len(seen) == 2 and not any(KEY in text for text in seen)
    assert served.keys == [f"Bearer {KEY}"]


def test_a_model_that_thinks_past_the_budget_does_not_hold_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def answer(request: dict[str, Any], _: int) -> Turn:
        go_on.wait(40)
        return improve(request)

    class Last(Notes):
        def note(self, text: str) -> None:
            super().note(text)
            if "paid for" in text:
                go_on.set()

    notes = Last()
    with serving(answer) as served:
        agent = Agent(tmp_path, served, monkeypatch, limits={"budget_seconds": 33.0})
        started = time.monotonic()
        agent.play(trials=1, observer=notes)
    assert time.monotonic() - started < 30 and agent.rows("SELECT state FROM runs") == [{"state": "finished"}]
    assert any("still thinking when the time for another trial was over" in note for note in notes.notes)
    assert agent.rows("SELECT state FROM calls") == [{"state": "answered"}]  # and what it said is kept
