"""The documents keep up with the code: every command and option, every course key, every exit code."""

import re
from pathlib import Path

import typer
import typer.main

from agentgolf.cli.app import EPILOG, app
from agentgolf.course import CourseSpec, DataSpec, DecisionSpec, ReportSpec, ShardsSpec, TrackSpec

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
COURSES = (ROOT / "docs" / "courses.md").read_text()
README = (ROOT / "README.md").read_text()


def test_every_command_and_option_is_documented() -> None:
    group = typer.main.get_command(app)
    commands: dict[str, typer.core.TyperCommand] = group.commands  # type: ignore[attr-defined]
    assert len(commands) >= 10
    for name, command in commands.items():
        section = re.search(rf"^## `agentgolf {name}\b.*?(?=^## |\Z)", COMMANDS, re.MULTILINE | re.DOTALL)
        assert section, f"docs/commands.md has no section on {name}"
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and option != "--help":
                    assert f"`{option}" in section[0], f"docs/commands.md: {name} does not tell of {option}"


def test_no_documented_command_is_missing() -> None:
    group = typer.main.get_command(app)
    known = set(group.commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"^## `agentgolf (\w+)", COMMANDS, re.MULTILINE)) == known


def test_exit_codes_are_documented() -> None:
    for code in re.findall(r"\b(\d+) ", EPILOG):
        assert re.search(rf"^\| {code} \|", COMMANDS, re.MULTILINE), code


def test_every_course_key_is_documented() -> None:
    for spec in (CourseSpec, DataSpec, ShardsSpec, ReportSpec, DecisionSpec, TrackSpec):
        for key in spec.model_fields:
            assert f"`{key}`" in COURSES, f"docs/courses.md does not tell of {key}"


def test_links_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_readme_has_its_two_commands_and_one_picture() -> None:
    assert "make run" in README and "make test" in README
    assert len(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)) == 1
