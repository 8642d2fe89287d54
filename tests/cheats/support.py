"""The sandboxes in which every attack is tried."""

import contextlib
from collections.abc import Iterator

import pytest

from agentgolf.sandbox.base import Sandbox
from agentgolf.sandbox.docker import DockerSandbox
from agentgolf.sandbox.process import ProcessSandbox, bubblewrap
from tests.conftest import IMAGE

BOXES = [
    pytest.param(
        "process",
        marks=pytest.mark.skipif(not bubblewrap(), reason="bubblewrap does not work here"),
    ),
    pytest.param("docker", marks=pytest.mark.docker),
]


@contextlib.contextmanager
def sandbox(kind: str) -> Iterator[Sandbox]:
    box: Sandbox = DockerSandbox(IMAGE) if kind == "docker" else ProcessSandbox()
    box.prepare()
    yield box
