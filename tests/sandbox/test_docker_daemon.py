"""A real Docker daemon of the test's own is killed while a job runs, and comes back."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agentgolf.domain import Outcome
from agentgolf.errors import InfrastructureError
from agentgolf.sandbox.docker import DockerSandbox
from tests.sandbox.test_sandboxes import MARK, Runner

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("dockerd"), reason="only root may start a dockerd of its own"
    ),
]
BASE = "agentgolf-base"


class Daemon:
    """dockerd with its own socket, state and containerd; no bridge, so that it meddles with no network."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.socket = folder, Path(f"/tmp/agentgolf-dockerd-{os.getpid()}.sock")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        for stale in ("docker.pid", "exec/containerd/containerd.pid"):
            (self.folder / stale).unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [
                "dockerd",
                "--host",
                self.host,
                "--data-root",
                str(self.folder / "data"),
                "--exec-root",
                str(self.folder / "exec"),
                "--pidfile",
                str(self.folder / "docker.pid"),
                "--bridge",
                "none",
                "--iptables=false",
            ],
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "log").open("ab"),
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "-H", self.host, "version"], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.2)

    def kill(self) -> None:
        """The daemon and everything it started, at once, as a machine that loses it would."""
        assert self.process
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self.folder) in word for word in process.info["cmdline"] or []):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def unmount(self) -> None:
        """What a killed daemon leaves mounted, innermost first: pytest could not remove its folder."""
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(str(self.folder))), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    if subprocess.run(["docker", "image", "inspect", BASE], capture_output=True, check=False).returncode:
        if os.environ.get("AGENTGOLF_REQUIRE_DOCKER") == "1":
            pytest.fail(f"AGENTGOLF_REQUIRE_DOCKER=1, but there is no image {BASE}")
        pytest.skip(f"no image {BASE}: scripts/docker.sh image makes it")
    made = Daemon(tmp_path)
    made.start()
    try:
        saved = subprocess.Popen(["docker", "save", BASE], stdout=subprocess.PIPE)
        subprocess.run(["docker", "-H", made.host, "load"], stdin=saved.stdout, check=True, capture_output=True)
        saved.wait()
        yield made
    finally:
        subprocess.run(["docker", "-H", made.host, "rm", "-f", *_containers(made)], capture_output=True, check=False)
        assert made.process
        made.process.terminate()
        made.process.wait(timeout=60)
        made.socket.unlink(missing_ok=True)
        made.unmount()


def _containers(daemon: Daemon) -> list[str]:
    return subprocess.run(
        ["docker", "-H", daemon.host, "ps", "-aq"], capture_output=True, text=True, check=False
    ).stdout.split()


def test_a_daemon_that_dies_is_an_infrastructure_failure_and_comes_back(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", daemon.host)
    folder = tmp_path / "runner"
    folder.mkdir()
    runner = Runner("docker", folder)
    runner.sandbox = DockerSandbox(BASE)
    job = runner.job(f"import time\nwhile True: time.sleep(0.1)  # {MARK}")
    job = type(job)(**{name: getattr(job, name) for name in job.__slots__} | {"image": BASE})
    with pytest.raises(InfrastructureError, match="Docker failed while"), runner.sandbox.start(job) as running:
        daemon.kill()
        running.wait()
    with pytest.raises(InfrastructureError):
        runner.sandbox.start(job)
    daemon.start()
    assert len(_containers(daemon)) == 1, "the dead daemon left one behind"
    (folder / "code" / "main.py").write_text("import os\nopen(os.environ['OUT'], 'w').write('done')")
    with runner.sandbox.start(job) as running:
        assert running.wait().outcome is Outcome.OK
    assert (folder / "out").read_text() == "done"
    assert runner.sandbox.reap({"run": MARK}, dry_run=True) == []
