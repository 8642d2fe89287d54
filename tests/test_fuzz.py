"""Garbage at every entrance: one foreseen error or a value, never a traceback, never a hang."""

import math
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgolf.course import load_course
from agentgolf.data import load_documents
from agentgolf.decide.hypercompression import examine
from agentgolf.domain import Patch
from agentgolf.errors import AgentgolfError, CandidateError, CourseError, PatchError
from agentgolf.loop.observer import curve_point
from agentgolf.patch.guard import guard
from agentgolf.patch.parse import parse_diff
from agentgolf.patch.workspace import GitStore
from agentgolf.sandbox.base import LogTail
from agentgolf.scoring.claims import Claims
from agentgolf.scoring.self_reported import check_report, read_report
from agentgolf.shards import HEAD_INTS, MAGIC, VERSION, read_shard
from tests.support import COURSE, TRAIN_FILE, make_course_folder

MANY = settings(max_examples=300, deadline=None)
FEW = settings(max_examples=60, deadline=None)
PATTERNS = {"val_bpb": r"val_bpb:(\S+)", "val_loss": r"val_loss:(\S+)", "artifact_bytes": r"bytes:(\S+)"}

# Diffs that are nearly right are more dangerous than noise.
GOOD = "--- a/train.py\n+++ b/train.py\n@@ -3 +3 @@\n-QUALITY = 0.0\n+QUALITY = 0.1\n"
LINES = st.sampled_from(
    [
        *GOOD.splitlines(),
        "@@ -1,999999999999 +1,2 @@",
        "@@ -0,0 +0,0 @@",
        "--- /dev/null",
        "+++ /dev/null",
        "+++ b/../../etc/passwd",
        "diff --git a/x b/y",
        "rename from train.py",
        "new file mode 120000",
        "GIT binary patch",
        "\\ No newline at end of file",
        "+\x00",
        "",
    ]
)
DIFFS = st.one_of(st.text(max_size=300), st.lists(LINES, max_size=12).map("\n".join))


@MANY
@given(DIFFS)
def test_any_text_is_a_guarded_patch_or_one_sentence(diff: str) -> None:
    try:
        patch = parse_diff(diff)
        guard(patch, lambda path: path == "train.py")
    except PatchError as error:
        assert str(error)
        return
    assert isinstance(patch, Patch) and patch.files == ("train.py",)


@FEW
@given(st.lists(LINES, max_size=8).map("\n".join))
def test_git_applies_any_patch_or_says_why_not(diff: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = GitStore(Path(folder) / "store.git")
        commit = store.commit_files({"train.py": TRAIN_FILE.encode()}, "start")
        try:
            guard(parse_diff(diff), lambda path: path == "train.py")
            tip = store.commit_edits(commit, commit, (diff + "\n",), "edit")
            assert set(store.files(tip)) <= {"train.py"}
        except PatchError as error:
            assert str(error)
        finally:
            store.close()


@MANY
@given(st.lists(st.binary(max_size=4000), max_size=8))
def test_any_output_is_a_bounded_printable_log(chunks: list[bytes]) -> None:
    seen: list[str] = []
    log = LogTail(seen.append)
    for chunk in chunks:
        log.feed(chunk)
    assert all(c in "\n\t" or c.isprintable() for c in log.text())
    for line in [*seen, log.text()]:
        curve_point(line)


NUMBERS = st.one_of(
    st.sampled_from(["nan", "inf", "-1", "0", "1e999", "1_0", "٣", "0x10", "1,000", "2.5", "", "9" * 400]),
    st.text(max_size=12),
)


@MANY
@given(NUMBERS, NUMBERS, NUMBERS, st.text(max_size=60))
def test_any_log_is_a_report_or_one_sentence(bpb: str, loss: str, size: str, noise: str) -> None:
    try:
        found = read_report(f"{noise}\nval_loss:{loss} val_bpb:{bpb}\nbytes:{size}\n", **PATTERNS)
        check_report(found, tokens=100, text_bytes=250, counted_bytes=1000)
    except CandidateError as error:
        assert str(error) and len(str(error)) < 400
        return
    assert math.isfinite(found.val_bpb) and math.isfinite(found.val_loss)


@MANY
@given(st.floats(1e-6, 60), st.lists(st.floats(1e-6, 40), min_size=1, max_size=60), st.integers(0, 100))
def test_any_claim_can_be_examined(loss: float, nats: list[float], tail: int) -> None:
    exam = examine(loss, np.array(nats), tail)
    assert 0 <= exam.probability <= 1 and exam.beaten_nats <= sum(nats) - loss * len(nats) + 1e-6


VALUES = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.text(max_size=20).map(lambda text: f'"{text}"'),
    st.sampled_from(["true", "[]", "{}", "nan", "-inf", '["*"]', "1979-05-27", "[[]]", '"../../x"', '""']),
)
KEYS = st.sampled_from(
    [line.split(" = ")[0] for line in COURSE.splitlines() if " = " in line] + ["report", "shards", "x"]
)


@MANY
@given(KEYS, VALUES, st.integers(0, 30))
def test_any_course_toml_is_a_course_or_one_sentence_with_its_line(key: str, value: str, place: int) -> None:
    lines = [line for line in COURSE.splitlines() if not line.startswith(f"{key} = ")]
    lines.insert(min(place, len(lines)), f"{key} = {value}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_course_folder(Path(scratch) / "course", "\n".join(lines))
        try:
            load_documents(load_course(folder))
        except CourseError as error:
            assert str(folder) in str(error)
        except AgentgolfError as error:
            assert str(error)


@FEW
@given(st.binary(max_size=2000))
def test_any_course_file_is_one_sentence(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_course_folder(Path(scratch) / "course")
        (folder / "course.toml").write_bytes(raw)
        try:
            load_course(folder)
        except CourseError as error:
            assert "course.toml" in str(error)


HEAD = np.array([MAGIC, VERSION, 5], "<i4").tobytes() + bytes(4 * (HEAD_INTS - 3))


@MANY
@given(st.one_of(st.binary(max_size=3000), st.binary(max_size=20).map(lambda tail: HEAD + tail)))
def test_any_shard_is_read_or_one_sentence(raw: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        path = Path(file.name)
        path.write_bytes(raw)
        try:
            read_shard(path)
        except CourseError as error:
            assert file.name in str(error)


def test_claims_without_documents_survive() -> None:
    empty = Claims(ids=(), nats=(), lengths=())
    assert Claims.from_bytes(empty.to_bytes()).tokens == 0
