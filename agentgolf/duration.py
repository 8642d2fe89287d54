"""Durations as people write and read them."""

import re

from agentgolf.errors import UsageError

_PART = re.compile(r"(\d+(?:\.\d+)?)(h|m|s)")
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def parse_duration(text: str) -> float:
    """`90s`, `10m`, `8h`, `1h30m` to seconds. Raises `UsageError`."""
    parts = _PART.findall(text.strip())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise UsageError(f"{text!r} is no duration; write it as 90s, 10m, 8h or 1h30m")
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    if seconds <= 0:
        raise UsageError(f"a budget of {text!r} is nothing; write it as 90s, 10m, 8h or 1h30m")
    return seconds


def format_duration(seconds: float) -> str:
    """Seconds for people: 45s, 12m 05s, 1h 30m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
