"""Coding agents of any kind: a real command line in a real bubblewrap or container; what it leaves is the diff."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from agentgolf.errors import AgentgolfError, EnvironmentNotReadyError, UsageError
from agentgolf.ledger.store import Ledger
from agentgolf.proposer.scaffold import load_scaffold
from agentgolf.sandbox.docker import DockerSandbox
from agentgolf.sandbox.process import bubblewrap
from tests.conftest import IMAGE
from tests.support import Fixture

BOXES = [
    pytest.param(
        {}, id="bubblewrap", marks=pytest.mark.skipif(not bubblewrap(), reason="bubblewrap does not work here")
    ),
    pytest.param({"image": IMAGE}, id="container", marks=pytest.mark.docker),
]
in_each_box = pytest.mark.parametrize("box", BOXES)
BETTER = "sed -i 's/QUALITY = 0.0/QUALITY = 0.1/' train.py; echo HYPOTHESIS: more quality"


class Command(Fixture):
    """The tiny course, and a scaffold whose agent is a shell script."""

    def __init__(self, folder: Path, script: str, **command: Any) -> None:
        super().__init__(folder, [])
        self.folder = folder / "agent"
        self.folder.mkdir()
        given = {"argv": ["sh", "-c", script, "agent", "{task}", "{max_cost}"], **command}
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items())
        text = f'summary = "a script"\nproposers = ["command"]\nahead = false\n\n[command]\n{lines}'
        (self.folder / "scaffold.toml").write_text(text)
        self.settings = self.settings.model_copy(update={"scaffold": str(self.folder)})

    def trial(self) -> dict[str, Any]:
        with Ledger(self.runs, write=False) as ledger:
            return ledger.rows("SELECT * FROM trials WHERE number = 1")[0]

    def reply(self) -> str:
        with Ledger(self.runs, write=False) as ledger:
            return ledger.blobs.read(ledger.rows("SELECT * FROM calls")[0]["reply_blob"]).decode()


@in_each_box
def test_what_an_agent_leaves_is_tried_and_kept(tmp_path: Path, box: dict[str, str]) -> None:
    fixture = Command(tmp_path, f"test -d .git && grep -q 'lowers the bits per byte' \"$1\" && {BETTER}", **box)
    fixture.play(trials=1)
    trial = fixture.trial()
    assert (trial["verdict"], trial["hypothesis"], trial["proposer"]) == ("keep", "more quality", "command")


@pytest.mark.skipif(not bubblewrap(), reason="bubblewrap does not work here")
def test_what_an_agent_has_committed_counts_as_well(tmp_path: Path) -> None:
    fixture = Command(tmp_path, f"{BETTER}; git -c user.name=a -c user.email=a@localhost commit -qam done")
    fixture.play(trials=1)
    assert fixture.trial()["verdict"] == "keep"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo nothing to do here", "the agent left no change (exit code 0); its last words: nothing to do here"),
        ("exit 3", "the agent left no change (exit code 3)"),
        ("echo x > notes.txt", "'notes.txt', which this course freezes"),
        ("rm train.py && ln -s /etc/passwd train.py", "changes more than text"),
        ("no-such-agent --help", "exit code 127"),
    ],
)
@in_each_box
def test_what_is_no_edit_is_a_rejected_trial(tmp_path: Path, script: str, said: str, box: dict[str, str]) -> None:
    fixture = Command(tmp_path, script, **box)
    fixture.play(trials=1)
    trial = fixture.trial()
    assert trial["outcome"] == "rejected" and said in trial["reason"]


@in_each_box
def test_it_writes_nowhere_else_and_sees_what_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, box: dict[str, str]
) -> None:
    monkeypatch.setenv("AGENT_KEY", "its-own-key")
    monkeypatch.setenv("OTHER_KEY", "not-its-key")
    outside, shown = tmp_path / "outside", tmp_path / "shown"
    shown.mkdir()
    (shown / "tool.txt").write_text("a tool")
    script = (
        f"echo x > {outside}; echo x > /usr/x; echo x > {shown}/x; cat {shown}/tool.txt; ls {tmp_path}/runs; "
        "echo key=$AGENT_KEY other=$OTHER_KEY home=$HOME; ls /root /home; echo x > $HOME/ok && echo home works"
    )
    fixture = Command(tmp_path, script, environment=["AGENT_KEY"], readable=[str(shown)], **box)
    fixture.play(trials=1)
    log = fixture.reply()
    assert not outside.exists() and not (shown / "x").exists() and not Path("/usr/x").exists()
    assert "a tool" in log and "key=its-own-key other= " in log and "home works" in log
    assert "not-its-key" not in log and "ledger.sqlite" not in log


@in_each_box
def test_its_time_is_limited_and_what_it_did_by_then_counts(tmp_path: Path, box: dict[str, str]) -> None:
    fixture = Command(tmp_path, f"{BETTER}; sleep 100 & sleep 100", seconds=2, **box)
    started = time.monotonic()
    fixture.play(trials=1)
    assert time.monotonic() - started < 30
    assert fixture.trial()["verdict"] == "keep"
    assert json.loads(fixture.trial()["detail_json"])["ended"] == "it was ended after 2 seconds"


@in_each_box
def test_its_cost_is_read_and_limited(tmp_path: Path, box: dict[str, str]) -> None:
    script = f"{BETTER}; echo 'cost: 0.25'; sleep 0.2; echo 'cost: 1.50'; sleep 100"
    fixture = Command(tmp_path, script, cost_pattern=r"cost: ([0-9.]+)", max_cost_usd=1.0, **box)
    fixture.play(trials=1)
    assert json.loads(fixture.trial()["detail_json"])["ended"] == "it had cost $1.50 of $1.00"
    with Ledger(fixture.runs, write=False) as ledger:
        assert ledger.rows("SELECT cost_usd, model FROM calls") == [{"cost_usd": 1.5, "model": "command: sh"}]


@in_each_box
def test_the_network_can_be_withheld(tmp_path: Path, box: dict[str, str]) -> None:
    count = "n=$(grep -c : /proc/net/dev); echo interfaces=$n"
    fixture = Command(tmp_path, count, network=False, **box)
    fixture.play(trials=1)
    assert "interfaces=1" in fixture.reply()  # its own loopback alone


@in_each_box
def test_a_resume_does_not_run_the_agent_again(tmp_path: Path, box: dict[str, str]) -> None:
    class DieError(Exception):
        pass

    def die(what: str) -> None:
        if what == "answered":
            raise DieError

    fixture = Command(tmp_path, BETTER, **box)
    with pytest.raises(DieError):
        fixture.play(trials=1, on_transition=die)
    fixture.play(trials=1)
    with Ledger(fixture.runs, write=False) as ledger:
        assert len(ledger.rows("SELECT * FROM calls")) == 1
    assert fixture.trial()["verdict"] == "keep"


@pytest.mark.docker
def test_a_container_has_no_capabilities_and_is_gone_afterwards(tmp_path: Path) -> None:
    fixture = Command(tmp_path, "grep CapEff /proc/self/status; echo x > /root/x; id -u", image=IMAGE)
    fixture.play(trials=1)
    assert "CapEff:\t0000000000000000" in fixture.reply() and "Read-only file system" in fixture.reply()
    assert DockerSandbox(IMAGE).reap({"run": "r"}, dry_run=True) == []


@pytest.mark.docker
def test_a_container_left_by_a_process_that_died_is_found_by_the_next(tmp_path: Path) -> None:
    fixture = Command(tmp_path, "sleep 300", image=IMAGE)
    pid = os.fork()
    if pid == 0:
        try:
            fixture.play(trials=1)
        finally:
            os._exit(1)
    box = DockerSandbox(IMAGE)
    left: list[str] = []
    deadline = time.monotonic() + 60
    while not left and time.monotonic() < deadline:
        time.sleep(0.2)
        with contextlib.suppress(AgentgolfError), Ledger(fixture.runs, write=False) as ledger:
            left = box.reap({"run": "r", "ledger": ledger.tag}, dry_run=True)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert left == [f"container agentgolf-{ledger.tag}-r-agent1"]
    assert box.reap({"run": "r", "ledger": ledger.tag}) == left
    assert box.reap({"run": "r", "ledger": ledger.tag}) == []


@pytest.mark.docker
def test_an_image_that_is_not_there_ends_the_run_with_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentNotReadyError, match="has no image 'no-such-agent' for the coding agent; build or"):
        Command(tmp_path, BETTER, image="no-such-agent").play(trials=1)


@pytest.mark.parametrize(
    ("command", "said"), [("argv = []", "command.argv is missing"), ('argv = ["a"]\ncost_pattern = "("', "no pattern")]
)
def test_a_scaffold_without_a_command_line_says_so(tmp_path: Path, command: str, said: str) -> None:
    (tmp_path / "scaffold.toml").write_text(f'summary = "s"\nproposers = ["command"]\n[command]\n{command}\n')
    prompts = Path(__file__).parents[2] / "prompts"
    with pytest.raises(UsageError, match=said):
        load_scaffold(tmp_path, prompts / "playbook", prompts / "common")
