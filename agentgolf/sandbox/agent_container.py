"""Runs a coding agent's command line in a Docker container: its own image, or where bubblewrap does not work."""

import contextlib
import math
import os
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import docker
import requests
from docker.errors import DockerException, ImageNotFound, NotFound
from docker.types import LogConfig, Mount

from agentgolf.errors import EnvironmentNotReadyError
from agentgolf.sandbox.base import LogTail
from agentgolf.sandbox.docker import ENGINE_SECONDS, LABEL, engine_errors
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

MAX_PIDS = 512


def run_contained(errand: Errand, image: str, name: str, labels: Mapping[str, str]) -> Ended:
    """In a container of that name, which a later start can find by its labels should this process die.

    Raises `EnvironmentNotReadyError` when no engine answers, it has no such image, or that has no such program.
    """
    with engine_errors("connecting; is the daemon running, and may you use it?"):
        client = docker.from_env(timeout=ENGINE_SECONDS)
    with contextlib.closing(client), engine_errors(f"running the agent in {image!r}"):
        try:
            client.images.get(image)
        except ImageNotFound as error:
            raise EnvironmentNotReadyError(
                f"Docker has no image {image!r} for the coding agent; build or pull it, or leave command.image out"
            ) from error
        with contextlib.suppress(NotFound):  # left by a process that died in the middle of this very errand
            client.containers.get(name).remove(force=True)
        attendant = Attendant(errand)
        container = client.containers.create(**_options(errand, image, name, labels))
        try:
            output = container.attach(stream=True, logs=True, stdout=True, stderr=True)
            reader = threading.Thread(target=_read, args=(output, attendant.log), daemon=True)
            reader.start()
            container.start()
            attendant.wait(reader.is_alive)  # the output ends when the container does
            with contextlib.suppress(DockerException):
                container.kill()
            exit_code = int(container.wait(timeout=ENGINE_SECONDS)["StatusCode"])
            reader.join(timeout=2)
        finally:
            container.remove(force=True)
    ended = attendant.ended(exit_code)
    if exit_code in (126, 127) and ended.log.startswith("timeout: "):
        raise cannot_start(ended.log)
    return ended


def _options(errand: Errand, image: str, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Everything the engine is told; the image's own PATH stands."""
    shown = [Mount(str(path), str(path), type="bind", read_only=True) for path in errand.readable]
    return {
        "image": image,
        "name": name,
        # The deadline also stands inside, should agentgolf die and never come back.
        "command": ["timeout", "-s", "KILL", str(math.ceil(errand.seconds + 10)), *errand.argv],
        "entrypoint": [],
        "environment": {**VARIABLES, **errand.environment},
        "labels": {f"{LABEL}{key}": value for key, value in labels.items()},
        "working_dir": WORK_DIR,
        "mounts": [
            Mount(WORK_DIR, str(errand.work.resolve()), type="bind"),
            Mount(TASK_FILE, str(errand.task.resolve()), type="bind", read_only=True),
            *shown,
        ],
        # As in bubblewrap: the model's server may be one of this machine.
        "network_mode": "host" if errand.network else "none",
        "read_only": True,
        "tmpfs": dict.fromkeys((HOME_DIR, "/tmp"), f"rw,exec,mode=1777,size={MAX_FOLDER_BYTES}"),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        # What it writes must be ours to read and to remove.
        "user": f"{os.getuid()}:{os.getgid()}",
        "pids_limit": MAX_PIDS,
        "log_config": LogConfig(type="local", config={"max-size": "1m", "max-file": "2"}),
        "detach": True,
    }


def _read(output: Iterable[bytes], log: LogTail) -> None:
    with contextlib.suppress(DockerException, requests.RequestException, OSError):
        for data in output:
            log.feed(data)
