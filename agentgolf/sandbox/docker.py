"""Runs candidates in Docker containers, against a real engine."""

import contextlib
import dataclasses
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from agentgolf.domain import Execution
from agentgolf.errors import EnvironmentNotReadyError, InfrastructureError
from agentgolf.sandbox.base import (
    CODE_DIR,
    MAX_SCRATCH_FILES,
    POLL_SECONDS,
    SCRATCH_DIR,
    USAGE_SECONDS,
    Job,
    LogTail,
    Usage,
    Watch,
)
from agentgolf.sandbox.clock import BudgetClock, SpeedMeter, metered

LABEL = "agentgolf."
NOBODY = "65534:65534"
ENGINE_SECONDS = 60


@contextlib.contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn what the SDK raises into one sentence."""
    try:
        yield
    except ImageNotFound as error:
        raise EnvironmentNotReadyError(f"Docker has no image for this course: {error.explanation}") from error
    except (DockerException, requests.RequestException, OSError) as error:
        said = getattr(error, "explanation", None) or str(error)
        raise InfrastructureError(f"Docker failed while {doing}: {said}") from error


class DockerSandbox:
    name = "docker"
    isolates = True
    isolation = "containers share this machine's kernel: a kernel exploit gets out"

    def __init__(self, image: str, meter: SpeedMeter | None = None) -> None:
        with engine_errors("connecting; is the daemon running, and may you use it?"):
            self._client = docker.from_env(timeout=ENGINE_SECONDS)
        self._image, self._meter = image, meter
        self.image_id = image

    def ping(self) -> None:
        """Raises `InfrastructureError` when no engine answers."""
        with engine_errors("connecting; is the daemon running, and may you use it?"):
            self._client.ping()

    def prepare(self) -> None:
        self.ping()
        try:
            with engine_errors("looking for the image"):
                # By its id from here on: a tag may move while the run goes on.
                self.image_id = str(self._client.images.get(self._image).id)
        except EnvironmentNotReadyError as error:
            if isinstance(error, InfrastructureError):
                raise
            raise EnvironmentNotReadyError(
                f"Docker has no image {self._image!r}; build it from the course's folder: "
                f"docker build -t {self._image} --build-arg BASE=python:3.11-slim COURSE_DIR"
            ) from error

    def start(self, job: Job) -> "RunningContainer":
        with engine_errors(f"starting {job.name}"):
            return RunningContainer(self._client, dataclasses.replace(job, image=self.image_id), self._meter)

    def protections(self) -> str:
        """What this engine adds of its own: seccomp, user namespaces, rootless mode."""
        with engine_errors("asking what it is"):
            info = self._client.info()
        options = {part.partition("name=")[2].split(",")[0] for part in info.get("SecurityOptions") or []}
        seccomp = "seccomp filter" if "seccomp" in options else "NO seccomp filter"
        users = "rootless" if "rootless" in options else "user namespaces" if "userns" in options else ""
        return f"{seccomp}, {users or 'no user namespaces'}"

    def reap(self, labels: Mapping[str, str], dry_run: bool = False) -> list[str]:
        wanted = [f"{LABEL}{key}={value}" for key, value in labels.items()]
        with engine_errors("looking for containers left behind"):
            found = self._client.containers.list(all=True, filters={"label": wanted or [f"{LABEL}run"]})
            for container in found if not dry_run else ():
                with contextlib.suppress(NotFound):
                    container.remove(force=True)
        return [f"container {container.name}" for container in found]


class RunningContainer:
    def __init__(self, client: docker.DockerClient, job: Job, meter: SpeedMeter | None) -> None:
        self._client, self._job, self._meter = client, job, meter
        page = next((m.source for m in job.mounts if m.target == "/clock"), None)
        with contextlib.suppress(NotFound):  # left by a process that died in the middle of this very job
            client.containers.get(job.name).remove(force=True)
        self._container: Container = client.containers.create(**container_options(job))
        try:
            self._output = self._container.attach(stream=True, logs=True, stdout=True, stderr=True)
            self._container.start()
            self._container.reload()
        except BaseException:
            with contextlib.suppress(DockerException, requests.RequestException):
                self._container.remove(force=True)
            raise
        self._usage_of = usage_reader(client, self._container)
        self._watch = Watch(job, BudgetClock(job.limits.clock, page))
        self._ended = threading.Event()
        self._exit: dict[str, Any] = {}

    def wait(self, on_line: Callable[[str], None] | None = None) -> Execution:
        log = LogTail(on_line)
        threads = [
            threading.Thread(target=self._read, args=(log,), daemon=True),
            threading.Thread(target=self._await_exit, daemon=True),
        ]
        for thread in threads:
            thread.start()
        next_reading = 0.0
        with metered(self._watch.clock, self._job.slot, self._meter):
            while not self._ended.wait(POLL_SECONDS):
                if time.monotonic() >= next_reading and self._watch.verdict is None:
                    next_reading = time.monotonic() + USAGE_SECONDS / 4  # two small files are quickly read
                    if self._watch.tick(self._usage_of(self._watch.usage)):
                        self.kill()
        if "error" in self._exit:
            raise InfrastructureError(f"Docker failed while {self._job.name} ran: {self._exit['error']}")
        threads[0].join(timeout=5)
        with engine_errors(f"reading how {self._job.name} ended"):
            self._container.reload()
            # An attached stream may miss the last words of a process that ends quickly; the engine's log has them.
            stored = self._container.logs(stdout=True, stderr=True)
        if len(stored) > log.total_bytes:
            log = LogTail()
            log.feed(stored)
        state = self._container.attrs["State"]
        return self._watch.execution(
            self._job.role, state.get("ExitCode"), log.text(), oom=bool(state.get("OOMKilled"))
        )

    def kill(self) -> None:
        with contextlib.suppress(DockerException, requests.RequestException):
            self._container.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(DockerException, requests.RequestException):
            self._container.remove(force=True)

    def _read(self, log: LogTail) -> None:
        with contextlib.suppress(DockerException, requests.RequestException, OSError, ValueError):
            for data in self._output:
                log.feed(data)

    def _await_exit(self) -> None:
        """Blocks in the engine; a daemon that dies ends this too, and that is told apart from an exit."""
        try:
            self._container.wait(timeout=self._job.limits.wall_seconds + ENGINE_SECONDS)
        except (DockerException, requests.RequestException) as error:
            self._exit["error"] = str(error)
        self._ended.set()


def container_options(job: Job) -> dict[str, Any]:
    """Everything the engine is told about a job."""
    limits = job.limits
    requests_ = [DeviceRequest(device_ids=list(job.slot.gpus), capabilities=[["gpu"]])] if job.slot.gpus else None
    # The deadline also stands inside, should agentgolf die and never come back.
    deadline = ["timeout", "--signal=KILL", str(math.ceil(limits.wall_seconds + 10))]
    return {
        "image": job.image,
        "name": job.name,
        "command": [*deadline, *("python3" if word == "python" else word for word in job.argv)],
        "environment": {"HOME": SCRATCH_DIR, **job.env},
        "labels": {f"{LABEL}{key}": value for key, value in job.labels.items()},
        "working_dir": CODE_DIR,
        "mounts": [Mount(m.target, str(m.source.resolve()), type="bind", read_only=not m.writable) for m in job.mounts],
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "user": NOBODY,
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,
        "pids_limit": limits.max_pids,
        "cpuset_cpus": ",".join(map(str, job.slot.cores)),
        "nano_cpus": len(job.slot.cores) * 1_000_000_000,
        "ulimits": [
            Ulimit(name="fsize", soft=limits.file_bytes, hard=limits.file_bytes),
            Ulimit(name="nofile", soft=limits.open_files, hard=limits.open_files),
            Ulimit(name="core", soft=0, hard=0),
        ],
        "tmpfs": {SCRATCH_DIR: f"rw,exec,nosuid,nodev,size={limits.scratch_bytes},nr_inodes={MAX_SCRATCH_FILES}"},
        "shm_size": limits.scratch_bytes,
        "log_config": LogConfig(type="local", config={"max-size": "1m", "max-file": "2"}),
        "device_requests": requests_,
        "stdin_open": False,
        "detach": True,
    }


def usage_reader(client: docker.DockerClient, container: Container) -> Callable[[Usage], Usage]:
    """How to read a container's usage: its cgroup's files when they are ours to read, else the engine."""
    pid = container.attrs["State"]["Pid"]
    files = _cgroup_files(pid) if pid else None
    if files is None:
        return lambda last: _usage_from_engine(client, container, last)
    cpu, memory = files

    def read(last: Usage) -> Usage:
        try:
            text = cpu.read_text()
            micro = next((w.split()[1] for w in text.splitlines() if w.startswith("usage_usec")), None)
            seconds = int(micro) / 1e6 if micro else int(text) / 1e9
            return Usage(cpu_seconds=seconds, memory_bytes=int(memory.read_text()))
        except (OSError, ValueError):  # the container has just ended and its cgroup is gone
            return last

    return read


def _cgroup_files(pid: int) -> tuple[Path, Path] | None:
    """The files with CPU time and current memory: (v1 nanoseconds or v2 cpu.stat, bytes)."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    where = {name: path for line in lines for name in line.split(":")[1].split(",") for path in [line.split(":", 2)[2]]}
    root = Path("/sys/fs/cgroup")
    if "cpuacct" in where and "memory" in where:
        files = (
            root / "cpuacct" / where["cpuacct"].lstrip("/") / "cpuacct.usage",
            root / "memory" / where["memory"].lstrip("/") / "memory.usage_in_bytes",
        )
    else:
        base = root / where.get("", "").lstrip("/")
        files = base / "cpu.stat", base / "memory.current"
    readable = all(os.access(file, os.R_OK) for file in files) and "docker" in str(files[0])
    return files if readable else None


def _usage_from_engine(client: docker.DockerClient, container: Container, last: Usage) -> Usage:
    try:
        stats = client.api.stats(str(container.id), stream=False, one_shot=True)
        return Usage(
            cpu_seconds=stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
            memory_bytes=stats["memory_stats"].get("usage", 0),
        )
    except (APIError, requests.RequestException, KeyError):
        return last
