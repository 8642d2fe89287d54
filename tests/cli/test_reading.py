"""The commands that read, on a ledger that a fake run has filled."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from agentgolf.cli.app import main
from agentgolf.ledger.store import LEDGER_FILE, Ledger
from tests.support import Fixture, edit

LINES = [
    edit("a [bold]better[/bold] rate\x1b[31m", "QUALITY = 0.0", "QUALITY = 0.1"),
    edit("crash", "RATE = 0.5", "# fake: crash\nRATE = 0.5"),
    {"hypothesis": "not a diff", "diff": "hello"},
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fixture = Fixture(tmp_path_factory.mktemp("reading"), LINES)
    fixture.play(trials=3)
    return fixture.runs


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["agentgolf", *map(str, args)])
    monkeypatch.setenv("COLUMNS", "80")
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_status_shows_the_gain_on_the_hidden_half(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, monkeypatch, "status", "--runs", runs)
    assert code == 0 and "gain on B" in out and "+0.1" in out and "1 keep" in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = call(capsys, monkeypatch, "status", "--runs", runs, "--json")
    summary = json.loads(out)
    assert summary["improved"] is True and summary["gain_low"] > 0 and summary["incumbent"] == 1
    assert summary["outcomes"] == {"ok": 1, "crashed": 1, "rejected": 1}


def test_tree_marks_the_kept_path(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, monkeypatch, "tree", "--runs", runs, "--svg", tmp_path / "tree.svg")
    assert code == 0 and re.search(r"● 0 the unmodified course", out) and re.search(r"● 1 a \[bold\]better", out)
    assert re.search(r"○ 2 crash", out) and "revert crashed" in out and "rejected" in out
    assert "\x1b" not in out and max(map(len, out.splitlines())) <= 80
    picture = (tmp_path / "tree.svg").read_text()
    assert picture.startswith("<svg") and "font-face" not in picture and "better" in picture
    _, out, _ = call(capsys, monkeypatch, "tree", "--runs", runs, "--json")
    trials = json.loads(out)["trials"]
    assert [t["kept_path"] for t in trials] == [True, True, False, False]
    assert trials[1]["val_bpb_low"] < trials[1]["val_bpb"] < trials[1]["val_bpb_high"]


def test_show_gives_everything_about_a_trial(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, monkeypatch, "show", "r:1", "--runs", runs)
    assert code == 0
    for part in ("a [bold]better", "scripted", "keep (ok)", "search 1", "+QUALITY = 0.1", "p ="):
        assert part in out
    _, out, _ = call(capsys, monkeypatch, "show", "1", "--diff", "--runs", runs)
    assert out.startswith("diff --git a/train.py b/train.py") and out.endswith("\n")
    _, out, _ = call(capsys, monkeypatch, "show", "2", "--log", "--runs", runs)
    assert "fake crash" in out
    _, out, _ = call(capsys, monkeypatch, "show", "3", "--json", "--runs", runs)
    assert json.loads(out)["outcome"] == "rejected"


def test_leaderboard(runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = call(capsys, monkeypatch, "leaderboard", "--runs", runs)
    assert code == 0 and "tiny/main" in out and out.index("r:1") < out.index("r:0") and "verified" in out
    _, out, _ = call(capsys, monkeypatch, "leaderboard", "--runs", runs, "--json", "--track", "other")
    assert json.loads(out) == []


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["status", "nobody"], 2, "there is no run 'nobody'; the newest are: r"),
        (["show", "99"], 2, "has no trial 99; its last is 3"),
        (["show", "seven"], 2, "names no trial"),
        (["resume"], 2, "no run waits to be resumed"),
        (["resume", "r"], 2, "is finished; see: agentgolf tree r"),
        (["replay", "3"], 2, "was never applied"),
        (["run"], 2, "say how long to play"),
        (["run", "--budget", "soon"], 2, "is no duration"),
        (["run", "--budget", "1m"], 2, "is shorter than one trial"),
        (["run", "--budget", "1h", "--course", "chess"], 2, "there is no course 'chess'"),
        (["run", "--budget", "1h", "--track", "moon"], 2, "has no track 'moon'; its tracks are sprint"),
        (["run", "--budget", "1h", "--scaffold", "nobody"], 2, "there is no scaffold 'nobody'"),
        (["run", "--budget", "1h", "--sandbox", "moon"], 2, "sandbox"),
        (["run", "--budget", "1h", "--jobs", "999"], 2, "--jobs 999 does not fit"),
        (["run", "--budget", "2h", "--name", "r"], 2, "there is a run 'r' already"),
        (["run", "--budget", "2h", "--name", "../x"], 2, "cannot name a run"),
    ],
)
def test_bad_input_is_one_sentence_and_its_exit_code(
    runs: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    code: int,
    said: str,
) -> None:
    before = sorted(p.name for p in runs.iterdir() if not p.name.endswith(("-wal", "-shm")))
    got, out, err = call(capsys, monkeypatch, *args, "--runs", runs)
    assert (got, out) == (code, "") and said in err
    assert err.startswith("agentgolf: ") and err.count("\n") == 1 and "Traceback" not in err
    assert sorted(p.name for p in runs.iterdir() if not p.name.endswith(("-wal", "-shm"))) == before, (
        "nothing half-written"
    )


def test_no_ledger_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (["status"], ["tree"], ["leaderboard"], ["gc"], ["resume"], ["show", "1"]):
        code, _, err = call(capsys, monkeypatch, *command, "--runs", tmp_path / "none")
        assert code == 1 and "there is no ledger" in err and not (tmp_path / "none").exists()


def test_a_newer_ledger_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(tmp_path, write=True) as ledger:
        ledger.db.execute("PRAGMA user_version = 99")
    for command in (["status"], ["run", "--budget", "1h"]):
        code, _, err = call(capsys, monkeypatch, *command, "--runs", tmp_path)
        assert code == 1 and "version 99" in err and "pip install --upgrade agentgolf" in err


def test_a_file_that_is_no_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LEDGER_FILE).write_text("hello " * 1000)
    code, _, err = call(capsys, monkeypatch, "status", "--runs", tmp_path)
    assert code == 1 and "cannot be used" in err and err.count("\n") == 1


def test_a_second_run_on_the_same_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(tmp_path, write=True):
        code, _, err = call(capsys, monkeypatch, "run", "--budget", "1h", "--runs", tmp_path)
    assert code == 4 and "another agentgolf" in err and "--runs" in err


def test_dirty_and_foreign_courses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    code, out, _ = call(capsys, monkeypatch, "init", folder)
    assert code == 0 and "agentgolf run --course" in out and (folder / "playbook" / "xsa.md").exists()
    run = ["run", "--budget", "1m", "--course", folder, "--runs", tmp_path / "runs"]
    assert "shorter than one trial" in call(capsys, monkeypatch, *run)[2], "a fresh copy is clean"
    (folder / "repo" / "train_gpt.py").write_text("x = 1\n")
    code, _, err = call(capsys, monkeypatch, *run)
    assert code == 2 and "uncommitted changes" in err
    subprocess.run(["rm", "-rf", str(folder / ".git")], check=True)
    code, _, err = call(capsys, monkeypatch, *run)
    assert code == 2 and "git init" in err
    code, _, err = call(capsys, monkeypatch, "init", folder)
    assert code == 2 and "not empty" in err
    code, _, err = call(capsys, monkeypatch, "init", tmp_path / "new", "--course", "chess")
    assert code == 2 and "no shipped course" in err


def test_gc_finds_and_removes_what_was_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Fixture(tmp_path, LINES)
    fixture.play(trials=1)
    work = fixture.runs / "r" / "work" / "abc"
    work.mkdir(parents=True)
    (work / "junk").write_bytes(bytes(1000))
    with Ledger(fixture.runs, write=True) as ledger:
        orphan = ledger.blobs.path(ledger.blobs.put(b"orphan"))
        known = [ledger.blobs.path(row["sha256"]) for row in ledger.rows("SELECT sha256 FROM blobs")]
    code, out, _ = call(capsys, monkeypatch, "gc", "--dry-run", "--runs", fixture.runs)
    assert code == 0 and "would remove 2 things, 1,006 bytes" in out and orphan.exists() and work.exists()
    code, out, _ = call(capsys, monkeypatch, "gc", "--runs", fixture.runs)
    assert "removed 2 things" in out and not orphan.exists() and not work.exists()
    assert all(path.exists() for path in known)


def test_doctor_says_what_this_machine_can_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, monkeypatch, "doctor", "--json")
    found = {finding["name"]: finding for finding in json.loads(out)}
    assert code == 0 and {
        "cores",
        "memory",
        "disk",
        "git",
        "torch",
        "text",
        "docker",
        "bubblewrap",
        "gpus",
        "speed",
    } <= set(found)
    assert all(f["fix"] for f in found.values() if f["state"] == "warn")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    _, out, _ = call(capsys, monkeypatch, "doctor")
    assert "no engine answers" in out and "fix:" in out


def test_a_reader_that_goes_away_is_no_error(runs: Path) -> None:
    command = f"{sys.executable} -m agentgolf.cli.app tree --runs {runs} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == "" and done.stdout.startswith("r ")


def test_the_ledger_opens_in_datasette(runs: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "datasette", "serve", str(runs / LEDGER_FILE), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{address}/-/versions.json", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
        with urllib.request.urlopen(f"{address}/ledger/lineage.json?_shape=array", timeout=20) as reply:
            rows = json.load(reply)
        with urllib.request.urlopen(f"{address}/ledger/trials", timeout=20) as reply:
            page = reply.read().decode()
    finally:
        process.kill()
        process.wait()
    assert [(row["trial"], row["parent"], row["verdict"]) for row in rows][:2] == [(0, None, "keep"), (1, 0, "keep")]
    assert 'href="/ledger/runs/1"' in page, "foreign keys are links"
