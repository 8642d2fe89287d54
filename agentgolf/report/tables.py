"""Tables and sentences for the terminal, in 80 columns."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from agentgolf.duration import format_duration
from agentgolf.report.summary import Summary

if TYPE_CHECKING:
    from agentgolf.loop.inquiry import AuditResult, ExamResult
    from agentgolf.loop.replay import ReplayResult

VERDICT_STYLE = {"keep": "bold green", "revert": "dim", "undecided": "yellow"}
DASH = "–"


def console(stderr: bool = False) -> Console:
    """A console that is plain when its stream is no terminal, and never cuts a line of piped output."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 100
    return Console(stderr=stderr, highlight=False, width=width, soft_wrap=False)


def number(value: float | None, digits: int = 4, sign: bool = False) -> str:
    if value is None:
        return DASH
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def interval(low: float | None, high: float | None, sign: bool = True) -> str:
    return DASH if low is None or high is None else f"[{number(low, sign=sign)}, {number(high, sign=sign)}]"


def safe(text: str | None) -> str:
    """Text of a candidate or a proposer, harmless in rich markup and in a terminal."""
    return escape("".join(c for c in text or "" if c.isprintable() or c in "\n\t"))


def print_lines(rows: Sequence[tuple[str, str]]) -> None:
    """`label  value` lines, the values aligned and wrapped beside their labels."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in rows:
        grid.add_row(label, value)
    console().print(grid)


def print_summary(summary: Summary) -> None:
    rows = [
        ("run", f"{summary.run}  ({summary.course}/{summary.track}, {summary.scaffold}, {summary.sandbox})"),
        (
            "state",
            f"{summary.state}; {format_duration(summary.spent_seconds)} spent{_of(summary.budget_seconds)}",
        ),
    ]
    if summary.busy_share is not None:
        rows[-1] = ("state", f"{rows[-1][1]}, {summary.busy_share:.0%} of it training and scoring")
    if summary.score_kind == "self_reported":
        rows.append(("scores", "SELF-REPORTED by the script, not measured; audit what matters: agentgolf audit"))
    if summary.baseline_bpb is not None:
        low, high = summary.baseline_interval or (None, None)
        rows.append(
            (
                "baseline",
                f"{number(summary.baseline_bpb)} bpb {interval(low, high, sign=False)} on A; "
                f"seed noise {number(summary.noise_bpb)}",
            )
        )
    if summary.incumbent:
        rows.append(
            (
                "incumbent",
                f"trial {summary.incumbent}: {number(summary.incumbent_bpb)} bpb on A, "
                f"{summary.incumbent_bytes or 0:,} bytes",
            )
        )
        for step in summary.incumbent_hypotheses:
            rows.append(("", f"+ {safe(step)}"))
    if summary.gain is not None:
        rows.append(
            (
                "gain on B",
                f"{number(summary.gain, sign=True)} bpb {interval(summary.gain_low, summary.gain_high)}, "
                f"{number(summary.final_baseline_bpb)} -> {number(summary.final_incumbent_bpb)}, "
                f"{summary.final_replicates} fresh seeds each",
            )
        )
        if summary.final_trouble:
            rows.append(("INVALID", safe(summary.final_trouble)))
        elif summary.final_leak_bound_bpb is not None:
            rows.append(("audit", f"at most {summary.final_leak_bound_bpb:.4f} bpb of it could be faked (99%)"))
    elif summary.incumbent:
        rows.append(
            (
                "gain on A",
                f"{number(summary.search_gain, sign=True)} bpb so far; held-out B is scored when the run ends",
            )
        )
    else:
        rows.append(("gain", "no candidate was better than the baseline by more than the noise"))
    rows.append(("trials", _counts(summary)))
    rows.append(("ledger", summary.ledger))
    print_lines(rows)


def _of(budget: float | None) -> str:
    return f" of {format_duration(budget)}" if budget is not None else ""


def _counts(summary: Summary) -> str:
    total = sum(summary.verdicts.values())
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(summary.verdicts.items()))
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(summary.outcomes.items()))
    return f"{total}: {verdicts} | {outcomes}" if total else "none yet"


def print_audit(result: "AuditResult", min_gain_bpb: float) -> None:
    rows = [
        ("trial", f"{result.run}:{result.trial}, held-out {result.split}, {result.artifacts} artifacts"),
        ("replays", f"{result.replays:,} tokens asked again with all that follows withheld"),
        ("difference", f"{result.mean_nats:+.6f} nats a token on average, at most {result.upper_nats:.6f} (99%)"),
    ]
    if result.replayed_bpb is not None:
        rows.append(("in lockstep", f"{result.replayed_bpb:.5f} bpb; claimed {result.claimed_bpb:.5f}"))
    else:
        rows.append(
            (
                "leak bound",
                f"{result.leak_bound_bpb:.5f} bpb: more of its gain cannot be faked, at 99%"
                + (f"; at least {result.leak_lower_bpb:.5f} is" if result.leak_lower_bpb else ""),
            )
        )
    said = "no leak of a size that could be kept"
    if result.leak_lower_bpb or (result.replayed_bpb is not None and not result.clean):
        said = "INVALID: it peeks at later tokens"
    elif not result.clean:
        said = "open: too few replays for so large a claimed gain; ask with more --replays"
    rows.append(("verdict", f"{said} (min_gain {min_gain_bpb:g})"))
    print_lines(rows)


def print_exam(result: "ExamResult") -> None:
    rows = [("trial", f"{result.run}:{result.trial}, which scores itself (self-reported)")]
    if result.exam is None:
        rows.append(("exam", safe(result.error)))
    else:
        rows += [
            ("text", f"{result.exam.tokens:,} tokens drawn from an n-gram model of the training tokens"),
            ("the model", f"{result.exam.q_nats:,.1f} nats"),
            ("it claims", f"{result.exam.claimed_nats:,.1f} nats"),
            ("chance", f"at most {max(result.exam.probability, 1e-300):.1e} for any valid predictor"),
        ]
    rows.append(("verdict", "nothing against it" if result.clean else "INVALID: no valid predictor scores so"))
    print_lines(rows)


def print_replay(result: "ReplayResult") -> None:
    mean = sum(result.replayed) / len(result.replayed)
    rows = [
        (
            "trial",
            f"{result.run}:{result.trial}, held-out {result.split}, seeds {', '.join(map(str, result.seeds))}",
        ),
        ("replayed", f"{number(mean)} bpb  ({', '.join(number(v) for v in result.replayed)})"),
    ]
    if result.recorded and result.commit is None:
        recorded = sum(result.recorded) / len(result.recorded)
        rows.insert(1, ("recorded", f"{number(recorded)} bpb  ({', '.join(number(v) for v in result.recorded)})"))
        where = "inside" if result.holds else "OUTSIDE"
        rows.append(("verdict", f"{where} the 95% interval {interval(result.low, result.high, sign=False)}"))
    if result.gain is not None:
        rows.append(
            (
                "gain",
                f"{number(result.gain, sign=True)} bpb {interval(result.gain_low, result.gain_high)} over the "
                f"baseline, trained again too; recorded {number(result.recorded_gain, sign=True)}",
            )
        )
    if result.commit is not None:
        rows.append(("commit", f"{result.commit} in the run's store.git"))
    print_lines(rows)


def table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[RenderableType]]) -> Table:
    """A borderless table; each column is (title, justify)."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title, justify in columns:
        made.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        made.add_row(*row)
    return made


def print_board(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        console().print("no candidate has been kept on this course yet")
        return
    cells: list[list[RenderableType]] = [
        [
            str(i),
            number(row["val_bpb"]),
            number(row["heldout_b_bpb"]),
            f"{row['counted_bytes'] or 0:,}",
            Text(f"{row['run']}:{row['trial']}"),
            Text(row["score_kind"] or ""),
            safe(row["hypothesis"]),
        ]
        for i, row in enumerate(rows, 1)
    ]
    columns = [
        ("#", "right"),
        ("bpb A", "right"),
        ("bpb B", "right"),
        ("bytes", "right"),
        ("trial", "left"),
        ("score", "left"),
        ("hypothesis", "left"),
    ]
    console().print(table(columns, cells))
