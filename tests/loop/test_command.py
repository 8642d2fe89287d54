"""Coding agents of any kind: a real command line in a real bubblewrap or container; what it leaves is the diff."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from agentgolf.errors import AgentgolfError, EnvironmentNotReadyError, ModelError, UsageError
from agentgolf.ledger.store import Ledger
from agentgolf.loop.scaffolds import require_program
from agentgolf.proposer.keys import look_up
from agentgolf.proposer.scaffold import load_scaffold
from agentgolf.sandbox.docker import DockerSandbox
from agentgolf.sandbox.process import bubblewrap
from tests.conftest import IMAGE
from tests.support import Fixture

bubblewrapped = pytest.mark.skipif(not bubblewrap(), reason="bubblewrap does not work here")
BOXES = [
    pytest.param({}, id="bubblewrap", marks=bubblewrapped),
    pytest.param({"image": IMAGE}, id="container", marks=pytest.mark.docker),
]
in_each_box = pytest.mark.parametrize("box", BOXES)
BETTER = "sed -i 's/QUALITY = 0.0/QUALITY = 0.1/' train.py; echo HYPOTHESIS: more quality"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {json.dumps(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


class Command(Fixture):
    """The tiny course, and a scaffold whose agent is a shell script."""

    def __init__(self, folder: Path, script: str, **command: Any) -> None:
        super().__init__(folder, [])
        self.folder = folder / "agent"
        self.folder.mkdir()
        given = {"argv": ["sh", "-c", script, "agent", "{task}"], **command}
        lines = "".join(f"{key} = {_toml(value)}\n" for key, value in given.items())
        text = f'summary = "a script"\nproposers = ["command"]\nahead = false\n\n[command]\n{lines}'
        (self.folder / "scaffold.toml").write_text(text)
        self.settings = self.settings.model_copy(update={"scaffold": str(self.folder)})

    def trial(self) -> dict[str, Any]:
        with Ledger(self.runs, write=False) as ledger:
            return ledger.rows("SELECT * FROM trials WHERE number = 1")[0]

    def reply(self) -> str:
        with Ledger(self.runs, write=False) as ledger:
            return ledger.blobs.read(ledger.rows("SELECT * FROM calls")[0]["reply_blob"]).decode()

    def cost(self) -> float | None:
        with Ledger(self.runs, write=False) as ledger:
            found: float | None = ledger.rows("SELECT cost_usd FROM calls")[0]["cost_usd"]
        return found


@in_each_box
def test_what_an_agent_leaves_is_tried_and_kept(tmp_path: Path, box: dict[str, str]) -> None:
    fixture = Command(tmp_path, f"test -d .git && grep -q 'lowers the bits per byte' \"$1\" && {BETTER}", **box)
    fixture.play(trials=1)
    trial = fixture.trial()
    assert (trial["verdict"], trial["hypothesis"], trial["proposer"]) == ("keep", "more quality", "command")


@bubblewrapped
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
        assert ledger.rows("SELECT model FROM calls") == [{"model": "command: sh"}]
    assert fixture.cost() == 1.5


@in_each_box
def test_a_cost_without_a_line_end_or_in_a_very_long_line_is_read(tmp_path: Path, box: dict[str, str]) -> None:
    script = f"{BETTER}; printf '{{\"cost\": 0.25, \"text\": \"'; head -c 9000 /dev/zero | tr '\\0' x; printf '\"}}'"
    fixture = Command(tmp_path, script, cost_pattern=r'"cost": ([0-9.]+)', max_cost_usd=1.0, **box)
    fixture.play(trials=1)
    assert fixture.cost() == 0.25 and fixture.trial()["verdict"] == "keep"


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


@in_each_box
def test_its_own_variables_and_what_it_may_spend_are_told(tmp_path: Path, box: dict[str, str]) -> None:
    argv = ["sh", "-c", "echo mode=$MODE most=$1 wide=$COLUMNS; echo task={task}", "agent", "{max_cost}"]
    fixture = Command(tmp_path, "", argv=argv, variables={"MODE": "quiet"}, max_cost_usd=2.5, **box)
    fixture.play(trials=1)
    assert "mode=quiet most=2.5 wide=400\ntask=/task.md" in fixture.reply()


def test_what_is_no_secret_stays_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    monkeypatch.setenv("AGENT_API_KEY", "secret")
    assert (look_up("HTTPS_PROXY"), look_up("AGENT_API_KEY"), look_up("AGENT_API_KEY")) == (
        "http://proxy",
        "secret",
        "secret",
    )
    assert os.environ["HTTPS_PROXY"] == "http://proxy" and "AGENT_API_KEY" not in os.environ


JSON_LINES = [
    {"type": "result", "result": "I was told to print HYPOTHESIS: so:\n\nHYPOTHESIS: more quality"},
    {"type": "message", "content": [{"text": "Done.\n**HYPOTHESIS:** more quality"}]},
]


@pytest.mark.parametrize("line", [json.dumps(line) for line in JSON_LINES] + [json.dumps(JSON_LINES[0])[:-1]])
@bubblewrapped
def test_a_hypothesis_is_found_in_lines_of_json(tmp_path: Path, line: str) -> None:
    fixture = Command(
        tmp_path, f"{BETTER.partition(';')[0]}; cat \"$1\"; printf '%s\\n' '{line}'; echo '{{\"tokens\": 5}}'"
    )
    fixture.play(trials=1)
    assert fixture.trial()["hypothesis"] == "more quality"


@bubblewrapped
def test_an_agent_that_names_no_hypothesis_but_prints_its_prompt_has_none(tmp_path: Path) -> None:
    fixture = Command(tmp_path, f'{BETTER.partition(";")[0]}; cat "$1"; echo saved to ~/.log')
    fixture.play(trials=1)
    assert fixture.trial()["hypothesis"] == "no hypothesis; writes QUALITY = 0.1"


@bubblewrapped
def test_an_agent_that_fails_again_and_again_stops_the_run_and_a_resume_tries_anew(tmp_path: Path) -> None:
    fixture = Command(tmp_path, "echo 401: wrong key; exit 1")
    said = r"agent sh failed 3 times in a row and changed nothing \(exit code 1\); its last words: 401: wrong key; mend"
    for tried in (3, 6):
        with pytest.raises(ModelError, match=said):
            fixture.play(trials=50)
        with Ledger(fixture.runs, write=False) as ledger:
            assert ledger.rows("SELECT count(*) AS n FROM calls WHERE state = 'answered'") == [{"n": tried}]


@in_each_box
def test_a_program_that_cannot_be_started_ends_the_run_with_one_sentence(tmp_path: Path, box: dict[str, str]) -> None:
    fixture = Command(tmp_path, "", argv=["/usr/bin/env", "-S", "no-such-agent"], **box)
    fixture.play(trials=1)  # what was started is env, which fails like any agent
    assert fixture.trial()["outcome"] == "rejected"
    plain = Command(tmp_path / "plain", "", argv=["/usr/share/doc", "--help"], **box)
    with pytest.raises((EnvironmentNotReadyError, UsageError), match="cannot be started|would not find"):
        plain.play(trials=1)


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
    ("command", "said"),
    [
        ("argv = []", "command.argv is missing"),
        ('argv = ["a"]\ncost_pattern = "("', "no pattern"),
        ('argv = ["a", "--most={max_cost}"]', "command.max_cost_usd is needed"),
    ],
)
def test_a_scaffold_without_a_command_line_says_so(tmp_path: Path, command: str, said: str) -> None:
    (tmp_path / "scaffold.toml").write_text(f'summary = "s"\nproposers = ["command"]\n[command]\n{command}\n')
    prompts = Path(__file__).parents[2] / "prompts"
    with pytest.raises(UsageError, match=said):
        load_scaffold(tmp_path, prompts / "playbook", prompts / "common")


@pytest.mark.parametrize(
    ("argv", "readable", "said"),
    [
        (["no-such-agent"], [], "the coding agent would not find 'no-such-agent': install it"),
        (["env", "A=B", "no-such-agent"], [], "would not find 'no-such-agent'"),
        (["sh"], ["/no/such/folder"], "command.readable names /no/such/folder, which is not there"),
        (["agent.sh"], ["SHOWN"], "would not find 'agent.sh'"),
    ],
)
def test_a_program_that_would_not_be_found_is_said_before_anything_is_trained(
    tmp_path: Path, argv: list[str], readable: list[str], said: str
) -> None:
    """The last is a link to a program in a folder that is not shown."""
    shown, hidden = tmp_path / "shown", tmp_path / "hidden"
    shown.mkdir()
    hidden.mkdir()
    (hidden / "agent.sh").write_text("#!/bin/sh\n")
    (hidden / "agent.sh").chmod(0o755)
    (shown / "agent.sh").symlink_to(hidden / "agent.sh")
    folders = [str(shown) if name == "SHOWN" else name for name in readable]
    fixture = Command(tmp_path, "", argv=argv, readable=folders)
    with pytest.raises(UsageError, match=said):
        fixture.play(trials=1)
    with Ledger(fixture.runs, write=False) as ledger:
        assert ledger.rows("SELECT * FROM replicates") == []
    folders.append(str(hidden))
    if "SHOWN" in readable:
        require_program(Command(tmp_path / "both", "", argv=argv, readable=folders).folder)
