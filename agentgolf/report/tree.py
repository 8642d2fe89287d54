"""The lineage of a run as a tree."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from agentgolf.decide.accept import half_width, pooled_noise
from agentgolf.ledger.lineage import find_run
from agentgolf.ledger.steering import read_steering
from agentgolf.ledger.store import Ledger, Row
from agentgolf.report.tables import DASH, VERDICT_STYLE, number

DIM, GREEN, RED, CYAN, YELLOW = (Style.parse(name) for name in ("dim", "green", "red", "cyan", "yellow"))
KEPT = Style.parse("bold green")
STYLES = {verdict: Style.parse(style) for verdict, style in VERDICT_STYLE.items()}
HYPOTHESIS_WIDTH = 60
SVG_WIDTH = 90

_TRIALS = """
SELECT trials.id, trials.number AS trial, parents.number AS parent, trials.state, trials.proposer, trials.technique,
       trials.hypothesis, trials.outcome, trials.verdict, trials.val_bpb, trials.gain_bpb, trials.gain_low,
       trials.gain_high, trials.counted_bytes, trials.leak_bound_bpb, trials.commit_sha AS 'commit', trials.reason,
       (SELECT min(score_kind) FROM replicates WHERE trial_id = trials.id) AS score_kind,
       (SELECT text FROM suggestions WHERE id = json_extract(trials.detail_json, '$.suggestion')) AS said
FROM trials LEFT JOIN trials AS parents ON parents.id = trials.parent_id
WHERE trials.run_id = ? ORDER BY trials.number
"""
_SCORES = """
SELECT trial_id, heldout, purpose, replicates.val_bpb FROM replicates JOIN trials ON trials.id = trial_id
WHERE run_id = ? AND replicates.outcome = 'ok' ORDER BY replicates.id
"""


def tree_rows(ledger: Ledger, name: str | None) -> tuple[str, list[Row]]:
    """The run's name, and one row a trial, with the 95% interval of its mean score on A."""
    run = find_run(ledger, name)
    rows = ledger.rows(_TRIALS, run["id"])
    groups: dict[tuple[int, str], list[float]] = {}
    own: dict[int, int] = {}
    for score in ledger.rows(_SCORES, run["id"]):
        groups.setdefault((score["trial_id"], score["heldout"]), []).append(score["val_bpb"])
        own[score["trial_id"]] = own.get(score["trial_id"], 0) + (score["purpose"] in ("baseline", "search"))
    steering = read_steering(ledger, run["id"])
    half = half_width(pooled_noise(list(groups.values())))
    kept = _kept_path(rows, steering.vetoed)
    for row in rows:
        count, mean = own.get(row.pop("id"), 0), row["val_bpb"]
        around = half / count**0.5 if half is not None and count and mean is not None else None
        row["replicates"] = count
        row["val_bpb_low"] = mean - around if around is not None else None
        row["val_bpb_high"] = mean + around if around is not None else None
        row["kept_path"] = row["trial"] in kept
        row["steering"] = "vetoed" if row["trial"] in steering.vetoed else ""
        if row["trial"] == steering.pinned:
            row["steering"] = "pinned"
        row["suggestion"] = row.pop("said") or ""
    return run["name"], rows


def _kept_path(rows: Sequence[Row], vetoed: frozenset[int]) -> set[int]:
    parents = {row["trial"]: row["parent"] for row in rows}
    barred = set(vetoed)
    for row in rows:  # a parent comes before its children
        if row["parent"] in barred:
            barred.add(row["trial"])
    at = max((row["trial"] for row in rows if row["verdict"] == "keep" and row["trial"] not in barred), default=None)
    path: set[int] = set()
    while at is not None:
        path.add(at)
        at = parents[at]
    return path


class LineageTree:
    """Draws the rows: children below their parent in the order of trial, the kept path marked with ●.

    Yields segments itself: rich's own tree lays out every node several times, which ten thousand trials
    make seconds of.
    """

    def __init__(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self._name = name
        self._children: dict[int | None, list[Mapping[str, Any]]] = {}
        for row in rows:
            self._children.setdefault(row["parent"], []).append(row)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment(f"{self._name}   (val_bpb on A ± 95%, gain over parent, bytes)", DIM)
        yield Segment.line()
        stack = [(row, "", i == 0) for i, row in enumerate(reversed(self._children.get(None, [])))]
        while stack:
            row, prefix, last = stack.pop()
            below = self._children.get(row["trial"], [])
            yield Segment(prefix + ("└─ " if last else "├─ "), DIM)
            yield from _title(row)
            yield Segment.line()
            inner = prefix + ("   " if last else "│  ")
            yield Segment(inner + ("│   " if below else "    "), DIM)
            yield from _numbers(row)
            yield Segment.line()
            stack += [(child, inner, i == 0) for i, child in enumerate(reversed(below))]


def _title(row: Mapping[str, Any]) -> Iterator[Segment]:
    style = KEPT if row["kept_path"] else STYLES.get(row["verdict"], CYAN)
    text = row["hypothesis"]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    if len(text) > HYPOTHESIS_WIDTH:
        text = text[: HYPOTHESIS_WIDTH - 1] + "…"
    yield Segment(f"{'●' if row['kept_path'] else '○'} {row['trial']} ", style)
    yield Segment(text, None if row["kept_path"] else style)


def _numbers(row: Mapping[str, Any]) -> Iterator[Segment]:
    if row["val_bpb"] is not None:
        low, high = row["val_bpb_low"], row["val_bpb_high"]
        yield Segment(number(row["val_bpb"]) + (f" ±{(high - low) / 2:.4f}" if low is not None else "") + "  ")
        if row["gain_bpb"] is not None:
            yield Segment(number(row["gain_bpb"], sign=True) + "  ", GREEN if row["gain_bpb"] > 0 else RED)
        yield Segment((f"{row['counted_bytes']:,}" if row["counted_bytes"] else DASH) + "  ")
    yield Segment(row["verdict"] or row["state"], STYLES.get(row["verdict"], CYAN))
    if row["outcome"] not in (None, "ok"):
        yield Segment(f" {row['outcome']}", RED)
    if row["score_kind"] == "self_reported":
        yield Segment(" self-reported", YELLOW)
    if row["steering"]:
        yield Segment(f" {row['steering']}", YELLOW)
    if row["suggestion"]:
        yield Segment(" suggested", CYAN)


def save_svg(tree: LineageTree, path: Path, title: str) -> None:
    """The tree as a picture that needs nothing from elsewhere: rich would load its font from the web."""
    console = Console(record=True, width=SVG_WIDTH, file=io.StringIO(), highlight=False)
    console.print(tree)
    svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=title), flags=re.DOTALL)
    path.write_text(svg, encoding="utf-8")
