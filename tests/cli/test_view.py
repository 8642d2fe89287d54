"""What a run shows while it runs."""

import io
from pathlib import Path

from rich.console import Console

from agentgolf.cli.view import LiveView, PlainView, View
from agentgolf.loop.observer import CurvePoint, curve_point
from tests.support import Fixture, edit

LINES = [edit("better", "QUALITY = 0.0", "QUALITY = 0.1"), edit("crash", "RATE = 0.5", "# fake: crash\nRATE = 0.5")]


def test_curve_lines_are_read_and_others_are_not() -> None:
    assert curve_point("step:50 share:0.210 train_loss:5.2506") == CurvePoint(step=50, share=0.21, train_loss=5.2506)
    assert curve_point("loss is 3") is None and curve_point("") is None


def watched(folder: Path, view: View) -> None:
    Fixture(folder, LINES).play(trials=2, observer=view)


def test_plain_lines_tell_the_story(tmp_path: Path) -> None:
    stream = io.StringIO()
    watched(tmp_path, PlainView(stream))
    said = stream.getvalue()
    for part in (
        "trial 0: baseline 1:",
        "trial 0: keep (ok) the unmodified course",
        "trial 1: proposing",
        "trial 1: training search 1",
        "trial 1: keep (ok) better",
        "trial 2: revert (crashed)",
        "final on B",
    ):
        assert part in said, part


def test_the_live_panel_has_stage_curve_incumbent_and_last_trials(tmp_path: Path) -> None:
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
    view = LiveView(console)
    watched(tmp_path, view)
    view.stage(3, "training search 1")
    for step in range(1, 30):
        view.curve(3, "search 1", CurvePoint(step=step, share=step / 40, train_loss=6 / step))
    console.print(view)
    shown = console.export_text()
    assert "incumbent: trial 1" in shown and "trial 3 search 1" in shown and "training" in shown
    assert "█" in shown and "loss 0.207" in shown and "crash" in shown and "+0." in shown
    assert max(map(len, shown.splitlines())) <= 80
