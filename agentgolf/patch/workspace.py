"""The run's own git store: a bare repository in which every candidate is a commit.

The user's checkout is never touched. Commits carry fixed names and dates, so that the same patch on the
same parent gives the same commit whenever it is made.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import git

from agentgolf.errors import PatchError, UsageError

_IDENTITY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (
        ("NAME", "agentgolf"),
        ("EMAIL", "agentgolf@localhost"),
        ("DATE", "2000-01-01T00:00:00+0000"),
    )
}
_NO_CONFIG = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


class GitStore:
    """Opens the bare repository at `path`, making it on first use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / "HEAD").exists():
            draft = path.with_name(path.name + ".tmp")
            shutil.rmtree(draft, ignore_errors=True)
            git.Repo.init(draft, bare=True, initial_branch="main").close()
            draft.rename(path)
        self._repo = git.Repo(path)
        self._repo.git.update_environment(**_IDENTITY, **_NO_CONFIG)

    def close(self) -> None:
        self._repo.close()

    def commit_files(self, files: Mapping[str, bytes], message: str, parent: str | None = None) -> str:
        """Commit exactly these files; gives the commit's hash."""
        with self._index() as env, tempfile.TemporaryDirectory(prefix="agentgolf-") as folder:
            for name, content in sorted(files.items()):
                file = Path(folder) / "blob"
                file.write_bytes(content)
                blob = self._repo.git.hash_object("-w", "--no-filters", str(file))
                self._repo.git.update_index("--add", "--cacheinfo", f"100644,{blob},{name}", env=env)
            return self._commit(env, message, parent)

    def commit_edits(self, parent: str, base: str, edits: tuple[str, ...], message: str) -> str:
        """Apply each diff to `base`, merge it three-way onto what has been reached from `parent`.

        Raises `PatchError` when a diff does not apply or a merge conflicts; nothing is then committed.
        """
        tip = parent
        for edit in edits:
            if tip == base:
                tip = self._apply(base, edit, message, parent=parent)
            else:
                tip = self._merge(tip, base, self._apply(base, edit, message, parent=base), message, parent)
        if self.tree(tip) == self.tree(parent):
            raise PatchError("the edit changes nothing: its parent has it already")
        return tip

    def files(self, commit: str) -> dict[str, bytes]:
        """Every file of a commit."""
        tree = self._repo.commit(commit).tree
        return {str(blob.path): blob.data_stream.read() for blob in tree.traverse() if blob.type == "blob"}  # type: ignore[union-attr]

    def tree(self, commit: str) -> str:
        return str(self._repo.commit(commit).tree.hexsha)

    def diff(self, old: str, new: str) -> str:
        """Unified diff with a trailing newline; empty when the trees are equal."""
        text = self._repo.git.diff(
            "--no-color", "--no-ext-diff", "--no-renames", old, new, strip_newline_in_stdout=False
        )
        return str(text)

    def set_ref(self, name: str, commit: str) -> None:
        self._repo.git.update_ref(name, commit)

    def resolve(self, reference: str) -> str | None:
        """The full hash of a commit that is in the store, or None."""
        try:
            return str(self._repo.git.rev_parse("--verify", "--quiet", f"{reference}^{{commit}}"))
        except git.GitCommandError:
            return None

    def fetch(self, folder: Path, ref: str) -> str:
        """Bring a commit of the user's repository into the store. Raises `PatchError` if there is none."""
        try:
            self._repo.git.fetch("--no-tags", str(folder), ref)
            return str(self._repo.git.rev_parse("FETCH_HEAD"))
        except git.GitCommandError as error:
            raise PatchError(f"{ref!r} is not a branch or tag of {folder}") from error

    def _apply(self, base: str, edit: str, message: str, parent: str) -> str:
        with self._index() as env, tempfile.NamedTemporaryFile("w", suffix=".diff", encoding="utf-8") as file:
            self._repo.git.read_tree(base, env=env)
            file.write(edit)
            file.flush()
            try:
                self._repo.git.apply("--cached", "--whitespace=nowarn", file.name, env=env)
            except git.GitCommandError as error:
                raise PatchError(f"the diff does not apply: {_reason(error)}") from error
            return self._commit(env, message, parent)

    def _merge(self, ours: str, base: str, theirs: str, message: str, parent: str) -> str:
        """File by file, as git merges; one that only one side changed is taken from that side."""
        sides = [self.files(commit) for commit in (ours, base, theirs)]
        merged: dict[str, bytes] = {}
        for name in sorted(set().union(*sides)):
            mine, old, new = (side.get(name) for side in sides)
            content = new if mine == old else mine
            if mine not in (old, new) and new != old:
                if mine is None or old is None or new is None:
                    raise PatchError(f"conflict: {name} was added or deleted on both sides")
                content = self._merge_file(name, mine, old, new)
            if content is not None:
                merged[name] = content
        return self.commit_files(merged, message, parent)

    def _merge_file(self, name: str, mine: bytes, old: bytes, new: bytes) -> bytes:
        with tempfile.TemporaryDirectory(prefix="agentgolf-") as folder:
            paths = [Path(folder) / side for side in ("incumbent", "base", "proposal")]
            for path, content in zip(paths, (mine, old, new), strict=True):
                path.write_bytes(content)
            try:
                self._repo.git.merge_file(*map(str, paths))
            except git.GitCommandError as error:
                places = paths[0].read_bytes().count(b"<<<<<<<")
                raise PatchError(
                    f"conflict: the proposal and the incumbent change the same lines of {name} ({places} places)"
                ) from error
            return paths[0].read_bytes()

    def _commit(self, env: dict[str, str], message: str, parent: str | None) -> str:
        tree = self._repo.git.write_tree(env=env)
        above = ["-p", parent] if parent else []
        return str(self._repo.git.commit_tree(tree, *above, "-m", message, env=env))

    @contextlib.contextmanager
    def _index(self) -> Iterator[dict[str, str]]:
        """A private, empty index, so that nothing is shared between two edits."""
        with tempfile.TemporaryDirectory(prefix="agentgolf-") as folder:
            yield {"GIT_INDEX_FILE": str(Path(folder) / "index")}


def _reason(error: git.GitCommandError) -> str:
    lines = [line for line in str(error.stderr).replace("stderr:", "").strip(" '\n").splitlines() if line.strip()]
    return lines[0].strip().removeprefix("error: ")[:200] if lines else "git refused it"


def scratch_checkout(folder: Path, files: Mapping[str, bytes]) -> None:
    """A folder under git with these files committed: what a coding agent expects to find."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    with git.Repo.init(folder, initial_branch="main") as repo:
        repo.git.update_environment(**_IDENTITY, **_NO_CONFIG)
        repo.git.add("--all", "--force")
        repo.git.commit("--quiet", "--allow-empty", "--message", "the candidate to improve")


def require_clean(folder: Path) -> None:
    """Raises `UsageError` when the folder is not in git, or has changes that are not committed."""
    try:
        with git.Repo(folder, search_parent_directories=True) as repo:
            relative = os.path.relpath(folder.resolve(), Path(str(repo.working_tree_dir)).resolve())
            if not repo.head.is_valid():
                raise UsageError(f"{folder} is in a git repository without a commit; commit the course first")
            dirty = repo.git.status("--porcelain", "--", relative)
    except (git.InvalidGitRepositoryError, git.NoSuchPathError) as error:
        raise UsageError(
            f"{folder} is not in a git repository; run: cd {folder} && git init && git add . && git commit -m course"
        ) from error
    if dirty:
        first = dirty.splitlines()[0][3:]
        raise UsageError(f"{folder} has uncommitted changes ({first}); commit or stash them first")
