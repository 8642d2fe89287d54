"""Commands that look after things: doctor, gc, init."""

import json
from pathlib import Path
from typing import Annotated

import typer

Runs = Annotated[Path | None, typer.Option("--runs", help="Folder of the ledger and of all runs.  [default: runs]")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def register(app: typer.Typer) -> None:
    app.command()(doctor)
    app.command()(gc)
    app.command()(init)


def doctor(
    course: Annotated[
        str | None, typer.Option("--course", help="A shipped course or a folder.  [default: practice]")
    ] = None,
    runs: Runs = None,
    json_: Json = False,
) -> None:
    """What this machine can do, one line each, with the fix for what it cannot."""
    from rich.console import RenderableType
    from rich.text import Text

    from agentgolf.config import load_settings
    from agentgolf.loop.checkup import checkup
    from agentgolf.report.tables import console, table

    findings = checkup(load_settings(course=course, runs=runs))
    if json_:
        print(json.dumps([finding.to_dict() for finding in findings], indent=2))
    else:
        marks = {"ok": Text("ok", "green"), "warn": Text("warn", "yellow"), "fail": Text("FAIL", "bold red")}
        cells: list[list[RenderableType]] = [
            [marks[f.state], f.name, Text(f.said + (f"\nfix: {f.fix}" if f.fix else ""))] for f in findings
        ]
        console().print(table([("", "left"), ("", "left"), ("", "left")], cells))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(4)


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    runs: Runs = None,
    json_: Json = False,
) -> None:
    """Remove what dead processes left behind: sandboxes, scratch, files that no trial names."""
    from agentgolf.config import load_settings
    from agentgolf.ledger.store import Ledger
    from agentgolf.loop.cleanup import cleanup

    settings = load_settings(runs=runs)
    Ledger(settings.runs, write=False).close()
    with Ledger(settings.runs, write=True) as ledger:
        found = cleanup(ledger, dry_run=dry_run)
    if json_:
        print(json.dumps([item.to_dict() for item in found], indent=2))
        return
    verb = "would remove" if dry_run else "removed"
    for item in found:
        print(f"{verb} {item.what} ({item.bytes:,} bytes)" if item.bytes else f"{verb} {item.what}")
    print(f"{verb} {len(found)} things, {sum(item.bytes for item in found):,} bytes")


def init(
    folder: Annotated[Path, typer.Argument(help="The new folder.")],
    course: Annotated[str, typer.Option("--course", help="The shipped course to copy.")] = "practice",
) -> None:
    """Copy a course into a folder of your own, under git, ready to change and to run."""
    from agentgolf.loop.newcourse import new_course

    new_course(folder, course)
    print(f"made {folder}; change it, commit, then: agentgolf run --course {folder} --budget 20m")
