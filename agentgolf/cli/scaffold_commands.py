"""Commands on scaffolds: list, show, check, new."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agentgolf.loop.scaffolds import ScaffoldInfo

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A shipped scaffold, or a folder.")]
CourseName = Annotated[
    str | None, typer.Option("--course", help="The course that the prompts speak of.  [default: practice]")
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, show, check and copy scaffolds.")
    group.command("list")(list_)
    group.command()(show)
    group.command()(check)
    group.command()(new)
    app.add_typer(group, name="scaffold")


def list_(json_: Json = False) -> None:
    """The shipped scaffolds, and what each is for."""
    from agentgolf.loop.scaffolds import known_scaffolds
    from agentgolf.report.tables import console, table

    found = known_scaffolds()
    if json_:
        print(json.dumps([info.to_dict() for info in found], indent=2))
        return
    columns = [("scaffold", "left"), ("proposers", "left"), ("for", "left")]
    console().print(table(columns, [[info.name, ", ".join(info.proposers), info.summary] for info in found]))


def show(name: Name, course: CourseName = None, json_: Json = False) -> None:
    """A scaffold's prompts, as the model reads them before the first trial."""
    from agentgolf.report.tables import console

    info = _inspect(name, course)
    if json_:
        print(json.dumps(info.to_dict(), indent=2))
        return
    print(f"{info.name}: {info.summary}")
    print(f"proposers: {', '.join(info.proposers)}" + (f"; model: {info.model}" if info.model else ""))
    for template, text in info.prompts.items():
        console().rule(template, align="left")
        print(text)


def check(name: Name, course: CourseName = None, json_: Json = False) -> None:
    """Say what is wrong with a scaffold, or that nothing is."""
    info = _inspect(name, course)
    sizes = {template: len(text) for template, text in info.prompts.items()}
    if json_:
        print(json.dumps({"scaffold": info.name, "ok": True, "characters": sizes}, indent=2))
        return
    shown = ", ".join(f"{template} {size:,} characters" for template, size in sizes.items())
    print(f"{info.name} is in order" + (f": {shown}" if shown else ""))


def new(
    folder: Annotated[Path, typer.Argument(help="The new folder.")],
    like: Annotated[str, typer.Option("--like", help="The scaffold to copy.")] = "single-shot",
) -> None:
    """Copy a scaffold into a folder of your own, ready to change."""
    from agentgolf.loop.scaffolds import new_scaffold

    new_scaffold(folder, like)
    print(f"made {folder}; change it, then: agentgolf scaffold check {folder}")


def _inspect(name: str, course: str | None) -> "ScaffoldInfo":
    from agentgolf.config import load_settings
    from agentgolf.course import load_course
    from agentgolf.loop.home import find_course
    from agentgolf.loop.scaffolds import inspect_scaffold

    return inspect_scaffold(name, load_course(find_course(load_settings(course=course).course)))
