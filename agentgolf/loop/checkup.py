"""What this machine can do for a course, one finding each."""

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from agentgolf.config import Settings
from agentgolf.course import Course, load_course
from agentgolf.data import load_documents
from agentgolf.domain import Clock
from agentgolf.errors import AgentgolfError
from agentgolf.loop.home import find_course
from agentgolf.sandbox.clock import SpeedMeter
from agentgolf.sandbox.docker import DockerSandbox
from agentgolf.sandbox.process import bubblewrap
from agentgolf.sandbox.slots import usable_cores, visible_gpus
from agentgolf.shards import load_shards

FREE_BYTES = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`state`: ok, warn (works, but less well) or fail (a run cannot start)."""

    name: str
    state: str
    said: str
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def checkup(settings: Settings) -> list[Finding]:
    found = [_cores(), _memory(), _disk(settings.runs), _git(), _torch(), _sqlite()]
    try:
        course = load_course(find_course(settings.course), settings.track)
    except AgentgolfError as error:
        return [*found, Finding(name="course", state="fail", said=str(error))]
    found.append(_checked("text", lambda: _text(course)))
    found += [_docker(course), _bubblewrap(), _gpus(course)]
    if course.limits.clock is Clock.REFERENCE:
        found.append(_speed())
    return found


def _text(course: Course) -> str:
    if course.spec.shards is None:
        return f"{len(load_documents(course).train):,} training documents, SHA-256 as pinned"
    with tempfile.TemporaryDirectory(prefix="agentgolf-") as folder:
        return f"{len(load_shards(course, Path(folder)).train):,} training tokens, SHA-256 as pinned"


def _checked(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name=name, state="ok", said=check())
    except AgentgolfError as error:
        return Finding(name=name, state="fail", said=str(error))


def _cores() -> Finding:
    cores, load = len(usable_cores()), os.getloadavg()[0]
    busy = load > cores
    return Finding(
        name="cores",
        state="warn" if busy else "ok",
        said=f"{cores} usable, load {load:.1f}",
        fix="other work slows trials; close it, or give fewer --jobs" if busy else "",
    )


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    low = free < FREE_BYTES
    return Finding(
        name="memory",
        state="warn" if low else "ok",
        said=f"{free / 1e9:.1f} GB available",
        fix="a trial wants about 1 GB; close something or give --jobs 1" if low else "",
    )


def _disk(runs: Path) -> Finding:
    folder = next(path for path in (runs.absolute(), *runs.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    low = free < FREE_BYTES
    return Finding(
        name="disk",
        state="warn" if low else "ok",
        said=f"{free / 1e9:.1f} GB free at {folder}",
        fix="free some space: agentgolf gc" if low else "",
    )


def _git() -> Finding:
    if shutil.which("git") is None:
        return Finding(name="git", state="fail", said="not found", fix="apt-get install git")
    said = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return Finding(name="git", state="ok", said=said)


def _torch() -> Finding:
    # Its version is read from the metadata: the orchestrator never imports it.
    try:
        return Finding(name="torch", state="ok", said=version("torch"))
    except PackageNotFoundError:
        return Finding(name="torch", state="fail", said="not installed", fix="pip install 'torch>=2.9'")


def _sqlite() -> Finding:
    return Finding(name="sqlite", state="ok", said=sqlite3.sqlite_version)


def _docker(course: Course) -> Finding:
    try:
        sandbox = DockerSandbox(course.spec.image)
        sandbox.ping()
    except AgentgolfError:
        return Finding(
            name="docker",
            state="warn",
            said="no engine answers; the process sandbox is used",
            fix="install Docker and start its daemon, for stronger isolation",
        )
    try:
        sandbox.prepare()
    except AgentgolfError:
        return Finding(
            name="docker",
            state="warn",
            said=f"the engine answers, but has no image {course.spec.image}",
            fix=f"docker build -t {course.spec.image} --build-arg BASE=python:3.11-slim {course.folder}",
        )
    said = f"the engine answers and has the image {course.spec.image}; {sandbox.protections()}"
    return Finding(name="docker", state="ok", said=said)


def _bubblewrap() -> Finding:
    if bubblewrap():
        return Finding(name="bubblewrap", state="ok", said="works: the process sandbox hides files and network")
    return Finding(
        name="bubblewrap",
        state="warn",
        said="not usable: the process sandbox hides nothing",
        fix="apt-get install bubblewrap, and allow user namespaces",
    )


def _gpus(course: Course) -> Finding:
    gpus, wanted = len(visible_gpus()), course.limits.gpus
    enough = gpus >= wanted
    return Finding(
        name="gpus",
        state="ok" if enough else "fail",
        said=f"{gpus} visible, {wanted} wanted by {course.name}/{course.track}",
        fix="" if enough else "install the NVIDIA driver and: pip install 'agentgolf[gpu]'",
    )


def _speed() -> Finding:
    meter = SpeedMeter()
    try:
        return _checked(
            "speed",
            lambda: ", ".join(
                f"core {core}: {meter.speed(core):.2f} reference seconds a CPU-second" for core in usable_cores()[:4]
            ),
        )
    finally:
        meter.close()
