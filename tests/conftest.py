"""What tests share: which Docker engine answers, and whether it must."""

import os
from collections.abc import Iterator

import pytest

from agentgolf.errors import EnvironmentNotReadyError
from agentgolf.proposer import keys
from agentgolf.sandbox.docker import DockerSandbox
from agentgolf.sandbox.process import bubblewrap

IMAGE = "agentgolf-practice"


@pytest.fixture(autouse=True)
def _no_keys_from_the_test_before() -> Iterator[None]:
    yield
    keys.forget()


def docker_problem() -> str | None:
    """Why Docker tests cannot run here; None when they can."""
    try:
        DockerSandbox(IMAGE).prepare()
    except EnvironmentNotReadyError as error:
        return str(error)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    required = os.environ.get("AGENTGOLF_REQUIRE_DOCKER") == "1"
    if required and not bubblewrap():
        raise pytest.UsageError("AGENTGOLF_REQUIRE_DOCKER=1, but bubblewrap does not work here")
    wanted = [item for item in items if item.get_closest_marker("docker")]
    problem = docker_problem() if wanted else None
    if problem is None:
        return
    if required:
        raise pytest.UsageError(f"AGENTGOLF_REQUIRE_DOCKER=1, but {problem}")
    for item in wanted:
        item.add_marker(pytest.mark.skip(reason=problem))
