"""course.toml: what is wrong is said with file, line and what was expected."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgolf.course import load_course, matches
from agentgolf.data import load_documents
from agentgolf.domain import Clock
from agentgolf.errors import CourseError
from agentgolf.loop.home import find_course, shipped
from tests.support import COURSE, make_course_folder


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "tiny"', "name = ", r"course.toml: not valid TOML: .*line 1"),
        ('name = "tiny"', 'name = "Tiny!"', r"course.toml:1: name: .*pattern.*got 'Tiny!'"),
        ("train_seconds = 5", 'train_seconds = "long"', r"course.toml:\d+: tracks.main.train_seconds: .*number"),
        ("train_seconds = 5", "train_seconds = -5", r"tracks.main.train_seconds: .*greater than 0, got -5"),
        ('clock = "cpu"', 'clock = "sun"', r"tracks.main.clock: .*'cpu'"),
        ('clock = "cpu"', "", r"tracks.main.clock: is missing"),
        ("[data]", "colour = 1\n[data]", r"course.toml:\d+: colour: is not a key that a course has"),
        ("looks = [1, 3]", "looks = [3, 1]", r"decision: .*looks must grow"),
        (
            'default_track = "main"',
            'default_track = "other"',
            r"course.toml:8: .*no track 'other'; its tracks are main",
        ),
        (
            'editable = ["train.py"]',
            'editable = ["*.cc"]',
            r"course.toml:3: editable has '\*.cc', which matches no file",
        ),
        ('repo = "repo"', 'repo = "nowhere"', r"course.toml:2: repo = 'nowhere' is not a folder"),
        (
            'file = "text.txt"',
            'file = "repo/text.txt"',
            r"course.toml:\d+: the text 'repo/text.txt' lies inside the repo",
        ),
        ("{sha256}", "0" * 64, r"text.txt has SHA-256 .*, the course expects 000"),
        ("heldout_a_documents = 3", "heldout_a_documents = 30", r"holds out 33 and trains on none"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in COURSE
    folder = make_course_folder(tmp_path / "c", COURSE.replace(old, new))
    with pytest.raises(CourseError, match=said):
        load_documents(load_course(folder))


def test_the_line_is_that_of_the_key(tmp_path: Path) -> None:
    folder = make_course_folder(tmp_path / "c", COURSE.replace("eval_seconds = 5", "eval_seconds = 0"))
    with pytest.raises(CourseError) as caught:
        load_course(folder)
    line = int(str(caught.value).split("course.toml:")[1].split(":")[0])
    assert (folder / "course.toml").read_text().splitlines()[line - 1] == "eval_seconds = 0"


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=300))
def test_garbage_is_a_course_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("c")
    for candidate in (text, COURSE + text, text + COURSE):
        (folder / "course.toml").write_text(candidate, encoding="utf-8", errors="replace")
        with pytest.raises(CourseError):
            load_course(folder)


def test_globs_stay_inside_their_folder() -> None:
    assert matches("train.py", ("*.py",)) and not matches("lib/train.py", ("*.py",))
    assert matches("lib/train.py", ("lib/*.py",)) and not matches("lib/deep/train.py", ("lib/*.py",))


def test_the_hash_covers_the_repo(tmp_path: Path) -> None:
    one, two = (make_course_folder(tmp_path / name) for name in "ab")
    assert load_course(one).sha256 == load_course(two).sha256
    (two / "repo" / "train.py").write_text("changed")
    assert load_course(one).sha256 != load_course(two).sha256


def test_the_shipped_course_and_its_text() -> None:
    course = load_course(find_course("practice"))
    assert (course.track, course.limits.clock, course.limits.train_seconds) == ("sprint", Clock.REFERENCE, 60)
    assert (course.limits.artifact_cap_bytes, course.limits.training_text_in_artifact) == (128_000, False)
    assert load_course(shipped("sandboxes") / "practice", "record").limits.artifact_cap_bytes == 256_000
    documents = load_documents(course)
    assert (len(documents.train), len(documents.heldout_a), len(documents.heldout_b)) == (1069, 60, 60)
    assert sum(map(len, documents.train)) == 3_620_923
    assert not set(documents.train) & set(documents.heldout_a + documents.heldout_b)
