"""What a sandbox is: the job it takes, the handle it gives, and the watch that all of them share."""

import codecs
import collections
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from agentgolf.domain import Execution, Limits, Outcome, Role, Slot
from agentgolf.sandbox.clock import BudgetClock

POLL_SECONDS = 0.02
USAGE_SECONDS = 0.2
MAX_SCRATCH_FILES = 65_536
LOG_HEAD_BYTES = 32_768
LOG_TAIL_BYTES = 65_536

# Where things are inside every sandbox.
CODE_DIR = "/course"
DATA_DIR = "/data"
OUT_FILE = "/out/artifact.bin"  # written by training
ARTIFACT_FILE = "/artifact.bin"  # read by scoring
CLOCK_FILE = "/clock"
CHANNEL_DIR = "/channel"
TOOL_DIR = "/agentgolf"
SCRATCH_DIR = "/tmp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A file or folder of the host shown inside. Writable only for one pre-made regular file."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One process to run in a sandbox.

    `name` is deterministic, so that a later process finds what an earlier one left; `labels` hold
    run, trial and replicate. `hidden` are host paths that must not be readable inside. Paths in
    `argv` and `env` are those of the inside; a sandbox without a mount namespace translates them.
    """

    name: str
    role: Role
    argv: tuple[str, ...]
    env: Mapping[str, str]
    mounts: tuple[Mount, ...]
    limits: Limits
    slot: Slot
    image: str
    labels: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[Path, ...] = ()


class Running(Protocol):
    """A started job. Leaving the `with` block kills whatever is left and removes every trace."""

    def wait(self, on_line: Callable[[str], None] | None = None) -> Execution:
        """Watch until it ends or a limit ends it. Raises `InfrastructureError` if the engine fails."""

    def kill(self) -> None:
        """End it now; `wait` then returns."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Sandbox(Protocol):
    """A way to run jobs. `isolation` says in one plain sentence what it does not protect against.

    `isolates`: whether it keeps a job from the user's files and from the network. `image_id`: the hash of
    what jobs run in, empty without an image.
    """

    name: str
    isolation: str
    isolates: bool
    image_id: str

    def prepare(self) -> None:
        """Check that jobs can run. Raises `EnvironmentNotReadyError` with the fix."""

    def start(self, job: Job) -> Running:
        """Start a job. Raises `InfrastructureError` when the engine cannot."""

    def reap(self, labels: Mapping[str, str], dry_run: bool = False) -> list[str]:
        """End and remove everything that carries these labels; the names of what was found."""


class LogTail:
    """Keeps the first and last part of an endless output, and hands on whole lines, cleaned."""

    def __init__(self, on_line: Callable[[str], None] | None = None) -> None:
        self.on_line = on_line
        self._head = bytearray()
        self._tail: collections.deque[bytes] = collections.deque()
        self._tail_bytes = self._dropped = self.total_bytes = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line = ""
        self._lock = threading.Lock()

    def feed(self, data: bytes) -> None:
        with self._lock:
            self.total_bytes += len(data)
            room = LOG_HEAD_BYTES - len(self._head)
            self._head += data[:room]
            if rest := data[max(room, 0) :]:
                self._tail.append(rest)
                self._tail_bytes += len(rest)
            while self._tail_bytes - len(self._tail[0] if self._tail else b"") > LOG_TAIL_BYTES:
                gone = self._tail.popleft()
                self._tail_bytes -= len(gone)
                self._dropped += len(gone)
        if self.on_line is not None:
            *lines, self._line = (self._line + self._decoder.decode(data)).split("\n")
            self._line = self._line[-2000:]
            for line in lines[-100:]:
                self.on_line(clean(line))

    def end(self) -> None:
        """No more will come: hand on a last line without an end."""
        if self.on_line is not None and self._line:
            self.on_line(clean(self._line))
        self._line = ""

    def text(self) -> str:
        with self._lock:
            head, tail = bytes(self._head), b"".join(self._tail)
            gone = self._dropped
        if len(tail) > LOG_TAIL_BYTES:
            gone += len(tail) - LOG_TAIL_BYTES
            tail = tail[-LOG_TAIL_BYTES:]
        middle = f"\n... {gone:,} bytes left out ...\n".encode() if gone else b""
        return clean((head + middle + tail).decode("utf-8", "replace"))


def clean(text: str) -> str:
    """Drop control characters (terminal escapes among them); newlines and tabs stay."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


@dataclass(slots=True)
class Usage:
    """What an engine reads about a running job.

    `disk_bytes` is 0 where scratch is a sized tmpfs, `scratch_files` where the number of its files is limited.
    """

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0
    scratch_files: int = 0
    processes: int = 1


class Watch:
    """Applies the limits from outside while a job runs; the same for every engine.

    `read` gives the current usage, `kill` ends the job. Call `tick` until it says that the job must
    end or the job has ended by itself.
    """

    def __init__(self, job: Job, clock: BudgetClock) -> None:
        self.limits, self.clock = job.limits, clock
        self.started = time.monotonic()
        self.usage = Usage()
        self.peak_memory_bytes = 0
        self.verdict: tuple[Outcome, str] | None = None

    def tick(self, usage: Usage) -> bool:
        """Take one reading; True when a limit is broken and the job must be killed."""
        limits = self.limits
        self.usage = usage
        self.peak_memory_bytes = max(self.peak_memory_bytes, usage.memory_bytes)
        used = self.clock.update(usage.cpu_seconds)
        allowed = limits.budget_seconds + limits.grace_seconds
        wall = time.monotonic() - self.started
        if used > allowed:
            self.verdict = (
                Outcome.TIMED_OUT,
                f"used more than {limits.budget_seconds:g} + {limits.grace_seconds:g} {limits.clock}-seconds",
            )
        elif wall > limits.wall_seconds:
            self.verdict = Outcome.TIMED_OUT, f"still ran after {limits.wall_seconds:.0f} seconds on the wall"
        elif usage.memory_bytes > limits.memory_bytes:
            self.verdict = Outcome.OUT_OF_MEMORY, f"used more than {limits.memory_bytes:,} bytes of memory"
        elif usage.processes > limits.max_pids:
            self.verdict = Outcome.CRASHED, f"had more than {limits.max_pids} processes"
        elif usage.disk_bytes > limits.scratch_bytes:
            self.verdict = Outcome.CRASHED, f"wrote more than {limits.scratch_bytes:,} bytes of scratch"
        elif usage.scratch_files > MAX_SCRATCH_FILES:
            self.verdict = Outcome.CRASHED, f"made more than {MAX_SCRATCH_FILES:,} files of scratch"
        return self.verdict is not None

    def execution(self, role: Role, exit_code: int | None, log: str, oom: bool = False) -> Execution:
        """The job has ended: say how."""
        outcome, message = self.verdict or (Outcome.OK, "")
        if not self.verdict and oom:
            outcome, message = (
                Outcome.OUT_OF_MEMORY,
                f"used more than {self.limits.memory_bytes:,} bytes of memory",
            )
        elif not self.verdict and exit_code != 0:
            outcome, message = Outcome.CRASHED, f"{role} ended with exit code {exit_code}{_last_line(log)}"
        return Execution(
            role=role,
            outcome=outcome,
            exit_code=exit_code,
            wall_seconds=time.monotonic() - self.started,
            cpu_seconds=self.usage.cpu_seconds,
            clock_seconds=self.clock.used_seconds,
            peak_memory_bytes=self.peak_memory_bytes,
            log=log,
            message=message,
        )


def _last_line(log: str) -> str:
    """The last line that names an exception, else the last one: the two streams may arrive in either order."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit)\b", line)]
    return f": {(raised or lines)[-1][:160]}" if lines else ""
