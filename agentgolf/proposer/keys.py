"""Keeps keys out of the environment, so that no child process, git among them, inherits one."""

import os

_KEPT: dict[str, str] = {}


def take(variable: str) -> str | None:
    """The variable's value, which from now on is only here; None when it was never set."""
    value = os.environ.pop(variable, None)
    if value is not None:
        _KEPT[variable] = value
    return _KEPT.get(variable)


def forget() -> None:
    """Drop all that was taken."""
    _KEPT.clear()
