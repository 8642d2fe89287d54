"""What a run shows while it runs, on stderr: a live view on a terminal, plain lines elsewhere."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agentgolf.duration import format_duration
from agentgolf.ledger.store import Row
from agentgolf.loop.campaign import Campaign
from agentgolf.loop.observer import CurvePoint, Observer
from agentgolf.report.tables import VERDICT_STYLE, number

SPARKS = "▁▂▃▄▅▆▇█"
LAST_TRIALS = 8
CURVE_POINTS = 32


class View(Observer):
    """An observer that knows the campaign, for budget and incumbent."""

    def __init__(self) -> None:
        self._campaign: Campaign | None = None

    def follow(self, campaign: Campaign) -> None:
        self._campaign = campaign

    def budget_left(self) -> str:
        if self._campaign is None or self._campaign.row["budget_seconds"] is None:
            return ""
        left = max(0.0, self._campaign.budget.left_seconds)
        ends = time.strftime("%H:%M", time.localtime(time.time() + left))
        return f"{format_duration(left)} left, ends about {ends}"


class PlainView(View):
    """One line an event."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lock = threading.Lock()

    def _say(self, text: str) -> None:
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            self._stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
            self._stream.flush()

    def stage(self, trial: int, what: str) -> None:
        self._say(f"trial {trial}: {what}")

    def replicate(self, row: Row) -> None:
        score = (
            number(row["val_bpb"], 5) + " bpb" + (" self-reported" if row["score_kind"] == "self_reported" else "")
            if row["val_bpb"] is not None
            else f"{row['outcome']}: {row['message']}"
        )
        self._say(f"trial {row['trial']}: {row['purpose']} {row['position'] + 1}: {score}")

    def decided(self, row: Row) -> None:
        left = f"; {text}" if (text := self.budget_left()) else ""
        said = f"{row['verdict']} ({row['outcome']}) {row['hypothesis'][:80]}: {row['reason']}"
        self._say(f"trial {row['number']}: {said}{left}")

    def note(self, text: str) -> None:
        self._say(text)


class LiveView(View):
    """Redraws a small panel: stage, curves, budget, incumbent, last trials."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._lock = threading.RLock()
        self._now: dict[str, str] = {}
        self._curves: dict[str, list[CurvePoint]] = {}
        self._last: deque[Row] = deque(maxlen=LAST_TRIALS)
        self._kept: Row | None = None

    def stage(self, trial: int, what: str) -> None:
        kind, _, label = what.partition(" ") if what.startswith(("training ", "scoring ")) else (what, "", "")
        with self._lock:
            self._now.pop(f"trial {trial}", None)  # what it did before it had replicates
            if not label:
                self._now, self._curves = {}, {}
            self._now[f"trial {trial} {label}".strip()] = kind

    def curve(self, trial: int, label: str, point: CurvePoint) -> None:
        with self._lock:
            self._curves.setdefault(f"trial {trial} {label}", []).append(point)

    def replicate(self, row: Row) -> None:
        with self._lock:
            key = f"trial {row['trial']} {row['purpose']} {row['position'] + 1}"
            self._now[key] = number(row["val_bpb"], 4) if row["val_bpb"] is not None else str(row["outcome"])
            self._curves.pop(key, None)

    def decided(self, row: Row) -> None:
        with self._lock:
            self._last.append(row)
            self._now, self._curves = {}, {}
            if row["verdict"] == "keep":
                self._kept = row

    def note(self, text: str) -> None:
        self._console.print(Text(text, style="dim"))

    def __rich__(self) -> Panel:
        with self._lock:
            head = Table.grid(expand=True)
            head.add_column()
            head.add_column(justify="right")
            kept = self._kept
            best = (
                f"incumbent: trial {kept['number']}, {number(kept['val_bpb'])} bpb"
                if kept
                else "measuring the baseline"
            )
            head.add_row(Text(best, style="bold"), Text(self.budget_left(), style="dim"))
            parts: list[object] = [head]
            for key, stage in list(self._now.items())[-6:]:
                points = self._curves.get(key, [])
                row = Table.grid(padding=(0, 1))
                row.add_column(width=22)
                row.add_column(width=10)
                row.add_column(width=10)
                row.add_column()
                share = min(points[-1].share, 1.0) if points else 0.0
                loss = f" loss {points[-1].train_loss:.3f}" if points else ""
                bar = ProgressBar(total=1.0, completed=share, width=10) if stage == "training" else Text("")
                row.add_row(
                    Text(key, overflow="ellipsis", no_wrap=True),
                    Text(stage),
                    bar,
                    Text(_spark(points) + loss),
                )
                parts.append(row)
            for trial in self._last:
                style = VERDICT_STYLE.get(trial["verdict"], "")
                gain = number(trial["gain_bpb"], sign=True)
                text = f"{trial['number']:>4} {trial['verdict']:<9} {gain:>8} {trial['hypothesis']}"
                parts.append(Text(text, style=style, no_wrap=True, overflow="ellipsis"))
            return Panel(Group(*parts), title="agentgolf", border_style="dim")  # type: ignore[arg-type]


def _spark(points: list[CurvePoint]) -> str:
    """The loss curve in one line of block characters."""
    values = [point.train_loss for point in points][-CURVE_POINTS:][::2]
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(SPARKS[round((value - low) / span * (len(SPARKS) - 1))] for value in values)


@contextlib.contextmanager
def make_observer(row: Row | None, stream: TextIO) -> Iterator[View]:
    """The live view if the stream is a terminal, else plain lines."""
    if not stream.isatty():
        yield PlainView(stream)
        return
    console = Console(stderr=True, highlight=False)
    view = LiveView(console)
    with Live(view, console=console, refresh_per_second=4, transient=True):
        yield view
