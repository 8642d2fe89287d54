"""Big things as files named by their SHA-256: logs, diffs, artifacts."""

import hashlib
import os
import uuid
from pathlib import Path


class Blobs:
    """A folder of immutable files. A blob is either wholly there or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def draft(self) -> Path:
        """A fresh path to write to, for `adopt`."""
        drafts = self.folder / "drafts"
        drafts.mkdir(parents=True, exist_ok=True)
        return drafts / uuid.uuid4().hex

    def put(self, data: bytes) -> str:
        """Store the bytes; gives their SHA-256."""
        sha256 = hashlib.sha256(data).hexdigest()
        if not self.path(sha256).exists():
            draft = self.draft()
            with draft.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            self.adopt(draft, sha256)
        return sha256

    def adopt(self, draft: Path, sha256: str) -> Path:
        """Move a draft, already flushed to disk, to its place."""
        target = self.path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return target

    def read(self, sha256: str) -> bytes:
        return self.path(sha256).read_bytes()

    def stored(self) -> list[Path]:
        """Every blob there is, drafts left out."""
        return sorted(p for p in self.folder.glob("??/*") if p.is_file())
