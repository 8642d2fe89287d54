"""Runs a coding agent's command line in bubblewrap: it writes in its own folder alone, and sees what it is shown."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from agentgolf.errors import EnvironmentNotReadyError
from agentgolf.sandbox.base import LogTail
from agentgolf.sandbox.errand import (
    HOME_DIR,
    MAX_FOLDER_BYTES,
    TASK_FILE,
    VARIABLES,
    WORK_DIR,
    Attendant,
    Ended,
    Errand,
    cannot_start,
)
from agentgolf.sandbox.process import bubblewrap, system_options

USER = "1000"
# What names, certificates and users are looked up in.
ETC = ("resolv.conf", "hosts", "nsswitch.conf", "ssl", "ca-certificates", "pki", "passwd", "group", "localtime")


def run_jailed(errand: Errand) -> Ended:
    """Raises `EnvironmentNotReadyError` without a working bubblewrap, or when there is no such program inside."""
    bwrap = bubblewrap()
    if bwrap is None:
        raise EnvironmentNotReadyError(
            "a coding agent runs in bubblewrap, and it does not work here; run: apt-get install bubblewrap, or name a "
            "Docker image for it (command.image in scaffold.toml)"
        )
    attendant = Attendant(errand)
    process = subprocess.Popen(
        [bwrap, *_options(errand), "--", *errand.argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Not on the command line: anyone on this machine could read a key there.
        env={"PATH": _search_path(errand.readable), **VARIABLES, **errand.environment},
        start_new_session=True,
    )
    reader = threading.Thread(target=_read, args=(process, attendant.log), daemon=True)
    reader.start()
    try:
        attendant.wait(lambda: process.poll() is None)
    finally:
        # The first process of its own pid namespace: whatever it started ends with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join(timeout=2)
    ended = attendant.ended(process.returncode)
    if ended.exit_code != 0 and ended.log.startswith("bwrap: "):
        raise cannot_start(ended.log)
    return ended


def find_program(program: str, readable: Sequence[Path]) -> Path | None:
    """Where bubblewrap would find it, if it would."""
    found = shutil.which(program, path=_search_path(readable))
    shown = [Path("/usr").resolve(), *(path.resolve() for path in readable)]
    real = Path(found).resolve() if found else None
    return real if real is not None and any(real.is_relative_to(path) for path in shown) else None


def _search_path(readable: Sequence[Path]) -> str:
    shown = [str(path) for path in readable]
    return ":".join(["/usr/local/bin:/usr/bin:/bin", *shown, *(f"{one}/bin" for one in shown)])


def _options(errand: Errand) -> list[str]:
    options = ["--unshare-all", *(["--share-net"] if errand.network else []), "--die-with-parent", "--new-session"]
    # Not root even where we are: several agents refuse to work as root.
    options += ["--unshare-user", "--uid", USER, "--gid", USER, "--cap-drop", "ALL", "--hostname", "sandbox"]
    options += [*system_options(), "--size", str(MAX_FOLDER_BYTES), "--tmpfs", "/tmp"]
    for name in ETC:
        options += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    options += ["--dir", "/home", "--size", str(MAX_FOLDER_BYTES), "--tmpfs", HOME_DIR]
    for path in errand.readable:
        options += ["--ro-bind", str(path), str(path)]
    options += ["--bind", str(errand.work), WORK_DIR, "--ro-bind", str(errand.task), TASK_FILE, "--remount-ro", "/"]
    return [*options, "--chdir", WORK_DIR]


def _read(process: subprocess.Popen[bytes], log: LogTail) -> None:
    assert process.stdout
    with contextlib.suppress(OSError, ValueError):
        while data := os.read(process.stdout.fileno(), 65_536):
            log.feed(data)
