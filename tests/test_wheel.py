"""A wheel built from the tree carries courses and prompts, and runs without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.trains
@pytest.mark.timeout(600)
def test_an_installed_wheel_plays(tmp_path: Path) -> None:
    """Unpacked by itself, before everything else on the path: what an empty environment would import."""
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        packed.extractall(tmp_path / "site")
    assert "agentgolf/_data/sandboxes/practice/repo/train_gpt.py" in names
    assert "agentgolf/_data/prompts/playbook/xsa.md" in names and "agentgolf/py.typed" in names
    assert not [name for name in names if name.startswith("tests") or "/runs/" in name or "__pycache__" in name]
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    where = subprocess.run(
        [sys.executable, "-c", "import agentgolf; print(agentgolf.__file__)"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "agentgolf.cli.app", "run", "--trials", "0", "--track", "smoke", "--sandbox", "process"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3 and "baseline" in done.stdout, done.stderr
    assert (tmp_path / "runs" / "ledger.sqlite").exists()
