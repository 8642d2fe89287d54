"""The lineage of a run as a tree."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from agentgolf.decide.accept import mean_interval, pooled_noise
from agentgolf.decide.policy import ancestry, incumbent
from agentgolf.ledger.lineage import find_run, noise_groups, replicate_rows, summaries, trial_rows
from agentgolf.ledger.store import Ledger
from agentgolf.report.tables import DASH, VERDICT_STYLE, number


def tree_rows(ledger: Ledger, name: str | None) -> tuple[str, list[dict[str, Any]]]:
    """The run's name, and one row a trial, with the 95% interval of its mean score on A."""
    run = find_run(ledger, name)
    rows, replicates = trial_rows(ledger, run["id"]), replicate_rows(ledger, run["id"])
    noise = pooled_noise(noise_groups(replicates))
    by_trial: dict[int, list[float]] = {}
    for replicate in replicates:
        if replicate["outcome"] == "ok" and replicate["heldout"] == "A" and replicate["purpose"] != "paired":
            by_trial.setdefault(replicate["trial_id"], []).append(replicate["val_bpb"])
    decided = summaries(rows)
    kept = {trial.number for trial in ancestry(decided, incumbent(decided).number)} if decided else set()
    out = []
    for row in rows:
        scores = by_trial.get(row["id"], [])
        low, high = mean_interval(scores, noise) or (None, None)
        out.append(
            {
                "trial": row["number"],
                "parent": row["parent"],
                "state": row["state"],
                "proposer": row["proposer"],
                "technique": row["technique"],
                "hypothesis": row["hypothesis"],
                "outcome": row["outcome"],
                "verdict": row["verdict"],
                "val_bpb": row["val_bpb"],
                "val_bpb_low": low,
                "val_bpb_high": high,
                "replicates": len(scores),
                "gain_bpb": row["gain_bpb"],
                "gain_low": row["gain_low"],
                "gain_high": row["gain_high"],
                "counted_bytes": row["counted_bytes"],
                "commit": row["commit_sha"],
                "reason": row["reason"],
                "kept_path": row["number"] in kept,
            }
        )
    return run["name"], out


def render_tree(name: str, rows: Sequence[Mapping[str, Any]]) -> Tree:
    """Children stand below their parent in the order of trial; the kept path is marked with ●."""
    tree = Tree(Text(f"{name}   (val_bpb on A ± 95%, gain over parent, bytes)", style="dim"), guide_style="dim")
    branches: dict[int, Tree] = {}
    for row in rows:
        above = branches.get(row["parent"], tree) if row["parent"] is not None else tree
        branches[row["trial"]] = above.add(_line(row))
    return tree


def _line(row: Mapping[str, Any]) -> Text:
    verdict = row["verdict"] or row["state"]
    style = VERDICT_STYLE.get(verdict, "cyan")
    text = Text(overflow="fold")
    text.append(
        f"{'●' if row['kept_path'] else '○'} {row['trial']} ",
        style="bold green" if row["kept_path"] else style,
    )
    hypothesis = "".join(c if c.isprintable() else " " for c in row["hypothesis"])
    text.append(hypothesis[:60] + ("…" if len(hypothesis) > 60 else ""), style="" if row["kept_path"] else style)
    text.append("\n  ")
    if row["val_bpb"] is not None:
        half = (row["val_bpb_high"] - row["val_bpb_low"]) / 2 if row["val_bpb_low"] is not None else None
        text.append(number(row["val_bpb"]) + (f" ±{half:.4f}" if half is not None else ""))
        if row["gain_bpb"] is not None:
            text.append(f"  {number(row['gain_bpb'], sign=True)}", style="green" if row["gain_bpb"] > 0 else "red")
        text.append(f"  {row['counted_bytes']:,}" if row["counted_bytes"] else f"  {DASH}")
        text.append("  ")
    text.append(verdict, style=style)
    if row["outcome"] not in (None, "ok"):
        text.append(f" {row['outcome']}", style="red")
    return text


def save_svg(tree: Tree, path: Path, title: str) -> None:
    """The tree as a picture, 90 columns wide."""
    console = Console(record=True, width=90, file=io.StringIO(), highlight=False)
    console.print(tree)
    console.save_svg(str(path), title=title)
