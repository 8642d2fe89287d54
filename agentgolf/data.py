"""The course's text: found, checked against its SHA-256 and split by document.

The split is by hash of the document's position, so it depends on nothing but the course.
"""

import ast
import hashlib
import importlib.metadata
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agentgolf.course import Course, DataSpec
from agentgolf.domain import Split
from agentgolf.errors import CourseError, EnvironmentNotReadyError

TRAIN_FILE = "train.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """The three parts of a course's text. Only `train` may ever be mounted in a sandbox."""

    train: tuple[bytes, ...]
    heldout_a: tuple[bytes, ...]
    heldout_b: tuple[bytes, ...]

    def heldout(self, split: Split) -> tuple[bytes, ...]:
        return self.heldout_a if split is Split.A else self.heldout_b


NO_DOCUMENTS = Documents(train=(), heldout_a=(), heldout_b=())


def data_file(course: Course) -> Path:
    """Where the text lies on this machine.

    Raises `EnvironmentNotReadyError` when the package is missing or its version differs.
    """
    spec = course.spec.data
    assert spec is not None, "a course whose script scores itself has shards"
    if spec.package is None:
        return course.folder / spec.file
    try:
        package = importlib.metadata.distribution(spec.package)
    except importlib.metadata.PackageNotFoundError as error:
        raise EnvironmentNotReadyError(
            f"the course's text is not installed; run: pip install {spec.package}=={spec.version}"
        ) from error
    if spec.version and package.version != spec.version:
        raise EnvironmentNotReadyError(
            f"the course needs {spec.package} {spec.version} and {package.version} is installed; "
            f"run: pip install {spec.package}=={spec.version}"
        )
    return Path(str(package.locate_file(spec.file)))


def load_documents(course: Course) -> Documents:
    """Read, check and split. Raises `CourseError` when the file is missing or is not the pinned one."""
    path = data_file(course)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CourseError(f"the course's text {path} cannot be read: {error.strerror}") from error
    spec = course.spec.data
    assert spec is not None
    found = hashlib.sha256(raw).hexdigest()
    if found != spec.sha256:
        raise CourseError(f"{path} has SHA-256 {found}, the course expects {spec.sha256}; install the pinned text")
    documents = _READERS[spec.format](raw)
    held = spec.heldout_a_documents + spec.heldout_b_documents
    if len(documents) <= held:
        raise CourseError(f"{path} has {len(documents)} documents; the course holds out {held} and trains on none")
    return _split(documents, spec)


def write_training_data(documents: Documents, folder: Path) -> Path:
    """Write the training documents as `train.jsonl`, once, and give its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path, draft = folder / TRAIN_FILE, folder / f"{TRAIN_FILE}.tmp"
    if not path.exists():
        with draft.open("w", encoding="utf-8") as out:
            for document in documents.train:
                out.write(json.dumps({"text": document.decode()}) + "\n")
            out.flush()
            os.fsync(out.fileno())
        draft.replace(path)
    path.chmod(0o444)
    return folder


def _split(documents: list[bytes], spec: DataSpec) -> Documents:
    order = sorted(range(len(documents)), key=lambda i: hashlib.sha256(f"split:{i}".encode()).digest())
    a, b = spec.heldout_a_documents, spec.heldout_b_documents

    def take(positions: Iterable[int]) -> tuple[bytes, ...]:
        return tuple(documents[i] for i in sorted(positions))

    return Documents(train=take(order[a + b :]), heldout_a=take(order[:a]), heldout_b=take(order[a : a + b]))


def _read_jsonl(raw: bytes) -> list[bytes]:
    try:
        return [str(json.loads(line)["text"]).encode() for line in raw.splitlines() if line.strip()]
    except (ValueError, KeyError, TypeError) as error:
        raise CourseError(f'the course\'s text must have {{"text": ...}} on every line: {error}') from error


def _read_lines(raw: bytes) -> list[bytes]:
    return [line.strip() for line in raw.splitlines() if line.strip()]


def _read_pythonbible(raw: bytes) -> list[bytes]:
    """Chapters of a generated pythonbible module: Bible(version, text, verse starts, verse ends, ...).

    A verse's number is book x 1,000,000 + chapter x 1,000 + verse.
    """
    # Piece by piece: a syntax tree of the whole file would take 100 MB.
    start = raw.index(b'"""')
    end = raw.index(b'"""', start + 3) + 3
    text: str = ast.literal_eval(raw[start:end].decode())
    starts, ends = (
        {int(verse): int(at) for verse, at in re.findall(rb"(\d+): (\d+)", body)}
        for body in re.findall(rb"\{([^{}]*)\}", raw[end:])[:2]
    )
    chapters: dict[int, list[int]] = {}
    for verse in starts:
        chapters.setdefault(verse // 1000, []).append(verse)
    return [
        text[min(starts[v] for v in verses) : max(ends[v] for v in verses)].strip().encode()
        for _, verses in sorted(chapters.items())
    ]


_READERS = {"jsonl": _read_jsonl, "lines": _read_lines, "pythonbible": _read_pythonbible}
