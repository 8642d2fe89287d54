"""A coding agent's command line: what it may use, when it is ended, and what it leaves in its folder.

Unlike a candidate it may use the network, since it must reach its own model.
"""

import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentgolf.errors import EnvironmentNotReadyError
from agentgolf.sandbox.base import POLL_SECONDS, LogTail
from agentgolf.sandbox.process import tree_bytes

# Where things are inside, in bubblewrap and in a container alike.
WORK_DIR, HOME_DIR, TASK_FILE = "/work", "/home/agent", "/task.md"
# Wide, so that an agent that wraps what it prints does not break the line we read.
VARIABLES = {"HOME": HOME_DIR, "LANG": "C.UTF-8", "COLUMNS": "400"}
MAX_FOLDER_BYTES = 1_000_000_000
MAX_FILE_BYTES = 2_000_000
MAX_FILES = 2_000
LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """`work` alone can be written, `task` is a file to read, `readable` are folders of the host that it needs.

    `environment` are the only variables besides PATH and `VARIABLES`. `stop` is asked all the time whether to end it;
    `on_line` sees each line of output and may give a reason to.
    """

    argv: Sequence[str]
    work: Path
    task: Path
    environment: Mapping[str, str]
    readable: Sequence[Path]
    network: bool
    seconds: float
    stop: Callable[[], bool]
    on_line: Callable[[str], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How it ended. `trouble` says why it was ended early, if it was."""

    log: str
    exit_code: int
    seconds: float
    trouble: str


@dataclass(slots=True)
class Attendant:
    """Watches an errand from its start."""

    errand: Errand
    log: LogTail = field(init=False)
    _reason: str = ""
    _started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.log = LogTail(self._read)

    def wait(self, running: Callable[[], bool]) -> None:
        """Until it has ended, or there is a reason to end it."""
        next_look = self._started + LOOK_SECONDS
        while running() and not self._reason:
            now = time.monotonic()
            if now - self._started > self.errand.seconds:
                self._reason = f"it was ended after {self.errand.seconds:g} seconds"
            elif self.errand.stop():
                self._reason = "the run was stopped"
            elif now > next_look:
                next_look = now + LOOK_SECONDS
                if tree_bytes(self.errand.work) > MAX_FOLDER_BYTES:
                    self._reason = f"it wrote more than {MAX_FOLDER_BYTES:,} bytes"
            time.sleep(POLL_SECONDS)

    def ended(self, exit_code: int) -> Ended:
        self.log.end()
        return Ended(
            log=self.log.text(), exit_code=exit_code, seconds=time.monotonic() - self._started, trouble=self._reason
        )

    def _read(self, line: str) -> None:
        self._reason = self._reason or self.errand.on_line(line) or ""


def cannot_start(said: str) -> EnvironmentNotReadyError:
    """For a command line that was never begun: it would not be the next time either."""
    first = said.strip().partition("\n")[0]
    return EnvironmentNotReadyError(
        f"the coding agent cannot be started ({first}); look at command.argv and command.readable in its scaffold"
    )


def left_files(work: Path) -> dict[str, str]:
    """Every regular text file below `work`, but hidden ones and caches. Links are never followed."""
    found: dict[str, str] = {}
    for root, folders, names in os.walk(work):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        for name in sorted(names):
            path = Path(root) / name
            if name.startswith(".") or len(found) >= MAX_FILES:
                continue
            text = _regular_text(path)
            if text is not None:
                found[path.relative_to(work).as_posix()] = text
    return found


def _regular_text(path: Path) -> str | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES or b"\0" in data:
        return None
    return data.decode("utf-8", "replace")
