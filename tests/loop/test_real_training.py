"""The whole command, with real training on the seconds-long track of the embedded course."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SANDBOXES = [pytest.param("process", id="process"), pytest.param("docker", id="docker", marks=pytest.mark.docker)]
TWO_EDITS = [
    {"hypothesis": "wider", "file": "train_gpt.py", "find": "MLP_RATIO = 2", "replace": "MLP_RATIO = 3"},
    {"hypothesis": "broken", "file": "train_gpt.py", "find": "MLP_RATIO = 2", "replace": "MLP_RATIO = oops"},
]
pytestmark = [pytest.mark.trains, pytest.mark.timeout(600)]


def command(folder: Path, *args: object) -> list[str]:
    return [sys.executable, "-m", "agentgolf.cli.app", *map(str, args), "--runs", str(folder / "runs")]


def run(folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command(folder, *args), cwd=folder, env=env, capture_output=True, text=True, check=False)


def scripted(folder: Path) -> Path:
    made = folder / "scaffold"
    made.mkdir()
    (made / "script.jsonl").write_text("".join(json.dumps(line) + "\n" for line in TWO_EDITS))
    (made / "scaffold.toml").write_text('summary = "s"\nproposers = ["scripted"]\nscript = "script.jsonl"\n')
    return made


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_round_from_baseline_to_verdict_and_its_replay(tmp_path: Path, sandbox: str) -> None:
    done = run(
        tmp_path,
        "run",
        "--trials",
        2,
        "--track",
        "smoke",
        "--sandbox",
        sandbox,
        "--scaffold",
        scripted(tmp_path),
        "--json",
    )
    assert done.returncode in (0, 3), done.stderr
    summary = json.loads(done.stdout)
    assert summary["state"] == "finished" and summary["sandbox"] == sandbox
    assert 1.5 < summary["baseline_bpb"] < 6 and summary["outcomes"] == {"ok": 1, "crashed": 1}
    assert "isolation: " in done.stderr and "Traceback" not in done.stderr
    trials = json.loads(run(tmp_path, "tree", "--json").stdout)["trials"]
    assert "NameError: name 'oops' is not defined" in trials[2]["reason"]
    details = json.loads(run(tmp_path, "show", "0", "--json").stdout)
    roles = [(e["role"], e["outcome"]) for e in details["executions"]]
    assert set(roles) == {("train", "ok"), ("encode", "ok"), ("predict", "ok")}
    train = next(e for e in details["executions"] if e["role"] == "train")
    assert 3 < train["clock_seconds"] < 10 and 1e8 < train["peak_memory_bytes"] < 2e9 and "train_loss" in train["log"]
    replayed = run(tmp_path, "replay", "0", "--seeds", details["replicates"][0]["seed"], "--sandbox", sandbox, "--json")
    assert replayed.returncode in (0, 1), replayed.stderr
    assert 1.5 < json.loads(replayed.stdout)["replayed"][0] < 6


def start(folder: Path, *args: object) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command(folder, *args), cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(process: subprocess.Popen[str], words: str) -> str:
    assert process.stderr
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            return said
    raise AssertionError(f"ended without saying {words!r}: {said}")


def trainings() -> list[int]:
    return [
        p.pid
        for p in psutil.process_iter(["cmdline"])
        if any(w.endswith("train_gpt.py") for w in p.info["cmdline"] or [])
        and "bwrap" not in (p.info["cmdline"] or [""])[0]
    ]


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_ctrl_c_twice_kills_at_once_and_a_resume_finishes(tmp_path: Path, sandbox: str) -> None:
    args = ["run", "--trials", 0, "--track", "smoke", "--sandbox", sandbox]
    process = start(tmp_path, *args)
    wait_for(process, "training baseline")
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    wait_for(process, "press Ctrl-C again")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "agentgolf resume" in err and "Traceback" not in err
    done = run(tmp_path, "resume", "--json")
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["state"] == "finished"


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_kill_minus_nine_in_training_leaves_nothing_and_is_resumed(tmp_path: Path, sandbox: str) -> None:
    before = set(trainings())
    process = start(tmp_path, "run", "--trials", 0, "--track", "smoke", "--sandbox", sandbox, "--name", "killed")
    wait_for(process, "training baseline")
    time.sleep(2)
    process.kill()
    process.communicate()
    if sandbox == "process":
        deadline = time.monotonic() + 10
        while set(trainings()) - before and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not set(trainings()) - before
    done = run(tmp_path, "resume", "killed", "--json")
    assert done.returncode == 3, done.stderr
    if sandbox == "docker":
        assert re.search(r"removed container agentgolf-[0-9a-f]{8}-killed-r1-train", done.stderr)
    assert not set(trainings()) - before
    details = json.loads(run(tmp_path, "show", "0", "--json").stdout)
    assert [r["outcome"] for r in details["replicates"]] == ["ok"] * 4
