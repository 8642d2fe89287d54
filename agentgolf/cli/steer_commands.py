"""Commands by which people steer a run, live or stopped: suggest, veto, pin."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agentgolf.ledger.store import Ledger, Row

Runs = Annotated[Path | None, typer.Option("--runs", help="Folder of the ledger and of all runs.  [default: runs]")]
Trial = Annotated[str, typer.Argument(help="A trial: 7 (of the newest run), or RUN:7.")]


def register(app: typer.Typer) -> None:
    app.command()(suggest)
    app.command()(veto)
    app.command()(pin)


def suggest(
    idea: Annotated[str, typer.Argument(help="What to try, in words.")],
    run: Annotated[str | None, typer.Option("--run", help="The run.  [default: the newest]")] = None,
    runs: Runs = None,
) -> None:
    """Queue an idea: the next proposal that can takes it up, and its trial is credited with it."""
    from agentgolf.errors import UsageError
    from agentgolf.ledger import steering
    from agentgolf.ledger.lineage import find_run

    text = " ".join(idea.split())
    if not text or len(text) > 2000:
        raise UsageError("a suggestion has between 1 and 2,000 characters")
    with _notes(runs) as ledger:
        row = find_run(ledger, run)
        _open(row)
        waiting = steering.suggest(ledger, row["id"], text)
    print(f"queued for {row['name']}; {waiting} waiting")


def veto(trial: Trial, runs: Runs = None) -> None:
    """Let nothing grow from a trial, nor from what has grown from it."""
    from agentgolf.errors import UsageError
    from agentgolf.ledger import steering
    from agentgolf.ledger.lineage import find_trial

    with _notes(runs) as ledger:
        row, found = find_trial(ledger, trial)
        _open(row)
        if found["number"] == 0:
            raise UsageError("the baseline cannot be vetoed: everything grows from it")
        steering.steer(ledger, row["id"], "veto", found["number"])
    print(f"{row['name']}:{found['number']} is vetoed; the search goes on beside it")


def pin(
    trial: Annotated[str | None, typer.Argument(help="A trial: 7 (of the newest run), or RUN:7.")] = None,
    off: Annotated[bool, typer.Option("--off", help="Let go: search from the incumbent again.")] = False,
    run: Annotated[str | None, typer.Option("--run", help="With --off, the run.  [default: the newest]")] = None,
    runs: Runs = None,
) -> None:
    """Search from a trial from now on, whatever its verdict was."""
    from agentgolf.errors import UsageError
    from agentgolf.ledger import steering
    from agentgolf.ledger.lineage import find_run, find_trial, replicate_rows, scores_of

    if off == (trial is not None):
        raise UsageError("name a trial to pin, or say --off")
    with _notes(runs) as ledger:
        if trial is None:
            row, number = find_run(ledger, run), 0
        else:
            row, found = find_trial(ledger, trial)
            number = found["number"]
            if found["outcome"] != "ok" or not scores_of(replicate_rows(ledger, row["id"]), found["id"]):
                raise UsageError(f"trial {number} has no score to search from ({found['outcome'] or found['state']})")
        _open(row)
        steering.steer(ledger, row["id"], "unpin" if off else "pin", number)
    print(f"{row['name']} searches from its incumbent again" if off else f"{row['name']} searches from trial {number}")


@contextmanager
def _notes(runs: Path | None) -> "Iterator[Ledger]":
    """The ledger, to add a word to beside the process that plays."""
    from agentgolf.config import load_settings
    from agentgolf.ledger.store import Ledger

    folder = load_settings(runs=runs).runs
    Ledger(folder, write=False).close()
    with Ledger(folder, write=True, lock=False) as ledger:
        yield ledger


def _open(run: "Row") -> None:
    from agentgolf.errors import UsageError

    if run["state"] == "finished":
        raise UsageError(f"the run {run['name']!r} is finished; start another: agentgolf run")
