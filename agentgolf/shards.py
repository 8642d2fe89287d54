"""Shards: files of token ids in the real challenge's format, and the folders in which trainings see them.

A shard is a head of 256 little-endian int32 (magic, version, number of tokens, zeros) and the ids as uint16.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agentgolf.course import Course
from agentgolf.domain import Split
from agentgolf.errors import CourseError

MAGIC, VERSION = 20240520, 1
HEAD_INTS = 256
Tokens = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """A course's shards. `token_bytes` (vocabulary,): bytes of text that each id stands for."""

    train: Tokens
    heldout: dict[Split, Tokens]
    token_bytes: npt.NDArray[np.int64]
    folders: dict[Split, Path]

    def text_bytes(self, tokens: Tokens) -> int:
        """Bytes of text that the predicted tokens stand for: all but the first."""
        return int(self.token_bytes[tokens[1:]].sum())


def read_shard(path: Path) -> Tokens:
    """Raises `CourseError` when the file is no shard or shorter than it says."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CourseError(f"the shard {path} cannot be read: {error.strerror}") from error
    if len(raw) < 4 * HEAD_INTS or len(raw) % 2:
        raise CourseError(f"{path} is no shard: {len(raw):,} bytes cannot be a head and 2 bytes a token")
    head = np.frombuffer(raw[: 4 * HEAD_INTS], "<i4")
    if (head[0], head[1]) != (MAGIC, VERSION):
        raise CourseError(f"{path} is no shard: its head does not begin with {MAGIC}, {VERSION}")
    tokens = np.frombuffer(raw[4 * HEAD_INTS :], "<u2")
    if len(tokens) != head[2]:
        raise CourseError(f"{path} says that it has {head[2]:,} tokens and has {len(tokens):,}")
    return tokens


def write_shard(path: Path, tokens: npt.ArrayLike) -> None:
    ids = np.asarray(tokens, "<u2")
    head = np.zeros(HEAD_INTS, "<i4")
    head[:3] = MAGIC, VERSION, len(ids)
    path.write_bytes(head.tobytes() + ids.tobytes())


def load_shards(course: Course, folder: Path) -> Shards:
    """Read and check the course's shards; below `folder` make what a training may see, for either half.

    Raises `CourseError` when a file is missing, is no shard or is not the pinned one.
    """
    spec = course.spec.shards
    assert spec is not None
    names = [*spec.train, spec.heldout_a, spec.heldout_b, spec.token_bytes]
    digest = hashlib.sha256()
    for name in names:
        path = course.folder / name
        if not path.is_file():
            raise CourseError(f"the course's file {path} is missing")
        digest.update(path.read_bytes())
    if digest.hexdigest() != spec.sha256:
        raise CourseError(f"the course's shards have SHA-256 {digest.hexdigest()}, course.toml expects {spec.sha256}")
    heldout = {
        Split.A: read_shard(course.folder / spec.heldout_a),
        Split.B: read_shard(course.folder / spec.heldout_b),
    }
    try:
        token_bytes = np.array(json.loads((course.folder / spec.token_bytes).read_text()), np.int64)
    except ValueError as error:
        raise CourseError(f"{course.folder / spec.token_bytes} must be a JSON list of numbers: {error}") from error
    train = np.concatenate([read_shard(course.folder / name) for name in spec.train])
    if max(int(part.max(initial=0)) for part in (train, *heldout.values())) >= len(token_bytes):
        raise CourseError(f"the shards have token ids that {spec.token_bytes} does not list")
    return Shards(
        train=train,
        heldout=heldout,
        token_bytes=token_bytes,
        folders={split: shown(course, tokens, folder / split) for split, tokens in heldout.items()},
    )


def shown(course: Course, heldout: Tokens, folder: Path) -> Path:
    """A folder with the training shards and these tokens under the name of the held-out shard."""
    spec = course.spec.shards
    assert spec is not None
    folder.mkdir(parents=True, exist_ok=True)
    for name in spec.train:
        if not (folder / Path(name).name).exists():
            shutil.copyfile(course.folder / name, folder / Path(name).name)
    write_shard(folder / spec.shown_as, heldout)
    for path in folder.iterdir():
        path.chmod(0o444)
    return folder
