"""Where nothing holds a candidate, code that nobody has read does not run unless the user says so."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import Fixture, edit


def agentgolf(path: Path, fixture: Fixture, *more: str) -> subprocess.CompletedProcess[str]:
    """On a machine whose only tool is git."""
    git = shutil.which("git")
    assert git
    (path / "bin").mkdir(exist_ok=True)
    if not (path / "bin" / "git").exists():
        (path / "bin" / "git").symlink_to(git)
    command = [sys.executable, "-m", "agentgolf.cli.app", "run", "--trials", "0", "--sandbox", "process"]
    folder = str(fixture.course.folder)
    return subprocess.run(
        [*command, "--course", folder, "--runs", str(path / "runs"), *more],
        env={"PATH": str(path / "bin"), "HOME": str(path), "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_scaffold_of_ones_own_is_refused_without_walls(tmp_path: Path) -> None:
    fixture = Fixture(tmp_path, [edit("anything", "RATE = 0.5", "RATE = 0.6")])
    for command in (
        ["git", "init", "-q"],
        ["git", "add", "."],
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "c"],
    ):
        subprocess.run(command, cwd=fixture.course.folder, check=True)
    scaffold = str(tmp_path / "scaffold")
    refused = agentgolf(tmp_path, fixture, "--scaffold", scaffold)
    assert refused.returncode == 4 and "proposes code that nobody has read" in refused.stderr
    assert "add --i-know-this-is-unsafe" in refused.stderr and "Traceback" not in refused.stderr
    # With the words, and with the shipped proposers, it goes on (and fails later: this course trains nothing).
    for allowed in (("--scaffold", scaffold, "--i-know-this-is-unsafe"), ("--scaffold", "offline")):
        went_on = agentgolf(tmp_path, fixture, *allowed)
        assert "the baseline does not finish" in went_on.stderr, went_on.stderr
        assert "limits time, memory and output, but a candidate can read your files" in went_on.stderr
