"""Copies a shipped course into a folder of the user's."""

import shutil
from pathlib import Path

import git

from agentgolf.errors import UsageError
from agentgolf.loop.home import require_new, shipped, shipped_names


def new_course(folder: Path, name: str) -> None:
    """Copy and commit. Raises `UsageError` when the course is unknown or the folder is not empty."""
    if name not in shipped_names("sandboxes"):
        raise UsageError(f"there is no shipped course {name!r}; there is {', '.join(shipped_names('sandboxes'))}")
    require_new(folder)
    shutil.copytree(
        shipped("sandboxes") / name,
        folder,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("__pycache__", ".git"),
    )
    # Technique pages are diffs against this course's file: they belong to the copy too.
    shutil.copytree(shipped("prompts") / "playbook", folder / "playbook")
    spec = folder / "course.toml"
    text = spec.read_text(encoding="utf-8")
    spec.write_text(text.replace("default_track", 'playbook = "playbook"\ndefault_track', 1), encoding="utf-8")
    with git.Repo.init(folder) as repo:
        repo.git.add("-A")
        repo.git.execute(
            [
                "git",
                "-c",
                "user.name=agentgolf",
                "-c",
                "user.email=agentgolf@localhost",
                "commit",
                "-q",
                "-m",
                f"course {name}",
            ]
        )
