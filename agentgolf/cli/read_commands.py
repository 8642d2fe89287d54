"""Commands that read the ledger: status, tree, show, leaderboard."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agentgolf.ledger.store import Ledger

Runs = Annotated[Path | None, typer.Option("--runs", help="Folder of the ledger and of all runs.  [default: runs]")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
RunName = Annotated[str | None, typer.Argument(metavar="[RUN]", help="The run.  [default: the newest]")]


def register(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(tree)
    app.command()(show)
    app.command()(leaderboard)


def _open(runs: Path | None) -> "Ledger":
    from agentgolf.config import load_settings
    from agentgolf.ledger.store import Ledger

    return Ledger(load_settings(runs=runs).runs, write=False)


def status(name: RunName = None, runs: Runs = None, json_: Json = False) -> None:
    """How a run stands: budget, baseline, incumbent, gain, trials."""
    from agentgolf.report.summary import summarize
    from agentgolf.report.tables import print_summary

    with _open(runs) as ledger:
        summary = summarize(ledger, name)
    if json_:
        print(json.dumps(summary.to_dict(), indent=2))
    else:
        print_summary(summary)


def tree(
    name: RunName = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="Also write the tree as a picture to this file.")] = None,
    runs: Runs = None,
    json_: Json = False,
) -> None:
    """The lineage of a run: every trial below its parent, the kept path marked."""
    from agentgolf.report.tables import console
    from agentgolf.report.tree import LineageTree, save_svg, tree_rows

    with _open(runs) as ledger:
        run, rows = tree_rows(ledger, name)
    if svg is not None:
        save_svg(LineageTree(run, rows), svg, f"agentgolf tree {run}")
    if json_:
        print(json.dumps({"run": run, "trials": rows}, indent=2))
    else:
        console().print(LineageTree(run, rows), crop=False)  # a deep line may wrap, but not lose its end


def show(
    trial: Annotated[str, typer.Argument(help="A trial: 7 (of the newest run), or RUN:7.")],
    diff: Annotated[bool, typer.Option("--diff", help="Only the diff against its parent.")] = False,
    log: Annotated[bool, typer.Option("--log", help="Only the logs of its sandboxes.")] = False,
    trajectory: Annotated[bool, typer.Option("--trajectory", help="Only the conversation that led to it.")] = False,
    runs: Runs = None,
    json_: Json = False,
) -> None:
    """Everything about one trial."""
    from agentgolf.report.trial import print_trial, trial_details

    if trajectory:
        from agentgolf.report import trajectory as conversation

        with _open(runs) as ledger:
            calls = conversation.trajectory(ledger, trial)
        if json_:
            print(json.dumps(calls, indent=2))
        else:
            conversation.print_trajectory(calls)
        return
    with _open(runs) as ledger:
        details = trial_details(ledger, trial)
    if json_:
        print(json.dumps(details, indent=2))
    elif diff:
        print(details["diff"], end="")
    elif log:
        for execution in details["executions"]:
            print(
                f"--- {execution['purpose']} {execution['position'] + 1} seed {execution['seed']}: {execution['role']}"
            )
            print(execution["log"])
    else:
        print_trial(details)


def leaderboard(
    course: Annotated[str | None, typer.Option("--course", help="Only this course.")] = None,
    track: Annotated[str | None, typer.Option("--track", help="Only this track.")] = None,
    runs: Runs = None,
    json_: Json = False,
) -> None:
    """The kept candidates of all runs, best first, each track by itself."""
    from agentgolf.report.tables import console, print_board
    from agentgolf.report.trial import board_rows

    with _open(runs) as ledger:
        boards = board_rows(ledger, course, track)
    if json_:
        print(json.dumps(boards, indent=2))
        return
    if not boards:
        console().print("no candidate has been kept yet")
    for board in boards:
        console().print(f"[bold]{board['course']}/{board['track']}[/bold]")
        print_board(board["rows"])
