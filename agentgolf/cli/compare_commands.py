"""Commands that set scaffolds against each other: compare, comparison."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentgolf.cli.options import CourseOption, Jobs, Json, MaxCost, MaxTokens, Runs, SandboxOption, Seed, Track, Unsafe
from agentgolf.cli.run_commands import stopping_on_signals

if TYPE_CHECKING:
    from agentgolf.course import Course
    from agentgolf.ledger.store import Ledger, Row

Page = Annotated[Path | None, typer.Option("--html", help="Write a page with the curves to this file.")]


def register(app: typer.Typer) -> None:
    app.command()(compare)
    app.command()(comparison)


def compare(
    scaffolds: Annotated[list[str], typer.Argument(metavar="A B [C...]", help="Scaffolds; one may play itself.")],
    budget: Annotated[str | None, typer.Option("--budget", help="What each arm gets in each repeat: 90m, 4h.")] = None,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="At most so many candidates a run.")] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Runs of each arm.")] = 3,
    course: CourseOption = None,
    track: Track = None,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    sandbox: SandboxOption = None,
    jobs: Jobs = None,
    seed: Seed = None,
    name: Annotated[str | None, typer.Option("--name", help="The comparison's name.  [default: the time]")] = None,
    html: Page = None,
    unsafe: Unsafe = False,
    runs: Runs = None,
    json_: Json = False,
) -> None:
    """Play scaffolds side by side with equal budgets, and say which is better, if that can be told."""
    from agentgolf.config import load_settings
    from agentgolf.duration import parse_duration
    from agentgolf.errors import UsageError
    from agentgolf.ledger.store import Ledger
    from agentgolf.loop import compare as comparing
    from agentgolf.loop import session

    settings = load_settings(runs=runs, course=course, track=track, sandbox=sandbox, jobs=jobs, seed=seed)
    if budget is None and trials is None:
        raise UsageError("say how long each run may take: --budget 4h, or --trials 10")
    request = comparing.CompareRequest(
        run=session.RunRequest(
            settings=settings,
            budget_seconds=parse_duration(budget) if budget is not None else None,
            trials=trials,
            name=None,
            max_cost_usd=max_cost,
            max_model_tokens=max_tokens,
        ),
        scaffolds=tuple(scaffolds),
        repeats=repeats,
        name=name,
    )
    comparing.arm_names(request.scaffolds)
    session.take_keys(scaffolds)
    found = session.open_course(settings)
    for scaffold in scaffolds:
        session.open_scaffold(scaffold, found)
    with Ledger(settings.runs, write=True) as ledger:
        with (
            session.slots_for(found, settings.jobs) as slots,
            session.open_sandbox(settings.sandbox, found, _least_trusted(scaffolds, found), unsafe=unsafe) as box,
        ):
            made = comparing.create_comparison(ledger, request, found, slots, box)
        go_on(ledger, made, sandbox, unsafe=unsafe, prices=settings.prices)
        show_comparison(ledger, made["name"], html, json_)


def comparison(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A comparison.  [default: the newest]")] = None,
    html: Page = None,
    runs: Runs = None,
    json_: Json = False,
) -> None:
    """Show what a comparison came to, or has come to so far."""
    from agentgolf.config import load_settings
    from agentgolf.ledger.store import Ledger

    with Ledger(load_settings(runs=runs).runs, write=False) as ledger:
        show_comparison(ledger, name, html, json_)


def go_on(ledger: "Ledger", made: "Row", sandbox: str | None, *, unsafe: bool, prices: Path | None) -> None:
    """Play a comparison from wherever it stands to its end."""
    from agentgolf.cli.view import make_observer
    from agentgolf.ledger.comparisons import arm_rows
    from agentgolf.loop import compare as comparing
    from agentgolf.loop import session

    rows = arm_rows(ledger, made["id"])
    session.take_keys({row["scaffold"] for row in rows})
    course = session.reopen_course(rows[0])
    scaffold = _least_trusted([row["scaffold"] for row in rows], course)
    with (
        session.slots_for(course, rows[0]["jobs"]) as slots,
        session.open_sandbox(sandbox or rows[0]["sandbox"], course, scaffold, unsafe=unsafe) as box,
        make_observer(None, sys.stderr) as observer,
    ):
        observer.note(f"comparison {made['name']}, course {course.name}/{course.track}; ledger {ledger.path}")
        observer.note(f"isolation: {box.isolation}")
        stopper = comparing.Stopper()
        with stopping_on_signals(stopper, observer.note):
            comparing.play_comparison(ledger, made, course, box, slots, observer, stopper, prices)


def _least_trusted(scaffolds: list[str], course: "Course") -> str:
    """One that proposes code that nobody has read, if any does: what it needs is enough for all."""
    from agentgolf.loop import session

    return next((one for one in scaffolds if not session.trusted(one, course)), scaffolds[0])


def show_comparison(ledger: "Ledger", name: str | None, page: Path | None, json_: bool) -> None:
    from agentgolf.errors import UsageError
    from agentgolf.report.comparison import compare_runs
    from agentgolf.report.comparison_page import comparison_page
    from agentgolf.report.comparison_table import print_comparison

    found = compare_runs(ledger, name)
    if json_:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        print_comparison(found)
    if page is not None:
        try:
            page.write_text(comparison_page(found), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"the page {page} cannot be written: {error.strerror}") from error
        print(f"page: {page}", file=sys.stderr)
