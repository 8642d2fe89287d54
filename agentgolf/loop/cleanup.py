"""Finds and removes what dead processes left behind."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentgolf.errors import EnvironmentNotReadyError
from agentgolf.ledger.store import Ledger
from agentgolf.sandbox.base import Sandbox
from agentgolf.sandbox.docker import DockerSandbox
from agentgolf.sandbox.process import ProcessSandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    what: str
    bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def cleanup(ledger: Ledger, *, dry_run: bool) -> list[Garbage]:
    """Sandboxes of this ledger's runs, scratch folders, drafts and blobs that no row names.

    The caller holds the ledger's lock, so no run of it is alive.
    """
    found = [Garbage(what=name) for name in _sandboxes(ledger, dry_run)]
    for path in _leftovers(ledger):
        found.append(Garbage(what=str(path), bytes=_size(path)))
        if not dry_run:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return found


def _sandboxes(ledger: Ledger, dry_run: bool) -> Iterator[str]:
    boxes: list[Sandbox] = [ProcessSandbox()]
    with contextlib.suppress(EnvironmentNotReadyError):
        docker = DockerSandbox("")
        docker.ping()
        boxes.append(docker)
    for row in ledger.rows("SELECT name FROM runs"):
        for box in boxes:
            for name in (row["name"], f"{row['name']}-replay", f"{row['name']}-audit"):
                yield from box.reap({"run": name, "ledger": ledger.tag}, dry_run)


def _leftovers(ledger: Ledger) -> Iterator[Path]:
    names = {row["name"] for row in ledger.rows("SELECT name FROM runs")}
    for folder in sorted(ledger.folder.iterdir()) if ledger.folder.is_dir() else ():
        if folder.name in names and (folder / "work").is_dir() and any((folder / "work").iterdir()):
            yield folder / "work"
        elif folder.name not in names and (folder / "store.git").is_dir():
            yield folder  # a run whose row was never written
    yield from sorted((ledger.folder / "blobs" / "drafts").glob("*"))
    known = {row["sha256"] for row in ledger.rows("SELECT sha256 FROM blobs")}
    yield from (path for path in ledger.blobs.stored() if path.name not in known)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())
