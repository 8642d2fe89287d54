"""Keeps keys out of the environment, so that no child process, git among them, inherits one."""

import os
import re

_SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_KEPT: dict[str, str] = {}


def take(variable: str) -> str | None:
    """The variable's value, which from now on is only here; None when it was never set."""
    value = os.environ.pop(variable, None)
    if value is not None:
        _KEPT[variable] = value
    return _KEPT.get(variable)


def look_up(variable: str) -> str | None:
    """The variable's value; one that is a secret by its name is taken."""
    return take(variable) if _SECRET.search(variable) else os.environ.get(variable)


def forget() -> None:
    """Drop all that was taken."""
    _KEPT.clear()
