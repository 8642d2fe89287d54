"""Commands that train: run, resume, replay."""

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from agentgolf.cli.options import (
    CourseOption,
    Jobs,
    Json,
    MaxCost,
    MaxTokens,
    Record,
    Replay,
    Runs,
    SandboxOption,
    Seed,
    Track,
    Unsafe,
)

if TYPE_CHECKING:
    from agentgolf.course import Course
    from agentgolf.domain import Slot
    from agentgolf.ledger.store import Ledger, Row
    from agentgolf.loop.compare import Stopper
    from agentgolf.loop.crew import Crew
    from agentgolf.loop.observer import Observer
    from agentgolf.sandbox.base import Sandbox


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(resume)
    app.command()(replay)
    app.command()(audit)


def run(
    budget: Annotated[str | None, typer.Option("--budget", help="How long to play: 90s, 10m, 8h, 1h30m.")] = None,
    trials: Annotated[int | None, typer.Option("--trials", min=0, help="Stop after so many candidates.")] = None,
    course: CourseOption = None,
    track: Track = None,
    scaffold: Annotated[
        str | None, typer.Option("--scaffold", help="Who proposes.  [default: tool-agent with a model, else offline]")
    ] = None,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    record: Record = None,
    replay: Replay = None,
    sandbox: SandboxOption = None,
    jobs: Jobs = None,
    seed: Seed = None,
    name: Annotated[str | None, typer.Option("--name", help="The run's name.  [default: course and time]")] = None,
    unsafe: Unsafe = False,
    runs: Runs = None,
    json_: Json = False,
) -> None:
    """Play a course: propose, train, score, decide, until the budget ends."""
    from agentgolf.config import load_settings
    from agentgolf.duration import parse_duration
    from agentgolf.errors import UsageError
    from agentgolf.ledger.store import Ledger
    from agentgolf.loop import session

    settings = load_settings(
        runs=runs, course=course, track=track, scaffold=scaffold, sandbox=sandbox, jobs=jobs, seed=seed
    )
    if budget is None and trials is None:
        raise UsageError("say how long to play: agentgolf run --budget 20m, or --trials 10")
    seconds = parse_duration(budget) if budget is not None else None
    session.take_keys([settings.scaffold])
    found = session.open_course(settings)
    # A mistake in it should show before anything is made.
    session.open_scaffold(settings.scaffold, found, needs_key=replay is None)
    with (
        session.slots_for(found, settings.jobs) as slots,
        Ledger(settings.runs, write=True) as ledger,
        session.open_sandbox(settings.sandbox, found, settings.scaffold, unsafe=unsafe) as box,
    ):
        request = session.RunRequest(
            settings=settings,
            budget_seconds=seconds,
            trials=trials,
            name=name,
            max_cost_usd=max_cost,
            max_model_tokens=max_tokens,
        )
        row = session.create_run(ledger, request, found, slots, box)
        _play(ledger, row, found, box, slots, json_, settings.prices, record, replay)


def resume(
    name: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="The run.  [default: the newest unfinished]")
    ] = None,
    record: Record = None,
    replay: Replay = None,
    sandbox: SandboxOption = None,
    unsafe: Unsafe = False,
    runs: Runs = None,
    json_: Json = False,
) -> None:
    """Go on with a run that was stopped, killed or cut off; what it spent stays spent."""
    from agentgolf.cli.compare_commands import go_on, show_comparison
    from agentgolf.config import load_settings
    from agentgolf.ledger.store import Ledger
    from agentgolf.loop import session

    settings = load_settings(runs=runs, sandbox=sandbox)
    Ledger(settings.runs, write=False).close()
    with Ledger(settings.runs, write=True) as ledger:
        made = _open_comparison(ledger, name)
        if made is not None:
            go_on(ledger, made, sandbox, unsafe=unsafe, prices=settings.prices)
            show_comparison(ledger, made["name"], None, json_)
            return
        row = session.resumable_run(ledger, name)
        session.take_keys([row["scaffold"]])
        course = session.reopen_course(row)
        with (
            session.slots_for(course, row["jobs"]) as slots,
            session.open_sandbox(sandbox or row["sandbox"], course, row["scaffold"], unsafe=unsafe) as box,
        ):
            _play(ledger, row, course, box, slots, json_, settings.prices, record, replay)


def replay(
    trial: Annotated[
        str, typer.Argument(help="A trial: 7 (of the newest run), or RUN:7; or a run, for its incumbent.")
    ],
    seeds: Annotated[str | None, typer.Option("--seeds", help="Comma-separated.  [default: the recorded ones]")] = None,
    onto: Annotated[
        str | None,
        typer.Option(
            "--onto",
            help="Re-apply the winning diffs on this commit of the course's repo, or a path of a repo: PATH@REF.",
        ),
    ] = None,
    final: Annotated[bool, typer.Option("--final", help="Score held-out B instead of A.")] = False,
    sandbox: SandboxOption = None,
    jobs: Jobs = None,
    unsafe: Unsafe = False,
    runs: Runs = None,
    json_: Json = False,
) -> None:
    """Train a recorded trial again in a fresh sandbox and say whether its score holds."""
    from agentgolf.loop import replay as replaying
    from agentgolf.report.tables import print_replay

    with _recorded(trial, sandbox, jobs, runs, unsafe) as found:
        request = replaying.ReplayRequest(
            seeds=replaying.parse_seeds(seeds), onto=onto, split_b=final, run=found.run, trial=found.trial
        )
        result = replaying.replay(found.ledger, request, found.course, found.box, found.slots, found.observer)
    if json_:
        print(json.dumps(result.to_dict(), indent=2))
    else:
        print_replay(result)
    if not result.holds:
        raise typer.Exit(1)


def audit(
    trial: Annotated[
        str, typer.Argument(help="A trial: 7 (of the newest run), or RUN:7; or a run, for its incumbent.")
    ],
    replays: Annotated[
        int | None,
        typer.Option("--replays", min=1, help="Tokens to ask again.  [default: as many as the gain needs]"),
    ] = None,
    lockstep: Annotated[bool, typer.Option("--lockstep", help="Ask every token again, one at a time.")] = False,
    final: Annotated[bool, typer.Option("--final", help="The artifacts scored on held-out B instead of A.")] = False,
    sandbox: SandboxOption = None,
    jobs: Jobs = None,
    unsafe: Unsafe = False,
    runs: Runs = None,
    json_: Json = False,
) -> None:
    """Ask a trial's recorded artifacts again in fresh sandboxes, and say how much of its gain could be faked."""
    from agentgolf.domain import Split
    from agentgolf.loop import inquiry
    from agentgolf.report.tables import print_audit, print_exam

    with _recorded(trial, sandbox, jobs, runs, unsafe) as found:
        request = inquiry.AuditRequest(
            run=found.run, trial=found.trial, replays=replays, lockstep=lockstep, split=Split.B if final else Split.A
        )
        result: inquiry.AuditResult | inquiry.ExamResult
        if found.course.spec.shards is not None:
            result = inquiry.examine(found.ledger, request, found.course, found.box, found.slots[0], found.observer)
        else:
            result = inquiry.audit(found.ledger, request, found.course, found.box, found.slots, found.observer)
    if json_:
        print(json.dumps(result.to_dict(), indent=2))
    elif isinstance(result, inquiry.ExamResult):
        print_exam(result)
    else:
        print_audit(result, found.course.spec.decision.min_gain_bpb)
    if not result.clean:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Recorded:
    """A recorded trial, and all that is needed to run it again."""

    ledger: "Ledger"
    run: "Row"
    trial: "Row"
    course: "Course"
    box: "Sandbox"
    slots: "list[Slot]"
    observer: "Observer"


@contextlib.contextmanager
def _recorded(
    trial: str, sandbox: str | None, jobs: int | None, runs: Path | None, unsafe: bool
) -> Iterator[_Recorded]:
    from agentgolf.cli.view import make_observer
    from agentgolf.config import load_settings
    from agentgolf.ledger.store import Ledger
    from agentgolf.loop import session
    from agentgolf.loop.replay import find_target

    settings = load_settings(runs=runs, sandbox=sandbox)
    with Ledger(settings.runs, write=False) as ledger:
        row, found = find_target(ledger, trial)
        course = session.reopen_course(row)
        with (
            session.slots_for(course, jobs) as slots,
            session.open_sandbox(settings.sandbox, course, row["scaffold"], unsafe=unsafe) as box,
            make_observer(None, sys.stderr) as observer,
        ):
            yield _Recorded(ledger, row, found, course, box, slots, observer)


def _play(
    ledger: "Ledger",
    row: "Row",
    course: "Course",
    box: "Sandbox",
    slots: "list[Slot]",
    json_: bool,
    prices: Path | None,
    record: Path | None,
    replay: Path | None,
) -> None:
    from agentgolf.cli.view import make_observer
    from agentgolf.loop import session
    from agentgolf.loop.cassette import open_tape
    from agentgolf.report.summary import summarize
    from agentgolf.report.tables import print_summary

    with make_observer(row, sys.stderr) as observer:
        observer.note(
            f"run {row['name']}, course {row['course']}/{row['track']}, sandbox {row['sandbox']}; ledger {ledger.path}"
        )
        observer.note(f"isolation: {box.isolation}")
        tape = open_tape(record, replay, observer.note)
        with session.open_campaign(ledger, row, course, box, slots, observer, prices, tape) as campaign:
            observer.follow(campaign)
            with stopping_on_signals(campaign.crew, observer.note):
                campaign.run()
    summary = summarize(ledger, row["name"])
    if json_:
        print(json.dumps(summary.to_dict(), indent=2))
    else:
        print_summary(summary)
    if not summary.improved:
        raise typer.Exit(3)


def _open_comparison(ledger: "Ledger", name: str | None) -> "Row | None":
    """The comparison of that name, or the one that the run of that name belongs to, unless it is finished."""
    from agentgolf.ledger.comparisons import comparison_of

    named = ledger.rows("SELECT * FROM comparisons WHERE name = ? AND state = 'open'", name)
    runs = ledger.rows(
        "SELECT id FROM runs WHERE state = 'open' AND (?1 IS NULL OR name = ?1) ORDER BY id DESC LIMIT 1", name
    )
    return named[0] if named else comparison_of(ledger, runs[0]["id"]) if runs else None


@contextlib.contextmanager
def stopping_on_signals(crew: "Crew | Stopper", say: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C once: stop at the next transition. Twice: kill the sandboxes and stop."""

    def handle(number: int, frame: FrameType | None) -> None:
        if crew.asked_to_stop:
            crew.stop_now()
            return
        crew.stop()
        say("stopping after this step; press Ctrl-C again to stop at once")

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)
