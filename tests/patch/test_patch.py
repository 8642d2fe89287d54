"""Diffs: parsed, guarded, applied and merged in a real git store."""

from pathlib import Path

import git
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgolf.errors import PatchError, UsageError
from agentgolf.patch.guard import guard
from agentgolf.patch.parse import parse_diff
from agentgolf.patch.workspace import GitStore, require_clean
from agentgolf.proposer.base import unified_diff

OLD = "a = 1\n# x\nb = 2\n# y\nc = 3\n"


def diff(new: str, old: str = OLD, path: str = "train.py") -> str:
    return unified_diff(path, old, new)


@pytest.fixture
def store(tmp_path: Path) -> GitStore:
    return GitStore(tmp_path / "store.git")


def test_a_diff_is_parsed_and_its_fingerprint_ignores_where_it_is() -> None:
    one, two = diff(OLD.replace("a = 1", "a = 5")), diff("\n" + OLD.replace("a = 1", "a = 5"), "\n" + OLD)
    assert parse_diff(one).files == ("train.py",)
    assert parse_diff(one).fingerprint == parse_diff(two).fingerprint
    assert parse_diff(one).fingerprint != parse_diff(diff(OLD.replace("a = 1", "a = 6"))).fingerprint


@pytest.mark.parametrize(
    "text", ["", "hello", "--- a/x\n+++ b/x\n@@ -1 +1 @@\n", "\0", "GIT binary patch\n", "x" * 2_000_000]
)
def test_what_is_no_diff_is_refused(text: str) -> None:
    with pytest.raises(PatchError):
        parse_diff(text)


@given(st.text())
def test_garbage_never_gives_anything_but_a_patch_error(text: str) -> None:
    for candidate in (text, f"--- a/x\n+++ b/x\n{text}", f"diff --git a/x b/x\n{text}"):
        try:
            parse_diff(candidate)
        except PatchError:
            continue


@pytest.mark.parametrize(
    "text",
    [
        "--- a/course.toml\n+++ b/course.toml\n@@ -1 +1 @@\n-x\n+y\n",
        "--- a/../train.py\n+++ b/../train.py\n@@ -1 +1 @@\n-x\n+y\n",
        "--- /dev/null\n+++ b/.git/hooks/post-checkout\n@@ -0,0 +1 @@\n+y\n",
        "diff --git a/train.py b/train.py\nold mode 100644\nnew mode 100755\n--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-x\n+y\n",
        "diff --git a/train.py b/train.py\nnew file mode 120000\n--- /dev/null\n+++ b/train.py\n@@ -0,0 +1 @@\n+/etc/passwd\n",
        "diff --git a/train.py b/other.py\nrename from train.py\nrename to other.py\n--- a/train.py\n+++ b/other.py\n@@ -1 +1 @@\n-x\n+y\n",
    ],
)
def test_frozen_files_paths_outside_modes_links_and_renames_are_refused(text: str) -> None:
    with pytest.raises(PatchError):
        guard(parse_diff(text), lambda path: path == "train.py")


def test_the_same_patch_on_the_same_parent_is_the_same_commit(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        store = GitStore(tmp_path / name)
        base = store.commit_files({"train.py": OLD.encode()}, "course")
        made.append(store.commit_edits(base, base, (diff(OLD.replace("a = 1", "a = 5")),), "better"))
    assert made[0] == made[1]


def test_separate_changes_merge_and_the_same_lines_conflict(store: GitStore) -> None:
    base = store.commit_files({"train.py": OLD.encode(), "other.txt": b"x"}, "course")
    first = store.commit_edits(base, base, (diff(OLD.replace("a = 1", "a = 5")),), "first")
    both = store.commit_edits(first, base, (diff(OLD.replace("b = 2", "b = 6")),), "second")
    assert store.files(both)["train.py"] == b"a = 5\n# x\nb = 6\n# y\nc = 3\n"
    with pytest.raises(PatchError, match="conflict: .* same lines of train.py"):
        store.commit_edits(first, base, (diff(OLD.replace("a = 1", "a = 7")),), "third")
    with pytest.raises(PatchError, match="has it already"):
        store.commit_edits(first, base, (diff(OLD.replace("a = 1", "a = 5")),), "again")


def test_a_pair_of_edits_is_merged_in_order(store: GitStore) -> None:
    base = store.commit_files({"train.py": OLD.encode()}, "course")
    edits = tuple(diff(OLD.replace(*change)) for change in (("a = 1", "a = 5"), ("c = 3", "c = 9")))
    assert store.files(store.commit_edits(base, base, edits, "pair"))["train.py"] == b"a = 5\n# x\nb = 2\n# y\nc = 9\n"


def test_diff_files_and_refs(store: GitStore) -> None:
    base = store.commit_files({"train.py": OLD.encode(), "lib/x.py": b"1\n"}, "course")
    new = store.commit_edits(base, base, (diff(OLD.replace("a = 1", "a = 5")),), "better")
    assert "+a = 5" in store.diff(base, new) and store.diff(base, base) == ""
    assert store.files(new) == {"train.py": OLD.replace("a = 1", "a = 5").encode(), "lib/x.py": b"1\n"}
    store.set_ref("refs/heads/best", new)
    assert store.resolve("best") == new and store.resolve("nothing") is None


def test_a_course_must_be_committed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not in a git repository"):
        require_clean(tmp_path)
    with git.Repo.init(tmp_path) as repo:
        with pytest.raises(UsageError, match="without a commit"):
            require_clean(tmp_path)
        (tmp_path / "x").write_text("x")
        repo.git.add("-A")
        repo.git.execute(["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "x"])
        require_clean(tmp_path)
        (tmp_path / "x").write_text("y")
        with pytest.raises(UsageError, match="uncommitted changes"):
            require_clean(tmp_path)
