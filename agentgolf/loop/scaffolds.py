"""Lists, checks and copies scaffolds."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentgolf.course import Course, repo_files
from agentgolf.domain import Outcome, TrialSummary, Verdict
from agentgolf.errors import UsageError
from agentgolf.loop.home import find_scaffold, require_new, shipped, shipped_names
from agentgolf.loop.rules import rules_text
from agentgolf.proposer.base import Crash
from agentgolf.proposer.catalogue import load_catalogue
from agentgolf.proposer.command import program_of
from agentgolf.proposer.scaffold import SCAFFOLD_FILE, ScaffoldSpec, prompts_of, read_spec, templates_of
from agentgolf.sandbox.jail import find_program

# What `check` and `show` render the templates of later moments with.
EXAMPLE_CRASH = Crash(
    number=1,
    attempt=1,
    outcome=Outcome.CRASHED,
    reason="train ended with exit code 1: NameError: name 'x' is not defined",
    diff="--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-RATE = 0.5\n+RATE = x\n",
    log="NameError: name 'x' is not defined",
)
EXAMPLE_TRIAL = TrialSummary(
    number=1,
    parent=0,
    proposer="agent",
    technique="",
    hypothesis="a change",
    fingerprint="",
    detail={},
    outcome=Outcome.OK,
    verdict=Verdict.REVERT,
    reason="not better than the noise",
    gain_bpb=-0.001,
    val_bpb=None,
    counted_bytes=None,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaffoldInfo:
    """`prompts`: a scaffold's templates as they read before the first trial, by name."""

    name: str
    folder: str
    summary: str
    proposers: tuple[str, ...]
    model: str | None
    prompts: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def known_scaffolds() -> list[ScaffoldInfo]:
    """The shipped ones, without their prompts."""
    return [_info(find_scaffold(name), {}) for name in shipped_names("prompts")]


def inspect_scaffold(name: str, course: Course) -> ScaffoldInfo:
    """A scaffold with every template rendered for the course. Raises `UsageError` when anything in it is wrong."""
    folder = find_scaffold(name)
    spec = read_spec(folder / SCAFFOLD_FILE)
    require_program(folder)
    if not templates_of(spec):
        return _info(folder, {})
    prompts = prompts_of(spec, folder, shipped("prompts") / "common")
    files = {file: (course.repo / file).read_text() for file in repo_files(course.repo) if course.is_editable(file)}
    values = {
        "rules": rules_text(course),
        "files": files,
        "parent": 0,
        "lineage": [],
        "history": [],
        "playbook": load_catalogue(shipped("prompts") / "playbook"),
        "cap_bytes": course.limits.artifact_cap_bytes,
        "pending": ["a change that is being measured"],
        "suggestion": "",
        "crash": EXAMPLE_CRASH,
        "trial": EXAMPLE_TRIAL,
        "diff": EXAMPLE_CRASH.diff,
        "log": EXAMPLE_CRASH.log,
        "left": 2,
        "form": "tools" if spec.agent.tools else "json" if spec.agent.structured else "text",
        "refused": "train.py: these lines are not there",
        "missing": True,
    }
    return _info(folder, {template: prompts.render(template, **values) for template in templates_of(spec)})


def require_program(folder: Path) -> None:
    """For a scaffold with a coding agent: that bubblewrap would find it. Raises `UsageError` with what is missing."""
    spec = read_spec(folder / SCAFFOLD_FILE)
    if "command" not in spec.proposers or spec.command.image or not spec.command.argv:
        return
    readable = [Path(path).expanduser() for path in spec.command.readable]
    gone = [str(path) for path in readable if not path.exists()]
    if gone:
        raise UsageError(f"{folder / SCAFFOLD_FILE}: command.readable names {gone[0]}, which is not there")
    program = program_of(spec.command.argv)
    if find_program(program, readable) is None:
        raise UsageError(
            f"{folder / SCAFFOLD_FILE}: the coding agent would not find {program!r}: install it, and name the folder "
            "that it lies in, and the one it links to, in command.readable, or name a command.image"
        )


def new_scaffold(folder: Path, like: str) -> None:
    """Copy a scaffold to change, with the common templates. Raises `UsageError` when the folder is not empty."""
    source = find_scaffold(like)
    require_new(folder)
    if templates_of(read_spec(source / SCAFFOLD_FILE)):
        shutil.copytree(shipped("prompts") / "common", folder, dirs_exist_ok=True)
    shutil.copytree(source, folder, dirs_exist_ok=True)


def _info(folder: Path, prompts: dict[str, str]) -> ScaffoldInfo:
    spec: ScaffoldSpec = read_spec(folder / SCAFFOLD_FILE)
    return ScaffoldInfo(
        name=folder.name,
        folder=str(folder),
        summary=spec.summary,
        proposers=tuple(spec.proposers),
        model=spec.model.name if "agent" in spec.proposers else None,
        prompts=prompts,
    )
