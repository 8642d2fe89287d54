"""One suite for every sandbox: what a job may do, how it ends, and that nothing is left behind."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from agentgolf.domain import Clock, Execution, Limits, Outcome, Role, Slot
from agentgolf.sandbox import base
from agentgolf.sandbox.base import Job, Mount, Sandbox
from agentgolf.sandbox.docker import DockerSandbox
from agentgolf.sandbox.process import ProcessSandbox, bubblewrap
from tests.conftest import IMAGE

MARK = "agentgolf-test-mark"
WRAPPED = [
    pytest.param(
        "wrapped",
        id="process-bubblewrap",
        marks=pytest.mark.skipif(not bubblewrap(), reason="bubblewrap does not work here"),
    ),
    pytest.param("docker", id="docker", marks=pytest.mark.docker),
]
ALL = [pytest.param("bare", id="process-bare"), *WRAPPED]


def make(kind: str) -> Sandbox:
    return DockerSandbox(IMAGE) if kind == "docker" else ProcessSandbox(wrap=kind == "wrapped")


def limits(**changes: object) -> Limits:
    given: dict[str, object] = {
        "clock": Clock.CPU,
        "budget_seconds": 20.0,
        "grace_seconds": 1.0,
        "wall_seconds": 40.0,
        "memory_bytes": 400_000_000,
        "scratch_bytes": 20_000_000,
        "file_bytes": 5_000_000,
        "max_pids": 32,
    }
    return Limits(**{**given, **changes})  # type: ignore[arg-type]


class Runner:
    """Runs a piece of Python in one kind of sandbox, with the mounts of a training."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.sandbox, self.folder = make(kind), folder
        for name in ("code", "data"):
            (folder / name).mkdir()
            (folder / name).chmod(0o755)
        (folder / "data" / "train.jsonl").write_text('{"text": "hello"}\n')
        (folder / "out").touch()
        (folder / "out").chmod(0o666)

    def job(self, code: str, **changes: object) -> Job:
        (self.folder / "code" / "main.py").write_text(code)
        (self.folder / "code" / "main.py").chmod(0o644)
        return Job(
            name=f"agentgolf-test-{os.getpid()}",
            role=Role.TRAIN,
            argv=("python", "main.py"),
            env={"OUT": base.OUT_FILE, "DATA": base.DATA_DIR, "HOME": base.SCRATCH_DIR},
            mounts=(
                Mount(source=self.folder / "code", target=base.CODE_DIR),
                Mount(source=self.folder / "data", target=base.DATA_DIR),
                Mount(source=self.folder / "out", target=base.OUT_FILE, writable=True),
            ),
            limits=limits(**changes),
            slot=Slot(cores=(0,)),
            image=IMAGE,
            labels={"run": MARK, "trial": "1", "replicate": "1"},
        )

    def run(self, code: str, on_line: Callable[[str], None] | None = None, **changes: object) -> Execution:
        with self.sandbox.start(self.job(code, **changes)) as running:
            return running.wait(on_line)


@pytest.fixture(params=ALL)
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Runner:
    return Runner(request.param, tmp_path)


@pytest.fixture(params=WRAPPED)
def isolated(request: pytest.FixtureRequest, tmp_path: Path) -> Runner:
    return Runner(request.param, tmp_path)


def test_a_good_job_writes_its_one_file_and_is_measured(runner: Runner) -> None:
    lines: list[str] = []
    code = (
        "import os, sys\nprint(open(os.environ['DATA'] + '/train.jsonl').read().strip())\n"
        "x = bytearray(50_000_000)\nsum(range(40_000_000))\n"
        "open(os.environ['OUT'], 'wb').write(b'artifact')\nprint('to stderr', file=sys.stderr)"
    )
    done = runner.run(code, lines.append)
    assert (done.outcome, done.exit_code, done.message) == (Outcome.OK, 0, "")
    assert (runner.folder / "out").read_bytes() == b"artifact"
    assert '{"text": "hello"}' in lines and "to stderr" in done.log
    assert 0.1 < done.cpu_seconds < 15 and done.wall_seconds > 0.1
    assert done.clock_seconds == pytest.approx(done.cpu_seconds, abs=0.3)
    assert done.peak_memory_bytes > 20_000_000


def test_a_crash_keeps_its_exit_code_and_last_words(runner: Runner) -> None:
    done = runner.run("import sys\nprint('before')\nraise ValueError('the reason')")
    assert (done.outcome, done.exit_code) == (Outcome.CRASHED, 1)
    assert "ValueError: the reason" in done.message and "before" in done.log


def test_death_by_signal_is_a_crash(runner: Runner) -> None:
    done = runner.run("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert done.outcome is Outcome.CRASHED and done.exit_code not in (0, None)


def test_the_cpu_budget_is_enforced_from_outside(runner: Runner) -> None:
    started = time.monotonic()
    done = runner.run("while True: pass", budget_seconds=1.0, grace_seconds=0.5)
    assert done.outcome is Outcome.TIMED_OUT and "1 + 0.5 cpu-seconds" in done.message
    assert 1.4 < done.cpu_seconds < 6 and time.monotonic() - started < 30


def test_sleeping_does_not_help(runner: Runner) -> None:
    done = runner.run("import time\ntime.sleep(60)", wall_seconds=1.5)
    assert done.outcome is Outcome.TIMED_OUT and "on the wall" in done.message


def test_ignoring_sigterm_does_not_help(runner: Runner) -> None:
    code = "import signal, time\nfor n in range(1, 32):\n    try: signal.signal(n, signal.SIG_IGN)\n    except OSError: pass\ntime.sleep(60)"
    assert runner.run(code, wall_seconds=1.5).outcome is Outcome.TIMED_OUT


def test_memory_is_limited(runner: Runner) -> None:
    code = "import time\nx = []\nwhile True:\n    x.append(bytearray(b'x' * 10_000_000))\n    time.sleep(0.02)"
    done = runner.run(code, memory_bytes=150_000_000)
    assert done.outcome is Outcome.OUT_OF_MEMORY and "150,000,000 bytes of memory" in done.message


def test_many_processes_are_stopped(runner: Runner) -> None:
    code = "import os, time\nfor _ in range(60):\n    if os.fork() == 0: time.sleep(60)\ntime.sleep(60)"
    assert runner.run(code, wall_seconds=20.0).outcome is Outcome.CRASHED


def test_a_large_file_is_refused(runner: Runner) -> None:
    done = runner.run("import os\nopen(os.environ['OUT'], 'wb').write(bytes(9_000_000))")
    assert done.outcome is Outcome.CRASHED
    assert (runner.folder / "out").stat().st_size <= 5_000_000


def test_scratch_is_limited(runner: Runner) -> None:
    code = (
        "import os, time\nfor i in range(200):\n    open(f\"{os.environ['HOME']}/f{i}\", 'wb').write(bytes(1_000_000))\n"
        "    time.sleep(0.02)"
    )
    assert runner.run(code).outcome is Outcome.CRASHED


def test_a_flood_of_output_keeps_head_and_tail(runner: Runner) -> None:
    done = runner.run("print('first line')\nfor i in range(200_000): print('flood', i)\nprint('last line')")
    assert done.outcome is Outcome.OK
    assert done.log.startswith("first line") and "last line" in done.log and "bytes left out" in done.log
    assert len(done.log) < 120_000


def test_terminal_escapes_do_not_reach_the_log(runner: Runner) -> None:
    done = runner.run("print('a\\x1b[31mred\\x1b[0m\\x07b')")
    assert "\x1b" not in done.log and "\x07" not in done.log and "red" in done.log


def test_a_daemon_does_not_outlive_its_sandbox(runner: Runner) -> None:
    code = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        f"        os.execvp('python3', ['python3', '-c', 'import time; time.sleep(97) # {MARK}'])\n    os._exit(0)\n"
        "time.sleep(0.5)"
    )
    done = runner.run(code)
    assert done.outcome is Outcome.OK
    left = [
        p.pid
        for p in psutil.process_iter(["cmdline"])
        if any(MARK in w and "sleep(97)" in w for w in p.info["cmdline"] or [])
    ]
    assert left == []


def test_nothing_is_left_behind(runner: Runner) -> None:
    before = set(Path("/tmp").glob("agentgolf-*"))
    runner.run("open('/tmp/x', 'w').write('x') if False else None")
    assert set(Path("/tmp").glob("agentgolf-*")) <= before
    assert runner.sandbox.reap({"run": MARK}, dry_run=True) == []


def test_kill_ends_it(runner: Runner) -> None:
    with runner.sandbox.start(runner.job("import time\ntime.sleep(60)")) as running:
        running.kill()
        done = running.wait()
    assert done.outcome is Outcome.CRASHED and done.wall_seconds < 30


def test_the_environment_is_empty(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    done = runner.run("import os\nprint(sorted(os.environ))\nprint(dict(os.environ))")
    assert "hunter2" not in done.log


def test_there_is_no_network(isolated: Runner) -> None:
    code = "import socket\nprint(socket.if_nameindex())\nsocket.create_connection(('127.0.0.1', 9), timeout=1)"
    done = isolated.run(code)
    assert done.outcome is Outcome.CRASHED and "eth0" not in done.log


def test_the_host_is_hidden_and_what_is_shown_is_read_only(isolated: Runner) -> None:
    code = (
        "import os\n"
        f"print('host seen:', os.path.exists({str(isolated.folder)!r}))\n"
        "print('uid:', os.getuid(), 'processes:', len([p for p in os.listdir('/proc') if p.isdigit()]))\n"
        "for path in ('/course/x', '/data/x', '/usr/x', '/x', '/out/x', '/dev/x'):\n"
        "    try: open(path, 'w'); print('wrote', path)\n"
        "    except OSError as e: print('refused', path)\n"
        "print(open('/proc/self/status').read())"
    )
    done = isolated.run(code)
    assert done.outcome is Outcome.OK, done.log
    assert "host seen: False" in done.log and "uid: 65534" in done.log and "wrote" not in done.log
    status = dict(line.split(":\t", 1) for line in done.log.splitlines() if ":\t" in line)
    assert int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1"


def test_what_another_ledger_runs_under_the_same_name_is_left_alone(isolated: Runner) -> None:
    job = isolated.job("import time\ntime.sleep(20)")
    ours = dataclasses.replace(job, labels={**job.labels, "ledger": "ours"})
    with isolated.sandbox.start(ours):
        assert isolated.sandbox.reap({"run": MARK, "ledger": "theirs"}) == []
        assert len(isolated.sandbox.reap({"run": MARK, "ledger": "ours"}, dry_run=True)) == 1


@pytest.mark.docker
def test_an_image_runs_by_its_id_even_when_its_tag_moves(tmp_path: Path) -> None:
    runner = Runner("docker", tmp_path)
    assert isinstance(runner.sandbox, DockerSandbox)
    runner.sandbox.prepare()
    assert runner.sandbox.image_id.startswith("sha256:")
    assert runner.sandbox.protections().startswith("seccomp filter, ")
    job = runner.job("import time\ntime.sleep(20)")
    moved = Job(**{name: getattr(job, name) for name in Job.__slots__} | {"image": "moved-away:latest"})
    with runner.sandbox.start(moved):
        found = subprocess.run(
            ["docker", "inspect", "--format", "{{.Image}}", job.name], capture_output=True, text=True, check=True
        )
    assert found.stdout.strip() == runner.sandbox.image_id


def test_hidden_folders_are_empty_inside(tmp_path: Path) -> None:
    if not bubblewrap():
        pytest.skip("bubblewrap does not work here")
    runner = Runner("wrapped", tmp_path)
    secret = Path(psutil.__file__).parent
    job = runner.job(f"import os\nprint('found', os.listdir({str(secret)!r}))")
    hidden = Job(**{name: getattr(job, name) for name in Job.__slots__} | {"hidden": (secret,)})
    with runner.sandbox.start(hidden) as running:
        assert "found []" in running.wait().log


def test_the_deadline_stands_inside_too(runner: Runner) -> None:
    """Nobody watches, and nobody hangs up: the job ends by itself all the same."""
    with runner.sandbox.start(runner.job("import time\nwhile True: time.sleep(0.1)", wall_seconds=1.0)):
        deadline = time.monotonic() + 30
        while _alive(runner) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not _alive(runner)


def _alive(runner: Runner) -> bool:
    if isinstance(runner.sandbox, DockerSandbox):
        return (
            "Up"
            in subprocess.run(
                ["docker", "ps", "--filter", f"name=agentgolf-test-{os.getpid()}", "--format", "{{.Status}}"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
    return any("main.py" in (p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"]))


def test_when_agentgolf_dies_so_does_the_candidate(runner: Runner, tmp_path: Path) -> None:
    """A real child starts a job and is killed; then a later process reaps what the engine still runs."""
    kind = {True: "docker"}.get(isinstance(runner.sandbox, DockerSandbox), "process")
    runner.job(f"import time\nwhile True: time.sleep(0.1) # {MARK}")
    child = tmp_path / "child.py"
    child.write_text(
        "import sys\nfrom pathlib import Path\nfrom tests.sandbox.test_sandboxes import Runner\n"
        "r = Runner.__new__(Runner)\n"
        "from tests.sandbox.test_sandboxes import make\n"
        f"r.sandbox, r.folder = make({'docker' if kind == 'docker' else 'bare'!r}), Path({str(runner.folder)!r})\n"
        f"job = r.job('import time\\nwhile True: time.sleep(0.1)')\n"
        "with r.sandbox.start(job) as running:\n    print('started', flush=True)\n    running.wait()\n"
    )
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, str(child)], stdout=subprocess.PIPE, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert process.stdout and process.stdout.readline() == b"started\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    if kind == "process":
        deadline = time.monotonic() + 10
        while runner.sandbox.reap({"run": MARK}, dry_run=True) and time.monotonic() < deadline:
            time.sleep(0.1)
    else:
        assert len(runner.sandbox.reap({"run": MARK})) == 1
    assert runner.sandbox.reap({"run": MARK}, dry_run=True) == []
