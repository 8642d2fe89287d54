"""Parses unified diffs."""

import hashlib

from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchSet

from agentgolf.domain import Patch
from agentgolf.errors import PatchError

MAX_DIFF_BYTES = 1_000_000


def parse_diff(diff: str) -> Patch:
    """Raises `PatchError` when the text is no unified diff, is empty, too long or binary."""
    if len(diff.encode("utf-8", "replace")) > MAX_DIFF_BYTES:
        raise PatchError(f"the diff has more than {MAX_DIFF_BYTES:,} bytes")
    if "\0" in diff or "GIT binary patch" in diff or "\nBinary files " in diff:
        raise PatchError("the diff is binary; only text files may be edited")
    try:
        patches = PatchSet(diff)
    except (UnidiffParseError, ValueError, IndexError) as error:
        raise PatchError(f"the edit is not a unified diff: {error}") from error
    if not patches:
        raise PatchError("the edit changes nothing")
    files = tuple(sorted({path for patched in patches for path in _paths(patched.source_file, patched.target_file)}))
    if not files:
        raise PatchError("the edit names no file")
    return Patch(diff=diff, files=files, fingerprint=_fingerprint(patches))


def _paths(*names: str | None) -> list[str]:
    return [name[2:] if name[:2] in ("a/", "b/") else name for name in names if name and name != "/dev/null"]


def _fingerprint(patches: PatchSet) -> str:
    """Of what is removed and added, file by file; line numbers and trailing blanks do not count."""
    digest = hashlib.sha256()
    for patched in sorted(patches, key=lambda p: str(p.path)):
        digest.update(f"{patched.path}\0".encode())
        for hunk in patched:
            for line in hunk:
                if line.is_added or line.is_removed:
                    digest.update(f"{line.line_type}{line.value.rstrip()}\n".encode())
    return digest.hexdigest()[:16]
