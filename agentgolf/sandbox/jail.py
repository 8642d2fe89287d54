"""Runs a coding agent's command line in bubblewrap: it writes in its own folder alone, and sees what it is shown."""

import contextlib
import os
import signal
import subprocess
import threading

from agentgolf.errors import EnvironmentNotReadyError
from agentgolf.sandbox.base import LogTail
from agentgolf.sandbox.errand import HOME_DIR, TASK_FILE, WORK_DIR, Attendant, Ended, Errand
from agentgolf.sandbox.process import bubblewrap, system_options

# What names, certificates and users are looked up in.
ETC = ("resolv.conf", "hosts", "nsswitch.conf", "ssl", "ca-certificates", "pki", "passwd", "group", "localtime")


def run_jailed(errand: Errand) -> Ended:
    """Raises `EnvironmentNotReadyError` without a working bubblewrap."""
    bwrap = bubblewrap()
    if bwrap is None:
        raise EnvironmentNotReadyError(
            "a coding agent runs in bubblewrap, and it does not work here; run: apt-get install bubblewrap, or name a "
            "Docker image for it (command.image in scaffold.toml)"
        )
    shown = [str(path) for path in errand.readable]
    path = ":".join(["/usr/local/bin:/usr/bin:/bin", *shown, *(f"{one}/bin" for one in shown)])
    attendant = Attendant(errand)
    process = subprocess.Popen(
        [bwrap, *_options(errand), "--", *errand.argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Not on the command line: anyone on this machine could read a key there.
        env={"PATH": path, "HOME": HOME_DIR, "LANG": "C.UTF-8", **errand.environment},
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
    return attendant.ended(process.returncode)


def _options(errand: Errand) -> list[str]:
    options = ["--unshare-all", *(["--share-net"] if errand.network else []), "--die-with-parent", "--new-session"]
    options += ["--cap-drop", "ALL", "--hostname", "sandbox", *system_options(), "--tmpfs", "/tmp"]
    for name in ETC:
        options += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    options += ["--dir", "/home", "--tmpfs", HOME_DIR]
    for path in errand.readable:
        options += ["--ro-bind", str(path), str(path)]
    options += ["--bind", str(errand.work), WORK_DIR, "--ro-bind", str(errand.task), TASK_FILE, "--chdir", WORK_DIR]
    return options


def _read(process: subprocess.Popen[bytes], log: LogTail) -> None:
    assert process.stdout
    with contextlib.suppress(OSError, ValueError):
        while data := os.read(process.stdout.fileno(), 65_536):
            log.feed(data)
