"""The collector: takes one regular file after its sandbox is gone, and counts every byte."""

import bz2
import hashlib
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import zstandard

from agentgolf.domain import Artifact, Outcome
from agentgolf.errors import CandidateError

CHUNK_BYTES = 1 << 20
SHINGLE_BYTES = 32
MAX_UNPACKED_BYTES = 64 << 20


def code_bytes(files: Iterable[Path], how: str) -> int:
    """Bytes of the counted code: each file raw, or all of them compressed together (zstd level 19)."""
    contents = [file.read_bytes() for file in files]
    if how == "raw":
        return sum(map(len, contents))
    return len(zstandard.ZstdCompressor(level=19).compress(b"\0".join(contents)))


def collect(source: Path, target: Path, *, code: int, cap_bytes: int) -> Artifact:
    """Copy the artifact out, flushed to disk, hashing it on the way. Never follows a link.

    Raises `CandidateError`: invalid when it is missing, empty or not a regular file, oversized when
    artifact and code together exceed the cap.
    """
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise CandidateError(Outcome.INVALID, f"the artifact cannot be collected: {error.strerror}") from error
    info = os.fstat(handle)
    if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
        os.close(handle)
        raise CandidateError(Outcome.INVALID, "the artifact is not one regular file without links")
    with os.fdopen(handle, "rb") as stream:
        if info.st_size == 0:
            raise CandidateError(Outcome.INVALID, "training wrote no artifact")
        if info.st_size + code > cap_bytes:
            raise CandidateError(
                Outcome.OVERSIZED,
                f"{info.st_size:,} bytes of artifact + {code:,} of code = {info.st_size + code:,}, "
                f"{info.st_size + code - cap_bytes:,} over the cap of {cap_bytes:,}",
            )
        digest, count = hashlib.sha256(), 0
        with target.open("wb") as out:
            while chunk := stream.read(CHUNK_BYTES):
                count += len(chunk)
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
    return Artifact(path=target, sha256=digest.hexdigest(), artifact_bytes=count, code_bytes=code)


def training_text_share(artifact: Path, training: Iterable[bytes]) -> float:
    """Share of the artifact that is training text, as it stands or in a common container format.

    Looks for 32-byte pieces of the training text, also after unpacking zstd, zlib, bzip2 or lzma (64 MB
    at most). Text hidden by any other coding goes unseen: this is a rule's reminder, not its proof.
    """
    shingles = {
        text[i : i + SHINGLE_BYTES] for text in training for i in range(0, len(text) - SHINGLE_BYTES, SHINGLE_BYTES)
    }
    raw = artifact.read_bytes()
    best = 0.0
    for data in (raw, *_unpacked(raw)):
        found, i = 0, 0
        while i <= len(data) - SHINGLE_BYTES:
            if data[i : i + SHINGLE_BYTES] in shingles:
                found += SHINGLE_BYTES
                i += SHINGLE_BYTES
            else:
                i += 1
        best = max(best, found / max(len(data), 1))
    return best


def _unpacked(raw: bytes) -> Iterable[bytes]:
    openers: tuple[Callable[[bytes], bytes], ...] = (
        lambda data: zstandard.ZstdDecompressor().stream_reader(data).read(MAX_UNPACKED_BYTES),
        lambda data: zlib.decompressobj().decompress(data, MAX_UNPACKED_BYTES),
        lambda data: bz2.BZ2Decompressor().decompress(data, MAX_UNPACKED_BYTES),
        lambda data: lzma.LZMADecompressor().decompress(data, MAX_UNPACKED_BYTES),
    )
    for opener in openers:
        try:
            yield opener(raw)
        except (zstandard.ZstdError, zlib.error, OSError, lzma.LZMAError, EOFError):
            continue
