"""Runs candidates as ordinary processes: inside bubblewrap when it works here, else bare.

Every job has a supervisor (`supervise.py`) that sets limits and kills all descendants at the end, also
when agentgolf itself dies.
"""

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from agentgolf.domain import Execution
from agentgolf.errors import InfrastructureError
from agentgolf.sandbox.base import (
    CODE_DIR,
    POLL_SECONDS,
    SCRATCH_DIR,
    USAGE_SECONDS,
    Job,
    LogTail,
    Usage,
    Watch,
)
from agentgolf.sandbox.clock import BudgetClock, SpeedMeter, metered

SUPERVISOR = Path(__file__).with_name("supervise.py")
BARE_ISOLATION = (
    "the process sandbox without bubblewrap limits time, memory and output, but a candidate can read your "
    "files and use the network: run only code you trust, or install bubblewrap or Docker"
)
BWRAP_ISOLATION = (
    "the process sandbox with bubblewrap hides your files and the network, but shares the kernel and has no "
    "hard memory limit: Docker isolates better"
)


@functools.lru_cache(maxsize=1)
def bubblewrap() -> str | None:
    """The bwrap command, if it is installed and may make namespaces here."""
    command = shutil.which("bwrap")
    if command is None:
        return None
    probe = [command, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        if subprocess.run(probe, capture_output=True, timeout=10, check=False).returncode == 0:
            return command
    return None


class ProcessSandbox:
    """`wrap=False` leaves bubblewrap out even where it works."""

    name = "process"
    image_id = ""

    def __init__(self, meter: SpeedMeter | None = None, *, wrap: bool = True) -> None:
        self._meter = meter
        self._bwrap = bubblewrap() if wrap else None
        self.isolates = self._bwrap is not None
        self.isolation = BWRAP_ISOLATION if self._bwrap else BARE_ISOLATION

    def prepare(self) -> None:
        """Nothing to make ready: the interpreter that runs agentgolf runs the candidates too."""

    def start(self, job: Job) -> "RunningProcess":
        return RunningProcess(job, self._bwrap, self._meter)

    def reap(self, labels: Mapping[str, str], dry_run: bool = False) -> list[str]:
        """Supervisors end by themselves when agentgolf dies; this catches one that is still at it."""
        wanted = {f"{key}={value}" for key, value in labels.items()}
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if str(SUPERVISOR) in words and wanted <= set(words[-1].split(",")):
                found.append(f"process {process.pid}")
                if not dry_run:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        family = [*process.children(recursive=True), process]
                        for member in family:
                            with contextlib.suppress(psutil.NoSuchProcess):
                                member.kill()
        return found


class RunningProcess:
    def __init__(self, job: Job, bwrap: str | None, meter: SpeedMeter | None) -> None:
        self._job, self._meter = job, meter
        self._scratch = Path(tempfile.mkdtemp(prefix="agentgolf-"))
        page = next((m.source for m in job.mounts if m.target == "/clock"), None)
        self._watch = Watch(job, BudgetClock(job.limits.clock, page))
        self._bare = bwrap is None
        plan = {
            "argv": _bare_argv(job, self._scratch) if bwrap is None else [bwrap, *map(_interpreter, job.argv)],
            "private": [] if bwrap is None else _bwrap_options(job),
            "cwd": str(_source(job, CODE_DIR) or self._scratch),
            "rlimits": {
                "RLIMIT_CORE": 0,
                "RLIMIT_FSIZE": job.limits.file_bytes,
                "RLIMIT_NOFILE": job.limits.open_files,
                "RLIMIT_CPU": int(job.limits.wall_seconds) + 5,
            },
            "cores": list(job.slot.cores),
            "wall_seconds": job.limits.wall_seconds + 5,
        }
        label = ",".join(f"{k}={v}" for k, v in {**job.labels, "job": job.name}.items())
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SUPERVISOR), json.dumps(plan), label],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_bare_env(job, self._scratch) if bwrap is None else {"PATH": "/usr/bin:/bin"},
                start_new_session=True,
            )
        except OSError as error:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise InfrastructureError(f"cannot start a process: {error.strerror}") from error

    def wait(self, on_line: Callable[[str], None] | None = None) -> Execution:
        log = LogTail(on_line)
        reader = threading.Thread(target=self._read, args=(log,), daemon=True)
        reader.start()
        exit_code, next_reading = None, 0.0
        with metered(self._watch.clock, self._job.slot, self._meter):
            while exit_code is None:
                pid, status, used = os.wait4(self._process.pid, os.WNOHANG)
                if pid:
                    exit_code = os.waitstatus_to_exitcode(status)
                    self._process.returncode = exit_code
                    cpu = max(used.ru_utime + used.ru_stime, self._watch.usage.cpu_seconds)
                    if self._watch.verdict is None:
                        self._watch.tick(Usage(cpu_seconds=cpu))
                elif time.monotonic() >= next_reading:
                    next_reading = time.monotonic() + USAGE_SECONDS
                    if self._watch.verdict is None and self._watch.tick(self._usage()):
                        self.kill()
                else:
                    time.sleep(POLL_SECONDS)
        reader.join(timeout=2)
        return self._watch.execution(self._job.role, exit_code, log.text())

    def kill(self) -> None:
        if self._process.stdin and not self._process.stdin.closed:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if self._process.returncode is None:
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _read(self, log: LogTail) -> None:
        assert self._process.stdout
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(self._process.stdout.fileno(), 65_536):
                log.feed(data)

    def _usage(self) -> Usage:
        """Sum over the supervisor and everything below it; children that were waited for count too."""
        usage = Usage(processes=0)
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(self._process.pid)
            family = [top, *top.children(recursive=True)]
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
                    times = process.cpu_times()
                    usage.cpu_seconds += sum(times[:4])
                    usage.memory_bytes += process.memory_info().rss
                    usage.processes += 1
            if not self._bare:
                usage.scratch_files, shared = _tmpfs_use(family)
                usage.memory_bytes += shared
        if self._bare:
            usage.disk_bytes = tree_bytes(self._scratch)
        return usage


def _tmpfs_use(family: list[psutil.Process]) -> tuple[int, int]:
    """Files in the sandbox's scratch and bytes in its shared memory, seen through a process inside."""
    host = Path(SCRATCH_DIR).stat().st_dev
    for process in reversed(family):
        inside = Path(f"/proc/{process.pid}/root")
        scratch_dir, shared_dir = inside / SCRATCH_DIR.lstrip("/"), inside / "dev/shm"
        with contextlib.suppress(OSError):
            if scratch_dir.stat().st_dev != host:
                scratch, shared = os.statvfs(scratch_dir), os.statvfs(shared_dir)
                return scratch.f_files - scratch.f_ffree, (shared.f_blocks - shared.f_bfree) * shared.f_frsize
    return 0, 0


def tree_bytes(folder: Path) -> int:
    """What a folder takes on the disk; files that vanish meanwhile do not count."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_blocks * 512  # noqa: PTH118  (hot loop)
    return total


def _source(job: Job, target: str) -> Path | None:
    return next((mount.source for mount in job.mounts if mount.target == target), None)


def _translate(text: str, job: Job, scratch: Path) -> str:
    """A path of the inside as a path of the host, for a job without a mount namespace."""
    for target, source in [(m.target, m.source) for m in job.mounts] + [(SCRATCH_DIR, scratch)]:
        if text == target or text.startswith(target + "/"):
            return str(source) + text[len(target) :]
    return text


def _interpreter(word: str) -> str:
    return sys.executable if word == "python" else word


def _bare_argv(job: Job, scratch: Path) -> list[str]:
    # The interpreter is a path of the host already, and may itself lie below one that is translated.
    return [_interpreter(_translate(word, job, scratch)) for word in job.argv]


def _bare_env(job: Job, scratch: Path) -> dict[str, str]:
    env = {key: _translate(value, job, scratch) for key, value in job.env.items()}
    return {"PATH": "/usr/bin:/bin", **env, **_gpu_env(job)}


def _gpu_env(job: Job) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": ",".join(job.slot.gpus)}


def system_options() -> list[str]:
    """The system's programs and libraries, read-only, and nothing of /etc but the loader's cache."""
    argv = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = Path("/") / name
        if path.is_symlink():
            argv += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            argv += ["--ro-bind", str(path), str(path)]
    return [*argv, "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--proc", "/proc", "--dev", "/dev"]


def _bwrap_options(job: Job) -> list[str]:
    """Read-only system and interpreter, the job's mounts, a sized scratch, and nothing else."""
    argv = [
        "--unshare-all",
        "--unshare-user",
        "--uid",
        "65534",
        "--gid",
        "65534",
        "--die-with-parent",
        "--new-session",
        "--cap-drop",
        "ALL",
        "--hostname",
        "sandbox",
        "--clearenv",
        *system_options(),
    ]
    argv += ["--size", str(job.limits.scratch_bytes), "--tmpfs", SCRATCH_DIR]
    argv += ["--size", str(job.limits.scratch_bytes), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    for prefix in dict.fromkeys((sys.base_prefix, sys.prefix)):
        if not prefix.startswith("/usr/"):
            argv += ["--ro-bind", prefix, prefix]
    for path in job.hidden:
        argv += ["--tmpfs", str(path)]
    for device in sorted(Path("/dev").glob("nvidia*")) if job.slot.gpus else ():
        argv += ["--dev-bind", str(device), str(device)]
    for mount in job.mounts:
        argv += ["--bind" if mount.writable else "--ro-bind", str(mount.source), mount.target]
    argv += ["--remount-ro", "/"]  # the mount points above lie on a small file system of bubblewrap's own
    for key, value in {"PATH": "/usr/bin:/bin", **job.env, **_gpu_env(job)}.items():
        argv += ["--setenv", key, value]
    return [*argv, "--chdir", CODE_DIR]
