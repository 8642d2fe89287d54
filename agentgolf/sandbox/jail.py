"""Holds a coding agent's command line: it writes in its own folder alone, and sees what it is shown.

Unlike a candidate it may use the network, since it must reach its own model.
"""

import contextlib
import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentgolf.errors import EnvironmentNotReadyError
from agentgolf.sandbox.base import POLL_SECONDS, LogTail
from agentgolf.sandbox.process import bubblewrap, system_options, tree_bytes

WORK_DIR, HOME_DIR, TASK_FILE = "/work", "/home/agent", "/task.md"
# What names, certificates and users are looked up in.
ETC = ("resolv.conf", "hosts", "nsswitch.conf", "ssl", "ca-certificates", "pki", "passwd", "group", "localtime")
MAX_FOLDER_BYTES = 1_000_000_000
MAX_FILE_BYTES = 2_000_000
MAX_FILES = 2_000
LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Jailed:
    """How it ended. `trouble` says why it was ended early, if it was."""

    log: str
    exit_code: int
    seconds: float
    trouble: str


def run_jailed(
    argv: Sequence[str],
    *,
    work: Path,
    task: Path,
    environment: Mapping[str, str],
    readable: Sequence[Path],
    network: bool,
    seconds: float,
    stop: Callable[[], bool],
    on_line: Callable[[str], str | None],
) -> Jailed:
    """Run it in `work`; `on_line` sees each line of output and may give a reason to end it.

    Raises `EnvironmentNotReadyError` without a working bubblewrap.
    """
    bwrap = bubblewrap()
    if bwrap is None:
        raise EnvironmentNotReadyError(
            "a coding agent runs only inside bubblewrap, and it does not work here; run: apt-get install bubblewrap"
        )
    command = [bwrap, *_options(work, task, readable, network), "--", *argv]
    path = ":".join(["/usr/local/bin:/usr/bin:/bin", *map(str, readable), *(f"{one}/bin" for one in readable)])
    reasons: list[str] = []

    def line(text: str) -> None:
        reason = on_line(text)
        if reason:
            reasons.append(reason)

    log, started = LogTail(line), time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Not on the command line: anyone on this machine could read a key there.
        env={"PATH": path, "HOME": HOME_DIR, "LANG": "C.UTF-8", **environment},
        start_new_session=True,
    )
    reader = threading.Thread(target=_read, args=(process, log), daemon=True)
    reader.start()
    next_look = started + LOOK_SECONDS
    try:
        while process.poll() is None and not reasons:
            if time.monotonic() - started > seconds:
                reasons.append(f"it was ended after {seconds:g} seconds")
            elif stop():
                reasons.append("the run was stopped")
            elif time.monotonic() > next_look:
                next_look = time.monotonic() + LOOK_SECONDS
                if tree_bytes(work) > MAX_FOLDER_BYTES:
                    reasons.append(f"it wrote more than {MAX_FOLDER_BYTES:,} bytes")
            time.sleep(POLL_SECONDS)
    finally:
        # The first process of its own pid namespace: whatever it started ends with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join(timeout=2)
    return Jailed(
        log=log.text(),
        exit_code=process.returncode,
        seconds=time.monotonic() - started,
        trouble=reasons[0] if reasons else "",
    )


def _options(work: Path, task: Path, readable: Sequence[Path], network: bool) -> list[str]:
    options = ["--unshare-all", *(["--share-net"] if network else []), "--die-with-parent", "--new-session"]
    options += ["--cap-drop", "ALL", "--hostname", "sandbox", *system_options(), "--tmpfs", "/tmp"]
    for name in ETC:
        options += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    options += ["--dir", "/home", "--tmpfs", HOME_DIR]
    for path in readable:
        options += ["--ro-bind", str(path), str(path)]
    options += ["--bind", str(work), WORK_DIR, "--ro-bind", str(task), TASK_FILE, "--chdir", WORK_DIR]
    return options


def _read(process: subprocess.Popen[bytes], log: LogTail) -> None:
    assert process.stdout
    with contextlib.suppress(OSError, ValueError):
        while data := os.read(process.stdout.fileno(), 65_536):
            log.feed(data)


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
