"""The collector: one regular file, every byte counted."""

import bz2
import os
import zlib
from pathlib import Path

import pytest
import zstandard

from agentgolf.domain import Outcome
from agentgolf.errors import CandidateError
from agentgolf.scoring.artifact import code_bytes, collect, training_text_share


def test_bytes_counted_are_code_and_artifact(tmp_path: Path) -> None:
    source, code = tmp_path / "a", tmp_path / "train.py"
    source.write_bytes(b"x" * 1000)
    code.write_text("y = 1\n" * 100)
    raw = code_bytes([code], "raw")
    assert raw == 600 and code_bytes([code], "zstd") < 60
    artifact = collect(source, tmp_path / "out", code=raw, cap_bytes=1600)
    assert (artifact.artifact_bytes, artifact.counted_bytes) == (1000, 1600)
    assert (tmp_path / "out").read_bytes() == source.read_bytes()
    with pytest.raises(CandidateError, match="1,000 bytes of artifact .* 1 over the cap of 1,599") as caught:
        collect(source, tmp_path / "out", code=raw, cap_bytes=1599)
    assert caught.value.outcome is Outcome.OVERSIZED


def test_links_fifos_folders_and_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "symlink").symlink_to(tmp_path / "secret")
    (tmp_path / "hard").hardlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    for name in ("symlink", "hard", "fifo", "folder", "empty", "missing"):
        with pytest.raises(CandidateError) as caught:
            collect(tmp_path / name, tmp_path / "out", code=0, cap_bytes=100)
        assert caught.value.outcome is Outcome.INVALID, name


def test_a_sparse_file_counts_its_full_size(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as out:
        out.truncate(10_000_000)
    with pytest.raises(CandidateError) as caught:
        collect(tmp_path / "a", tmp_path / "out", code=0, cap_bytes=1_000_000)
    assert caught.value.outcome is Outcome.OVERSIZED


def test_training_text_in_an_artifact_is_seen_through_common_packing(tmp_path: Path) -> None:
    rng = __import__("random").Random(0)
    text = [bytes(rng.randrange(97, 123) for _ in range(3000)) for _ in range(5)]
    honest = os.urandom(20_000)
    for pack in (lambda d: d, zlib.compress, bz2.compress, zstandard.ZstdCompressor().compress):
        (tmp_path / "a").write_bytes(pack(text[1] + os.urandom(3000)))
        assert training_text_share(tmp_path / "a", text) > 0.4
    (tmp_path / "a").write_bytes(honest)
    assert training_text_share(tmp_path / "a", text) == 0.0


def test_a_decompression_bomb_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(zstandard.ZstdCompressor().compress(bytes(200_000_000)))
    assert training_text_share(tmp_path / "a", [b"q" * 100]) == 0.0
