"""Stands between agentgolf and a candidate process: sets limits, and leaves nothing behind.

Run as a script by `process.py`; imports nothing of ours. Arguments: one JSON object
{"argv", "private", "cwd", "rlimits": {name: value}, "cores": [..], "wall_seconds"} and a label that names the job.
`private` are arguments for a wrapper, handed over in a file (`--args FD`): its command line can be read inside.
Standard input is a pipe from agentgolf: when it closes, agentgolf is dead or wants this to end.
Ends with the candidate's exit code (128 + signal), after every descendant is gone.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


def descendants() -> list[int]:
    """Every process below this one, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  (stdlib only, and speed counts here)
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{entry}/stat") as stat:  # noqa: PTH123
                parent = int(stat.read().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found, queue = [], [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def kill_all() -> None:
    """Kill until nothing is left: orphans come to us, since we are their subreaper."""
    while pids := descendants():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.002)


def start(job: dict) -> int:  # type: ignore[type-arg]
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    quiet = os.open(os.devnull, os.O_RDONLY)
    os.dup2(quiet, 0)
    if job["cores"]:
        os.sched_setaffinity(0, job["cores"])
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123
        score.write("1000")
    for name, value in job["rlimits"].items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (limit, limit))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.chdir(job["cwd"])
    argv = job["argv"]
    if job["private"]:
        handle = os.memfd_create("arguments", 0)
        os.write(handle, b"\0".join(word.encode() for word in job["private"]) + b"\0")
        os.lseek(handle, 0, os.SEEK_SET)
        argv = [argv[0], "--args", str(handle), "--", *argv[1:]]
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(2, f"cannot start {argv[0]}: {error.strerror}\n".encode())
        os._exit(127)


def main() -> None:
    job = json.loads(sys.argv[1])
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is agentgolf's to handle
    deadline = time.monotonic() + job["wall_seconds"]
    child = start(job)
    status = None
    while status is None:
        readable, _, _ = select.select([0], [], [], 0.02)
        if readable or time.monotonic() > deadline:  # end of file: nobody listens any more
            break
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == child:
                    status = found[1]
    kill_all()
    if status is None:
        sys.exit(137)
    sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


if __name__ == "__main__":
    main()
