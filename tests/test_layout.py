"""The shape of the package: what may import what, how long a file may be, what importing may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "agentgolf"
MAX_LINES = 400
STAGES = ("decide", "ledger", "patch", "proposer", "sandbox", "scoring")
# What a stage may import besides itself. Values travel in domain; the rest is for the loop to join.
SHARED = {"agentgolf.domain", "agentgolf.errors"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {
                f"{node.module}.{alias.name}" if node.module == "agentgolf" else str(node.module)
                for alias in node.names
            }
    return {name for name in found if name.split(".")[0] == "agentgolf"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_only_itself_and_the_shared_values(stage: str) -> None:
    for path in sorted((PACKAGE / stage).glob("*.py")):
        for name in imports(path):
            assert name in SHARED or name.startswith(f"agentgolf.{stage}"), f"{path.name} imports {name}"


def test_domain_imports_nothing_of_ours_and_errors_only_domain() -> None:
    assert imports(PACKAGE / "domain.py") == set()
    assert imports(PACKAGE / "errors.py") == {"agentgolf.domain"}


@pytest.mark.parametrize("script", ["sandbox/supervise.py", "sandbox/meter.py", "scoring/predictor.py"])
def test_what_runs_elsewhere_imports_nothing_of_ours(script: str) -> None:
    assert imports(PACKAGE / script) == set()


def test_only_the_command_line_prints() -> None:
    for path in FILES:
        if path.parent.name in ("cli", "report") or path.name in ("supervise.py",):
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path


def test_the_course_script_is_one_readable_file() -> None:
    script = PACKAGE.parent / "sandboxes" / "practice" / "repo" / "train_gpt.py"
    assert 350 <= len(script.read_text().splitlines()) <= 450


def test_the_orchestrator_never_imports_torch() -> None:
    modules = sorted(
        ".".join(("agentgolf", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in FILES
        if path.name not in ("meter.py", "supervise.py")
    )
    code = f"import sys, importlib\nfor m in {modules!r}: importlib.import_module(m)\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, agentgolf.cli.app\n"
        "heavy = {'numpy', 'scipy', 'optuna', 'docker', 'git', 'pydantic', 'sqlite_utils'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
