"""Says which patches may be tried at all."""

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from agentgolf.domain import Patch
from agentgolf.errors import PatchError

_MODE_LINE = re.compile(r"^(old mode|new mode|new file mode|deleted file mode|rename (from|to)|copy (from|to)) ?(.*)$")


def guard(patch: Patch, is_editable: Callable[[str], bool]) -> None:
    """Raises `PatchError` when the patch leaves the editable files, or changes anything but text."""
    for path in patch.files:
        parts = PurePosixPath(path).parts
        if not path or path.startswith("/") or ".." in parts or ".git" in parts or "\\" in path:
            raise PatchError(f"the edit touches {path!r}, which is no path inside the repo")
        if not is_editable(path):
            raise PatchError(f"the edit touches {path!r}, which this course freezes")
    for line in patch.diff.splitlines():
        mode = _MODE_LINE.match(line)
        if mode and not (mode[1] == "new file mode" and mode[4] == "100644"):
            raise PatchError(f"the edit changes more than text ({line.strip()!r})")
